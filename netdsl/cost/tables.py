"""Sheets as tables in a terminal, with bars of shares.

Printed without rich, whose import and layout take longer than all of the counting.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from fractions import Fraction
from textwrap import wrap
from typing import Any

from netdsl.cost.count import Cost, Layer
from netdsl.cost.sheet import Column, Sheet, memory, number, pixels, shape

BAR = 8
EIGHTHS = " ▏▎▍▌▋▊▉█"
GAP = "  "
NARROWEST = 60
BOLD, DIM = "1", "2"
COLORS = ("34", "33", "35")
"""One colour for memory, parameters, operations, the order of the lectures' triptych."""

LAYER_COLUMNS = (
    Column("layer", key="name"),
    Column("op"),
    Column("output", shape, key="out"),
    Column("memory", memory, right=True, bar=True, key="activation_bytes"),
    Column("parameters", number, right=True, bar=True, key="params"),
    Column("MACs", number, right=True, bar=True, key="macs"),
    Column("field", str, right=True, key="receptive_field"),
)


def cost_sheet(cost: Cost) -> Sheet:
    """The table by layer: op, output, activation memory, parameters, MACs, receptive field."""
    rows = tuple(_row(layer) for layer in cost.layers)
    total = ("total", None, None, cost.activation_bytes, cost.params, cost.macs, None)
    return Sheet(heading(cost), LAYER_COLUMNS, rows, (total,), notes(cost), cost.net)


def heading(cost: Cost) -> str:
    """The net, its input, and the batch where it is not one."""
    inputs = " and ".join(shape(s) for s in cost.inputs.values())
    batch = "" if cost.batch == 1 else f", batch {cost.batch:,}"
    dtype = "" if cost.dtype == "float32" else f", {cost.dtype}"
    return f"{cost.net}: input {inputs}{batch}{dtype}"


def _row(layer: Layer) -> tuple[object, ...]:
    return (
        layer.name,
        layer.word,
        layer.output,
        layer.activation_bytes,
        layer.params,
        layer.macs,
        field_text(layer),
    )


def field_text(layer: Layer) -> str:
    """A layer's receptive field in words; `all` where it has seen the whole input."""
    if layer.sees_all:
        return "all"
    return "–" if layer.receptive_field is None else pixels(layer.receptive_field)


def notes(cost: Cost) -> tuple[str, ...]:
    """What stands under the table: biases, what the memory is of, auxiliary heads."""
    biases = cost.params - cost.weights
    found = [
        f"{number(cost.weights)} weights + {number(biases)} biases, "
        f"{memory(cost.params * cost.itemsize)} in {cost.dtype}. MACs are the multiply-adds of "
        "conv, tconv and fc, without bias; memory is every op's output.",
    ]
    if any(layer.kind == "bn" for layer in cost.layers):
        found.append("Running means and variances of bn are measured, not learned: not counted.")
    for head in cost.aux:
        found.append(
            f"apart: auxiliary head {head.name}, {number(head.params)} parameters, "
            f"{number(head.macs)} MACs (in training only)"
        )
    return tuple(found)


