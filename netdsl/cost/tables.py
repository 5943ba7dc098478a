"""Sheets as tables in a terminal, with bars of shares, by rich."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

from netdsl.cost.count import Cost, Layer
from netdsl.cost.sheet import Column, Sheet, memory, number, pixels, shape, short

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

BAR = 8
EIGHTHS = " ▏▎▍▌▋▊▉█"
UNBOUNDED = 200
COLORS = ("blue", "yellow", "magenta")
"""One colour for memory, parameters, operations, the order of the lectures' triptych."""

LAYER_COLUMNS = (
    Column("layer"),
    Column("op"),
    Column("output", shape),
    Column("memory", memory, right=True, bar=True, unit="bytes"),
    Column("parameters", number, right=True, bar=True),
    Column("MACs", number, right=True, bar=True),
    Column("field", str, right=True, unit="pixels"),
)


def cost_sheet(cost: Cost) -> Sheet:
    """The table by layer: op, output, activation memory, parameters, MACs, receptive field."""
    rows = tuple(_row(layer) for layer in cost.layers)
    total = ("total", None, None, cost.activation_bytes, cost.params, cost.macs, None)
    return Sheet(heading(cost), LAYER_COLUMNS, rows, (total,), notes(cost))


def heading(cost: Cost) -> str:
    """The net, its input, and the batch where it is not one."""
    inputs = " and ".join(shape(s) for s in cost.inputs.values())
    batch = "" if cost.batch == 1 else f", batch {cost.batch:,}"
    dtype = "" if cost.dtype == "float32" else f", {cost.dtype}"
    return f"{cost.net}: input {inputs}{batch}{dtype}"


def _row(layer: Layer) -> tuple[object, ...]:
    return (
        layer.name,
        layer.op,
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
        f"{short(cost.weights)} weights + {short(biases)} biases, "
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


def share_text(sheet: Sheet, row: int, column: int, width: int) -> str:
    """A cell's share of its column: a percentage where there is room, and a bar.

    The longest bar is the column's largest share.
    """
    share = sheet.share(row, column)
    largest = max((sheet.share(i, column) or 0.0 for i in range(len(sheet.rows))), default=0.0)
    if not share or not largest:
        return ""
    drawn = bar(share / largest, BAR)
    return drawn if width == BAR else f"{percent(share)} {drawn}"


def bar_width(sheet: Sheet, width: int | None) -> int:
    """The width of bars that a table `width` wide has room for: with percentages, without, none."""
    for candidate in (BAR + 5, BAR):
        if width is None or natural_width(sheet, candidate) <= width:
            return candidate
    return 0


def natural_width(sheet: Sheet, bars: int = BAR + 5) -> int:
    """The width that the table takes with bars as wide as this."""
    width = 0
    for i, column in enumerate(sheet.columns):
        texts = [column.title, *(column.text(row[i]) for row in (*sheet.rows, *sheet.totals))]
        width += max(map(len, texts)) + 2 + (bars + 2 if column.bar and bars else 0)
    return width


def render(sheet: Sheet, width: int | None = None) -> Table:
    """A rich table of the sheet; bars are left out where `width` has no room for them."""
    from rich.table import Table
    from rich.text import Text

    bars = bar_width(sheet, width)
    table = Table(title=Text(sheet.title, "bold"), title_justify="left", box=None, pad_edge=False)
    for column in sheet.columns:
        align: Literal["left", "right"] = "right" if column.right else "left"
        title = Text(column.title, "dim")
        table.add_column(title, justify=align, no_wrap=True)
        if column.bar and bars:
            table.add_column("", width=bars, no_wrap=True)
    colors = _colors(sheet)
    for at, cells in enumerate((*sheet.rows, *sheet.totals)):
        total = at >= len(sheet.rows)
        texts = []
        for i, (column, value) in enumerate(zip(sheet.columns, cells, strict=True)):
            quiet = column.right and value == 0
            texts.append(Text(column.text(value), "dim" if quiet else ""))
            if column.bar and bars:
                texts.append(Text("" if total else share_text(sheet, at, i, bars), colors[i]))
        table.add_row(*texts, style="bold" if total else "")
    return table


def _colors(sheet: Sheet) -> dict[int, str]:
    """A colour for each column with bars."""
    bars = [i for i, column in enumerate(sheet.columns) if column.bar]
    return {i: COLORS[at % len(COLORS)] for at, i in enumerate(bars)}


def show_sheet(sheet: Sheet, console: Console | None = None) -> None:
    """Prints a sheet and its notes; a pipe gets as much width as the table wants."""
    from rich.console import Console

    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=max(natural_width(sheet), 100))
    console.print(render(sheet, console.width), crop=False)
    for note in sheet.notes:
        console.print(note, style="dim", highlight=False, markup=False)


def as_text(cost: Cost) -> str:
    """The table by layer as plain text."""
    from rich.console import Console

    out = io.StringIO()
    show_sheet(cost_sheet(cost), Console(file=out, width=UNBOUNDED))
    return out.getvalue().rstrip()
