"""A statement that does not fit on one line.

Its longer brackets are broken, one branch a line, and its chain before an arrow. A bracket that is
written with a line break after its `[` stays broken.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from netdsl.lang.layout import JOINS, VALUES, Atom, Group, Item, flat, piece, space

WIDTH = 110
INDENT = 4
LONG_BRACKET = 40
"""A bracket longer than this is broken when its line does not fit."""
LONG_GROUP = 80
"""Parentheses and braces longer than this are, too."""


@dataclass
class Writer:
    """Lines of a statement as they are written."""

    lines: list[str] = field(default_factory=lambda: [""])

    @property
    def column(self) -> int:
        return len(self.lines[-1])

    @property
    def fresh(self) -> bool:
        """Whether the line holds nothing yet."""
        return not self.lines[-1].strip()

    def put(self, text: str) -> None:
        self.lines[-1] += text.lstrip() if self.fresh else text

    def newline(self, indent: int) -> None:
        self.lines[-1] = self.lines[-1].rstrip()
        if self.lines[-1]:
            self.lines.append("")
        self.lines[-1] = " " * indent

    def comment(self, atom: Atom, indent: int) -> None:
        if atom.alone:
            self.newline(indent)
        elif not self.fresh:
            self.lines[-1] = self.lines[-1].rstrip() + "  "
        self.put(atom.text)
        self.newline(indent)


def broken(items: list[Item]) -> list[str]:
    """The lines of a statement that does not fit on one."""
    writer = Writer()
    write(writer, items, "top", 0)
    writer.newline(0)
    return [line for line in writer.lines if line.strip()]


def write(writer: Writer, items: list[Item], kind: str, indent: int) -> None:
    """Items one after another, from the writer's column; later lines are indented further."""
    whole = flat(items, kind)
    fits = whole is not None and writer.column + len(whole) <= WIDTH
    deeper = indent + INDENT if kind == "top" else indent
    current = indent
    before: Item | None = None
    for i, item in enumerate(items):
        gap = space(before, item, kind, items)
        before = item
        if isinstance(item, Atom):
            if item.type == "COMMENT":
                writer.comment(item, deeper)
                current = deeper
                continue
            if item.type == "ARROW" and not fits:
                ahead = len(gap) + _ahead(items, i, kind)
                if writer.column + ahead > WIDTH and not writer.fresh:
                    writer.newline(deeper)
                    current = deeper
            writer.put(gap + item.text)
            continue
        writer.put(gap)
        _write_group(writer, item, current, fits)


def _ahead(items: list[Item], at: int, kind: str) -> int:
    """Columns from an arrow to the end of the step after it, or to a bracket that is broken."""
    width = 0
    before: Item | None = None
    for item in items[at:]:
        if isinstance(item, Atom) and (
            item.type == "COMMENT" or (item.type == "ARROW" and before is not None)
        ):
            break
        width += len(space(before, item, kind, items)) if before is not None else 0
        if isinstance(item, Group) and _breaks(item, False):
            return width + 1
        width += len(piece(item) or "")
        before = item
    return width


def _breaks(group: Group, fits: bool) -> bool:
    """Whether a bracket is broken, where its line does or does not fit."""
    text = piece(group)
    if text is None:
        return True
    if fits:
        return False
    return len(text) > (LONG_BRACKET if group.kind == "join" else LONG_GROUP)


def _write_group(writer: Writer, group: Group, indent: int, fits: bool) -> None:
    if not _breaks(group, fits):
        writer.put(piece(group) or "")
        return
    writer.put(group.open)
    items = list(group.items)
    while (
        items and isinstance(items[0], Atom) and items[0].type == "COMMENT" and not items[0].alone
    ):
        writer.comment(items[0], indent + INDENT)
        items.pop(0)
    writer.newline(indent + INDENT)
    if group.kind == "join":
        _write_branches(writer, items, indent)
    elif group.kind in VALUES:
        _write_values(writer, items, group.kind, indent + INDENT)
    else:
        write(writer, items, group.kind, indent + INDENT)
    writer.newline(indent)
    writer.put(group.close)


def _write_branches(writer: Writer, items: list[Item], indent: int) -> None:
    branch: list[Item] = []
    for item in items:
        if isinstance(item, Atom) and item.type in JOINS:
            write(writer, branch, "join", indent + INDENT)
            writer.newline(indent + INDENT - 2)
            writer.put(item.text + " ")
            branch = []
        else:
            branch.append(item)
    write(writer, branch, "join", indent + INDENT)


def _write_values(writer: Writer, items: list[Item], kind: str, indent: int) -> None:
    """Arguments, as many a line as fit."""
    before: Item | None = None
    for item in items:
        gap = space(before, item, kind, items)
        if isinstance(item, Atom) and item.type == "COMMENT":
            writer.comment(item, indent)
            before = item
            continue
        text = piece(item)
        comma = isinstance(before, Atom) and before.type == "COMMA"
        if comma and text is not None and writer.column + len(gap + text) > WIDTH - 20:
            writer.newline(indent)
        writer.put(gap)
        before = item
        if text is None and isinstance(item, Group):
            _write_group(writer, item, indent, False)
        else:
            writer.put(text or "")
