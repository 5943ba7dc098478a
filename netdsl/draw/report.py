"""A net's costs as one self-contained HTML page: graph, charts, a table to sort, notes."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from netdsl.cost import Cost
from netdsl.cost.conventions import CONVENTIONS
from netdsl.cost.group import group_sheet
from netdsl.cost.memory import memory_sheet
from netdsl.cost.plot import render
from netdsl.cost.sheet import Column, Sheet, memory, number, shape
from netdsl.cost.tables import cost_sheet, heading
from netdsl.draw.picture import draw
from netdsl.draw.report_page import SCRIPT, STYLE
from netdsl.draw.svg import as_svg
from netdsl.faults import error

COLORS = ("#0072B2", "#D55E00", "#009E73")
"""Memory, parameters, operations, as in the charts."""


def save_report(cost: Cost, path: str | Path) -> None:
    """Writes the page. Raises NetError: not an .html file, or a place that cannot be written."""
    file = Path(path)
    if file.suffix.lower() not in (".html", ".htm"):
        raise error("bad-report", f"{file} must end in .html")
    text = page(cost)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise error("unwritable", f"{file} cannot be written: {problem.strerror}") from None


def page(cost: Cost) -> str:
    """The page's text; it needs nothing from outside of itself."""
    sheet = cost_sheet(cost)
    notes = "".join(f"<li>{escape(note)}</li>" for note in (*sheet.notes, *_meta(cost)))
    parts = [
        f"<header><h1>{escape(cost.net)}</h1><p>{escape(_about(cost))}</p></header>",
        _tiles(cost),
        _section("charts", "Where the cost is", f'<div class="chart">{_chart(cost)}</div>'),
        _section("graph", "The graph", f'<div class="graph">{as_svg(draw(cost))}</div>'),
        _section("layers", "Layer by layer", _table(sheet, sortable=True)),
        _section("stages", "Stage by stage", _table(group_sheet(cost, "stage"))),
        _section("memory", "Memory", _table(memory_sheet(cost, "momentum"))),
        _section("conventions", "As others count it", _table(_conventions(cost))),
        _section("notes", "Notes", f"<ul>{notes}</ul>"),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(cost.net)}: cost</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        "<main>\n" + "\n".join(parts) + f"\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _about(cost: Cost) -> str:
    """The input, the batch, how many ops."""
    return f"{heading(cost).removeprefix(cost.net + ': ')}, {len(cost.layers)} ops"


def _section(name: str, title: str, inside: str) -> str:
    return f'<section id="{name}"><h2>{escape(title)}</h2>{inside}</section>'


def _tiles(cost: Cost) -> str:
    inputs = " and ".join(map(shape, cost.inputs.values()))
    tiles = (
        (number(cost.params), "parameters"),
        (number(cost.macs), "multiply-adds"),
        (memory(cost.activation_bytes), "activations"),
        (memory(cost.params * cost.itemsize), f"of parameters in {cost.dtype}"),
        (inputs, "input"),
    )
    made = "".join(f"<div><b>{escape(a)}</b><span>{escape(b)}</span></div>" for a, b in tiles)
    return f'<div class="tiles">{made}</div>'


def _chart(cost: Cost) -> str:
    """The triptych as inline SVG, without what an XML file would begin with."""
    text = render([cost], "svg").decode()
    return text[text.index("<svg") :]


def _table(sheet: Sheet, *, sortable: bool = False) -> str:
    """A sheet as an HTML table; bars are backgrounds, cells carry their raw value to sort by."""
    colors = dict(zip(sheet.shares, COLORS, strict=False))
    heads = "".join(_head(column, sortable) for column in sheet.columns)
    rows = "".join(
        "<tr>" + "".join(_cell(sheet, i, row, at, colors) for i in range(len(row))) + "</tr>"
        for at, row in enumerate(sheet.rows)
    )
    totals = "".join(
        "<tr>"
        + "".join(
            f'<td class="{_align(column)}">{escape(column.text(value))}</td>'
            for column, value in zip(sheet.columns, row, strict=True)
        )
        + "</tr>"
        for row in sheet.totals
    )
    kind = ' class="sortable"' if sortable else ""
    foot = f"<tfoot>{totals}</tfoot>" if totals else ""
    return (
        f'<div class="wide"><table{kind}><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody>{foot}</table></div>"
    )


def _head(column: Column, sortable: bool) -> str:
    inside = escape(column.title)
    if sortable:
        inside = f'<button type="button">{inside}</button>'
    return f'<th scope="col" class="{_align(column)}">{inside}</th>'


def _align(column: Column) -> str:
    return "right" if column.right else "left"


def _cell(sheet: Sheet, i: int, row: tuple[Any, ...], at: int, colors: dict[int, str]) -> str:
    column, value = sheet.columns[i], row[i]
    style = ""
    if i in colors and value:
        length = sheet.shares[i][at] / sheet.longest[i]
        style = f' style="--share:{length:.4f};--color:{colors[i]}"'
    raw = value if isinstance(value, int | float) else _sortable(value)
    bar = " bar" if style else ""
    text = escape(column.text(value))
    return f'<td class="{_align(column)}{bar}"{style} data-value="{raw}">{text}</td>'


def _sortable(value: Any) -> str:
    """What a cell that is no number sorts by: a shape by its size, a text by itself."""
    if isinstance(value, tuple):
        size = 1
        for n in value:
            size *= n
        return str(size)
    return escape(str(value or ""))


def _conventions(cost: Cost) -> Sheet:
    """Each convention's figure, with what it counts."""
    columns = (
        Column("convention"),
        Column("figure", number, right=True),
        Column("unit"),
        Column("counts"),
        Column("leaves out"),
    )
    rows = tuple(
        (one.name, one.total(cost), one.unit, one.says, one.leaves_out)
        for one in CONVENTIONS.values()
    )
    return Sheet("", columns, rows)


def _meta(cost: Cost) -> tuple[str, ...]:
    """The net's own facts: its paper, year, error."""
    return tuple(f"{key.replace('_', ' ')}: {value}" for key, value in cost.graph.meta.items())
