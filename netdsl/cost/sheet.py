"""A sheet of figures, before anyone knows whether it becomes a terminal table, CSV or HTML.

Cells hold raw values (exact integers, shapes as tuples); a column says how a person reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

from netdsl.frozen import dataclass
from netdsl.ops import show

Show = Callable[[Any], str]


@dataclass(frozen=True)
class Column:
    """One column: its title, how its values read, whether shares are drawn as bars beside them.

    `key` names the column where values are exported raw (CSV); left out, the title does.
    """

    title: str
    show: Show = str
    right: bool = False
    bar: bool = False
    key: str = ""

    def text(self, value: Any) -> str:
        """The value as a person reads it; None is an empty cell."""
        return "" if value is None else self.show(value)


@dataclass(frozen=True)
class Sheet:
    """Rows of cells under columns, then total rows, then notes in words; `subject` is the net.

    bars: "share" draws a cell's part of its column, with a percentage; "length" against the
    column's largest value; "table" against the largest in any column with bars.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    totals: tuple[tuple[Any, ...], ...] = ()
    notes: tuple[str, ...] = ()
    subject: str = ""
    bars: Literal["share", "length", "table"] = "share"

    @cached_property
    def shares(self) -> Mapping[int, tuple[float, ...]]:
        """For each column that draws bars, by its index, each row's part of the column's sum."""
        return {i: self._shares(i) for i, column in enumerate(self.columns) if column.bar}

    @cached_property
    def longest(self) -> Mapping[int, float]:
        """For each column that draws bars, its largest share."""
        return {i: max(shares, default=0.0) for i, shares in self.shares.items()}

    @cached_property
    def largest(self) -> Mapping[int, Any]:
        """For each column that draws bars, its largest value."""
        return {i: max((row[i] or 0 for row in self.rows), default=0) for i in self.shares}

    def _shares(self, column: int) -> tuple[float, ...]:
        values = [Fraction(cells[column] or 0) for cells in self.rows]
        total = sum(values)
        return tuple(float(value / total) if total else 0.0 for value in values)


def number(value: int) -> str:
    """15470264320 -> 15,470,264,320"""
    return f"{value:,}"


def memory(size: int) -> str:
    """Bytes in the largest binary unit that leaves at least 1: 12845056 -> 12.25 MiB."""
    amount, unit = Fraction(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(amount) < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{size} B" if unit == "B" else f"{float(amount):,.2f} {unit}"


def short(value: int | float) -> str:
    """A count to three or four figures: 15470264320 -> 15.47 G."""
    size = abs(value)
    for power, letter in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if size >= 10**power:
            return f"{value / 10**power:.2f} {letter}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def shape(value: tuple[int, ...]) -> str:
    """(3, 224, 224) -> 3x224x224"""
    return show(value)


def pixels(value: tuple[int, ...]) -> str:
    """A receptive field: one number where all axes agree."""
    return str(value[0]) if len(set(value)) == 1 else show(value)
