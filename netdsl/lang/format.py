"""The one way to lay out a .net file.

One statement a line, at most one empty line in between, spaces around arrows and joins, and the
arrows of neighbouring lines of the same kind under each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from netdsl.faults import NetError
from netdsl.lang.layout import Atom, Group, Item, flat, space, tree
from netdsl.lang.parse import parse, tokens
from netdsl.lang.report import Report
from netdsl.lang.split import Comment, Parts, Stretch, split
from netdsl.lang.words import read_word
from netdsl.lang.wrap import WIDTH, broken
from netdsl.limits import LIFTED

SPREAD = 16
"""Columns may be moved this far to stand under each other."""


@dataclass
class Row:
    """A line, or lines, of the formatted text.

    `cells` and `keys` are those of a statement on one line: what may stand under its like in the
    next row, and what it is.
    """

    lines: list[str]
    cells: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    comment: str | None = None
    blank_before: bool = False


def format_text(text: str, file: str | None = None) -> str:
    """The text, laid out. Formatting twice changes nothing more, and the meaning stays.

    Raises NetError when the text has a fault of syntax.
    """
    parsed = parse(text, file, LIFTED)
    if parsed.faults:
        raise NetError(*parsed.faults)
    report = Report(parsed.source, LIFTED.faults)
    rows = _rows(text, split(report, LIFTED), report)
    _align(rows)
    _align_comments(rows)
    return _joined(rows)


# Rows -------------------------------------------------------------------------------------------


def _rows(text: str, parts: Parts, report: Report) -> list[Row]:
    """A row for each statement and for each comment on a line of its own."""
    rows: list[Row] = []
    inside: dict[int, list[Comment]] = {}
    outside: list[Comment | Stretch] = list(parts.statements)
    statements = iter(parts.statements)
    statement = next(statements, None)
    for comment in parts.comments:
        while statement is not None and statement.end <= comment.start:
            statement = next(statements, None)
        if statement is not None and statement.start < comment.start:
            inside.setdefault(statement.start, []).append(comment)
        else:
            outside.append(comment)
    end = 0
    for part in sorted(outside, key=lambda part: part.start):
        blank = bool(rows) and text.count("\n", end, part.start) > 1
        if isinstance(part, Stretch):
            row = _statement(text, part, inside.get(part.start, []), report)
        elif rows and not part.alone and rows[-1].comment is None and rows[-1].lines:
            rows[-1].comment = text[part.start : part.end]
            end = part.end
            continue
        else:
            row = Row([text[part.start : part.end]], comment="")
        row.blank_before = blank
        rows.append(row)
        end = part.end
    return rows


def _statement(text: str, part: Stretch, comments: list[Comment], report: Report) -> Row:
    piece = text[part.start : part.end]
    moved = [Comment(c.start - part.start, c.end - part.start, c.alone) for c in comments]
    items = tree(tokens(piece, report, LIFTED), moved, piece)
    line = flat(items)
    if line is None or len(line) > WIDTH:
        return Row(broken(items))
    cells, keys = _cells(items)
    return Row([line], cells, keys)


def _cells(items: list[Item]) -> tuple[list[str], list[str]]:
    """A statement's parts that may be aligned: before each arrow and `as` of a chain, before the
    `=` of a block."""
    first = items[0]
    if isinstance(first, Atom) and first.type in (
        "NET",
        "INPUT",
        "LABELS",
        "META",
        "EVERY",
        "OUTPUT",
    ):
        return [], []
    define = isinstance(first, Atom) and first.type == "DEF"
    cuts = {"EQUAL"} if define else {"ARROW", "AS"}
    groups: list[list[Item]] = [[]]
    for item in items:
        if isinstance(item, Atom) and item.type in cuts and len(groups) < (2 if define else 99):
            groups.append([])
        groups[-1].append(item)
    cells = []
    before: Item | None = None
    for group in groups:
        text = ""
        for item in group:
            text += ("" if item is group[0] else space(before, item, "top", items)) + _text(item)
            before = item
        cells.append(text)
    return cells, [_key(group) for group in groups]


def _text(item: Item) -> str:
    return item.text if isinstance(item, Atom) else flat([item]) or ""


def _key(group: list[Item]) -> str:
    """What a cell is: the head of its op, its block's name, or the bracket it is."""
    for item in group:
        if isinstance(item, Group):
            return item.open
        if item.type == "AS":
            return "as"
        if item.type in ("DEF", "EQUAL", "AUX"):
            return item.type
        if item.type == "WORD":
            word = read_word(item.text)
            return word.head if word is not None else item.text
    return ""


# Alignment --------------------------------------------------------------------------------------


def _align(rows: list[Row]) -> None:
    """Puts cells of neighbouring rows under each other, as long as the cells before are alike."""
    most = max((len(row.cells) for row in rows), default=0)
    for column in range(1, most):
        run: list[Row] = []
        for row in [*rows, Row([])]:
            fits = len(row.cells) > column
            if run and (not fits or row.blank_before or not _alike(run[-1], row, column)):
                _align_run(run, column)
                run = []
            if fits:
                run.append(row)
    for row in rows:
        if row.cells:
            row.lines = [" ".join(row.cells)]


def _alike(above: Row, row: Row, column: int) -> bool:
    return above.keys[: column + 1] == row.keys[: column + 1]


def _align_run(run: list[Row], column: int) -> None:
    widths = [len(row.cells[column - 1]) for row in run]
    widest = max(widths)
    grown = max(len(" ".join(row.cells)) + widest - w for row, w in zip(run, widths, strict=True))
    if widest - min(widths) > SPREAD or grown > WIDTH:
        return
    for row in run:
        row.cells[column - 1] = row.cells[column - 1].ljust(widest)


def _align_comments(rows: list[Row]) -> None:
    """Comments behind neighbouring lines begin in one column."""
    run: list[Row] = []
    for row in [*rows, Row([])]:
        follows = bool(row.comment)
        if run and (not follows or row.blank_before):
            widest = max(len(other.lines[-1]) for other in run)
            for other in run:
                other.lines[-1] = f"{other.lines[-1].ljust(widest)}  {other.comment}"
            run = []
        if follows:
            run.append(row)


def _joined(rows: list[Row]) -> str:
    lines: list[str] = []
    for row in rows:
        if row.blank_before:
            lines.append("")
        lines += row.lines
    return "".join(f"{line.rstrip()}\n" for line in lines)