def bar(share: float, width: int = BAR) -> str:
    """A share of one as a bar of eighths of a cell; what is not zero shows at least a sliver."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    if share > 0:
        eighths = max(eighths, 1)
    full, rest = divmod(eighths, 8)
    return (EIGHTHS[8] * full + (EIGHTHS[rest] if rest else "")).ljust(width)


def percent(share: float) -> str:
    """A share in four characters: 0.074 -> "  7%"; what is above zero but rounds to it is <1%."""
    return " <1%" if 0 < share < 0.005 else f"{share:4.0%}"


def bar_text(sheet: Sheet, row: int, column: int, width: int) -> str:
    """A cell's bar, after its percentage of the column where shares are shown and there is room.

    The longest bar is the column's largest value, or the table's.
    """
    share = sheet.shares[column][row]
    if not share:
        return ""
    if sheet.bars == "share":
        length = share / sheet.longest[column]
        return bar(length, width) if width <= BAR else f"{percent(share)} {bar(length, width - 5)}"
    alone = sheet.bars == "length"
    largest = sheet.largest[column] if alone else max(sheet.largest.values())
    return bar(float(Fraction(sheet.rows[row][column]) / Fraction(largest)), width)


def bar_width(sheet: Sheet, width: int | None) -> int:
    """The width of bars that a table `width` wide has room for: with percentages, without them,
    short ones, none."""
    for candidate in (BAR + 5, BAR, BAR // 2):
        if width is None or natural_width(sheet, candidate) <= width:
            return candidate
    return 0


def natural_width(sheet: Sheet, bars: int = BAR + 5) -> int:
    """The width that the table takes with bars as wide as this."""
    drawn = sum(column.bar for column in sheet.columns) * (bars + len(GAP)) if bars else 0
    return sum(_widths(sheet)) + len(GAP) * (len(sheet.columns) - 1) + drawn


def _widths(sheet: Sheet) -> list[int]:
    """Each column's width without bars."""
    rows = (*sheet.rows, *sheet.totals)
    return [
        max(len(text) for text in (column.title, *(column.text(row[i]) for row in rows)))
        for i, column in enumerate(sheet.columns)
    ]


def table_lines(sheet: Sheet, width: int | None = None, colored: bool = False) -> list[str]:
    """The sheet as lines of text: title, heads, rows, totals, notes.

    width: of the terminal, None for as wide as it gets; it decides what bars there is room for
    and where notes wrap. colored: with ANSI colours.
    """
    bars = bar_width(sheet, width)
    paint = _paint if colored else _plain
    widths = _widths(sheet)
    lines = [paint(sheet.title, BOLD)]
    heads = []
    for column, room in zip(sheet.columns, widths, strict=True):
        heads.append(column.title.rjust(room) if column.right else column.title.ljust(room))
        if column.bar and bars:
            heads.append(" " * bars)
    lines.append(paint(GAP.join(heads).rstrip(), DIM))
    for at, row in enumerate((*sheet.rows, *sheet.totals)):
        lines.append(_line(sheet, at, row, widths, bars, paint))
    room = max(width or natural_width(sheet, bars), NARROWEST)
    for note in sheet.notes:
        lines += [paint(line, DIM) for line in wrap(note, room)]
    return lines


def _line(
    sheet: Sheet,
    at: int,
    row: tuple[Any, ...],
    widths: list[int],
    bars: int,
    paint: Callable[[str, str], str],
) -> str:
    """One row; a total is bold, a zero is dim."""
    total = at >= len(sheet.rows)
    cells, colors = [], iter(COLORS * len(sheet.columns))
    for i, (column, value) in enumerate(zip(sheet.columns, row, strict=True)):
        text = column.text(value)
        text = text.rjust(widths[i]) if column.right else text.ljust(widths[i])
        quiet = DIM if column.right and value == 0 else ""
        cells.append(paint(text, BOLD if total else quiet))
        if column.bar and bars:
            share = "" if total else bar_text(sheet, at, i, bars)
            cells.append(paint(share.ljust(bars), next(colors)))
    return GAP.join(cells).rstrip()


def _plain(text: str, style: str) -> str:
    return text


def _paint(text: str, style: str) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if style and text.strip() else text


def show_sheet(sheet: Sheet) -> None:
    """Prints a sheet, fitted to the terminal; a pipe gets as much width as the table wants."""
    width, colored = terminal()
    print("\n".join(table_lines(sheet, width, colored)))


def terminal() -> tuple[int | None, bool]:
    """The width of standard output, None where it is no terminal; and whether it has colours."""
    if not sys.stdout.isatty():
        return None, False
    quiet = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    return shutil.get_terminal_size().columns, not quiet


def as_text(cost: Cost) -> str:
    """The table by layer as plain text."""
    return "\n".join(table_lines(cost_sheet(cost)))
