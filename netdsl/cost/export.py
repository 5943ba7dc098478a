"""Sheets as CSV, with raw exact values, and as Markdown, as a person reads them."""

from __future__ import annotations

import csv
import io
from typing import Any

from netdsl.cost.sheet import Sheet
from netdsl.ops import show


def as_csv(sheets: list[Sheet]) -> str:
    """The rows of sheets of the same columns, a `net` column first where there are several.

    Totals are left out: a reader of CSV sums for itself.
    """
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n")
    several = len(sheets) > 1
    heads = [column.key or column.title for column in sheets[0].columns]
    write.writerow(["net", *heads] if several else heads)
    for sheet in sheets:
        for row in sheet.rows:
            cells = [_raw(value) for value in row]
            write.writerow([sheet.subject, *cells] if several else cells)
    return out.getvalue()


def _raw(value: Any) -> str:
    if value is None:
        return ""
    return show(value) if isinstance(value, tuple) else str(value)


def as_markdown(sheet: Sheet) -> str:
    """The sheet as a Markdown table under a heading, its notes below."""
    lines = [f"### {sheet.title}", ""]
    lines.append(_line([column.title for column in sheet.columns]))
    lines.append(_line(["---:" if column.right else "---" for column in sheet.columns]))
    for at, row in enumerate((*sheet.rows, *sheet.totals)):
        cells = [
            column.text(value).replace("|", "\\|")
            for column, value in zip(sheet.columns, row, strict=True)
        ]
        total = at >= len(sheet.rows)
        lines.append(_line([f"**{cell}**" if total and cell else cell for cell in cells]))
    for note in sheet.notes:
        lines += ["", note]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
