"""A picture as plain shapes, before anyone knows whether it becomes SVG or pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt

from netdsl.draw.layout import BARS, BODY_LINE, PAD_X, PAD_Y, TITLE_LINE, Drawing, Placed
from netdsl.draw.text import BODY, TITLE, width_of

FILLS = {
    "input": "#F2F2F2",
    "conv": "#D6E8F5",
    "pool": "#FBE6CC",
    "fc": "#F6DDEA",
    "join": "#FFFFFF",
    "block": "#D9F0E6",
    "other": "#F7F7F7",
}
EDGES = {
    "input": "#777777",
    "conv": "#0072B2",
    "pool": "#E69F00",
    "fc": "#CC79A7",
    "join": "#555555",
    "block": "#009E73",
    "other": "#999999",
}
"""Okabe and Ito's colours, and tints of them; the text says the kind too."""

MACS, PARAMS = "#009E73", "#D55E00"
INK, FAINT = "#1A1A1A", "#555555"
SIGNS = {"add": "+", "mul": "*", "concat": "|"}
MARGIN = 20.0
PANEL_GAP = 44.0
NAME = 30.0


@dataclass(frozen=True)
class Rect:
    left: float
    top: float
    width: float
    height: float
    fill: str
    stroke: str = ""
    radius: float = 6.0
    dashed: bool = False
    tip: str = ""


@dataclass(frozen=True)
class Path:
    """A line through points, bent smoothly or straight, with an arrowhead at the end."""

    points: tuple[tuple[float, float], ...]
    dashed: bool = False
    straight: bool = False


@dataclass(frozen=True)
class Label:
    """A line of text: its left (or middle) and its baseline."""

    x: float
    y: float
    text: str
    size: int = BODY
    bold: bool = False
    fill: str = INK
    middle: bool = True


@dataclass
class Scene:
    """Shapes in the order they are drawn, in a frame of this size."""

    width: float = 0.0
    height: float = 0.0
    shapes: list[Rect | Path | Label] = field(default_factory=list)


def scene(title: str, subtitle: str, panels: list[tuple[str, Drawing]]) -> Scene:
    """The whole picture: a heading, a legend, and panels from left to right."""
    made = Scene()
    made.shapes.append(Label(MARGIN, MARGIN + 18, title, 22, True, middle=False))
    made.shapes.append(Label(MARGIN, MARGIN + 38, subtitle, BODY, fill=FAINT, middle=False))
    legend = _legend(made, MARGIN, MARGIN + 58)
    top, left = MARGIN + 86, MARGIN
    most = _most(panels)
    down, wide, room = 0.0, 0.0, panels[0][1].height
    for at, (name, drawing) in enumerate(panels):
        height = drawing.height + (NAME if name else 0.0)
        if at and (at == 1 or down + height > room):  # no room below: the next column
            left, down, wide = left + wide + PANEL_GAP, 0.0, 0.0
        _panel(made, name, drawing, left, top + down, most)
        down += height + (PANEL_GAP if at else 0.0)
        wide = max(wide, drawing.width, width_of(name, TITLE))
        room = max(room, height)
    longest = max(legend, width_of(title, 22), width_of(subtitle, BODY))
    made.width = max(left + wide, MARGIN + longest) + MARGIN
    made.height = top + room + MARGIN
    return made


def _most(panels: list[tuple[str, Drawing]]) -> tuple[int, int]:
    """The largest MACs and parameters of any one box, which the bars are measured by."""
    boxes = [placed.box for placed in panels[0][1].boxes]
    return max(b.macs for b in boxes), max(b.params for b in boxes)


def _legend(made: Scene, left: float, y: float) -> float:
    for color, text in ((MACS, "MACs"), (PARAMS, "parameters")):
        made.shapes.append(Rect(left, y - 8, 34, 5, color, radius=1))
        made.shapes.append(Label(left + 40, y, text, BODY, fill=FAINT, middle=False))
        left += 58 + width_of(text, BODY)
    text = "bars: square root of the share of the largest box"
    made.shapes.append(Label(left, y, text, BODY, fill=FAINT, middle=False))
    return left + width_of(text, BODY)


def _panel(
    made: Scene, name: str, drawing: Drawing, left: float, top: float, most: tuple[int, int]
) -> None:
    """Draws one panel under its name."""
    down = NAME if name else 0.0
    if name:
        made.shapes.append(Label(left, top + 12, name, TITLE, True, middle=False))
    for arrow in drawing.arrows:
        moved = tuple((x + left, y + top + down) for x, y in arrow.points)
        made.shapes.append(Path(moved, arrow.head, arrow.straight))
    for placed in drawing.boxes:
        _box(made, placed, left, top + down, most)


def _box(made: Scene, placed: Placed, dx: float, dy: float, most: tuple[int, int]) -> None:
    box, left, top = placed.box, placed.left + dx, placed.top + dy
    fill, edge = FILLS[box.kind], EDGES[box.kind]
    radius = placed.height / 2 if box.kind == "join" else 6.0
    tip = "\n".join((box.title, *box.lines))
    made.shapes.append(
        Rect(left, top, placed.width, placed.height, fill, edge, radius, box.head, tip)
    )
    if box.kind == "join":
        sign = SIGNS.get(box.words[0], box.words[0]) if box.words else ""
        made.shapes.append(Label(left + placed.width / 2, top + 24, sign, 18, True))
        return
    x, y = left + placed.width / 2, top + PAD_Y + 13
    made.shapes.append(Label(x, y, box.title, TITLE, True))
    for i, line in enumerate(box.lines):
        at = y + TITLE_LINE + BODY_LINE * i
        made.shapes.append(Label(x, at, line, BODY, fill=INK if i == 0 else FAINT))
    _bars(made, placed, left, top + placed.height - BARS - 3, most)


def _bars(made: Scene, placed: Placed, left: float, top: float, most: tuple[int, int]) -> None:
    """Two thin bars of what a box costs, by square root: small shares stay visible."""
    room = placed.width - 2 * PAD_X
    for i, (value, color, largest) in enumerate(
        ((placed.box.macs, MACS, most[0]), (placed.box.params, PARAMS, most[1]))
    ):
        if value and largest:
            length = max(room * sqrt(min(value / largest, 1.0)), 1.0)
            made.shapes.append(Rect(left + PAD_X, top + 6 * i, length, 4, color, radius=1))
