"""Where boxes and arrows go: Sugiyama's layered layout, by grandalf."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from netdsl.draw.fold import Box, Folded
from netdsl.draw.text import BODY, TITLE, width_of
from netdsl.faults import error

Point = tuple[float, float]

PAD_X, PAD_Y = 12.0, 8.0
TITLE_LINE, BODY_LINE = 18.0, 15.0
BARS = 12.0
GAP_X, GAP_Y = 22.0, 26.0
GAP_COLUMN = 56.0
COLUMN = 9
NARROWEST = 120.0


@dataclass(frozen=True)
class Placed:
    """A box and its rectangle: left, top, width, height."""

    box: Box
    left: float
    top: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.left + self.width / 2


@dataclass(frozen=True)
class Arrow:
    """An arrow through points, from the bottom of one box to the top of another.

    head: it leads into an auxiliary head. straight: it turns at corners, from one column's foot
    to the next one's top.
    """

    points: tuple[Point, ...]
    head: bool = False
    straight: bool = False


@dataclass(frozen=True)
class Drawing:
    """Placed boxes and arrows in a frame that begins at (0, 0)."""

    boxes: tuple[Placed, ...]
    arrows: tuple[Arrow, ...]
    width: float
    height: float


class _View:
    """What grandalf wants to know of a box or an arrow, and where it says the place."""

    def __init__(self, w: float, h: float) -> None:
        self.w, self.h = w, h
        self.xy: Point = (0.0, 0.0)
        self.points: list[Point] = []

    def setpath(self, points: list[Point]) -> None:
        self.points = list(points)


def size(box: Box) -> tuple[float, float]:
    """A box's width and height for its text; boxes with a cost have room for bars."""
    if box.kind == "join":
        return 64.0, 38.0
    widths = [width_of(box.title, TITLE), *(width_of(line, BODY) for line in box.lines)]
    bars = BARS if box.params or box.macs else 0.0
    height = 2 * PAD_Y + TITLE_LINE + BODY_LINE * len(box.lines) + bars
    return max(max(widths) + 2 * PAD_X, NARROWEST), height


def lay_out(folded: Folded) -> Drawing:
    """Places the boxes from top to bottom: layers, or for a long chain, columns.

    Raises NetError where grandalf is missing.
    """
    chain = _chain(folded)
    columns = -(-len(chain) // COLUMN)
    if columns < 2:
        return _layers(folded)
    most = -(-len(chain) // columns)
    return _columns([chain[at : at + most] for at in range(0, len(chain), most)])


def _chain(folded: Folded) -> tuple[Box, ...]:
    """The boxes in order where each leads to the next alone; nothing where they do not."""
    pairs = {(a.key, b.key) for a, b in pairwise(folded.boxes)}
    return folded.boxes if pairs == set(folded.arrows) else ()


def _columns(columns: list[tuple[Box, ...]]) -> Drawing:
    """A chain cut into columns from left to right."""
    boxes: list[Placed] = []
    arrows: list[Arrow] = []
    left = tallest = 0.0
    for column in columns:
        sizes = [size(box) for box in column]
        wide, top = max(w for w, _ in sizes), 0.0
        before = boxes[-1] if boxes else None
        for box, (w, h) in zip(column, sizes, strict=True):
            placed = Placed(box, left + (wide - w) / 2, top, w, h)
            boxes.append(placed)
            top += h + GAP_Y
        first = boxes[-len(column)]
        if before is not None:
            arrows.append(_to_next(before, first, left - GAP_COLUMN / 2))
        for a, b in pairwise(boxes[-len(column) :]):
            arrows.append(Arrow(((a.middle, a.top + a.height), (b.middle, b.top))))
        left += wide + GAP_COLUMN
        tallest = max(tallest, top - GAP_Y)
    return Drawing(tuple(boxes), tuple(arrows), left - GAP_COLUMN, tallest + GAP_Y / 2)


def _to_next(a: Placed, b: Placed, between: float) -> Arrow:
    """From a column's foot down, across, up between the columns, and into the next one's top."""
    foot, over = a.top + a.height + GAP_Y / 2, b.top - GAP_Y / 2
    start, end = (a.middle, a.top + a.height), (b.middle, b.top)
    bends = ((a.middle, foot), (between, foot), (between, over), (b.middle, over))
    return Arrow((start, *bends, end), straight=True)


def _layers(folded: Folded) -> Drawing:
    """Sugiyama's layers, by grandalf."""
    try:
        from grandalf.graphs import Edge, Graph, Vertex
        from grandalf.layouts import SugiyamaLayout
    except ImportError:
        raise error(
            "no-grandalf", "pictures of a graph need grandalf", help="pip install 'netdsl[plot]'"
        ) from None
    vertices = {box.key: Vertex(box) for box in folded.boxes}
    for box in folded.boxes:
        vertices[box.key].view = _View(*size(box))
    edges = [Edge(vertices[a], vertices[b]) for a, b in folded.arrows]
    for edge in edges:
        edge.view = _View(0, 0)
    left, boxes, arrows, tallest = 0.0, [], [], 0.0
    for part in Graph(list(vertices.values()), edges).C:
        layout = SugiyamaLayout(part)
        layout.xspace, layout.yspace = GAP_X, GAP_Y
        layout.route_edge = _keep
        layout.init_all()
        layout.draw(8)
        placed, paths, width, height = _gather(part, left)
        boxes += placed
        arrows += paths
        left += width + 2 * GAP_X
        tallest = max(tallest, height)
    return Drawing(tuple(boxes), tuple(arrows), max(left - 2 * GAP_X, 0.0), tallest)


def _keep(edge: Any, points: Any) -> None:
    """Leaves an arrow's points as they are: the boxes' centres and the bends between."""


def _gather(part: Any, left: float) -> tuple[list[Placed], list[Arrow], float, float]:
    """A connected part's boxes and arrows, moved so that it begins at (left, 0)."""
    views = [(vertex.data, vertex.view) for vertex in part.sV]
    paths = [edge.view.points for edge in part.sE]
    xs = [x for path in paths for x, _ in path[1:-1]]
    low_x = min([v.xy[0] - v.w / 2 for _, v in views] + xs)
    high_x = max([v.xy[0] + v.w / 2 for _, v in views] + xs)
    low_y = min(v.xy[1] - v.h / 2 for _, v in views)
    high_y = max(v.xy[1] + v.h / 2 for _, v in views)
    shift_x, shift_y = left - low_x, -low_y
    boxes = [
        Placed(b, v.xy[0] - v.w / 2 + shift_x, v.xy[1] - v.h / 2 + shift_y, v.w, v.h)
        for b, v in views
    ]
    by_key = {placed.box.key: placed for placed in boxes}
    arrows = []
    for edge in part.sE:
        a, b = by_key[edge.v[0].data.key], by_key[edge.v[1].data.key]
        passes = [(x + shift_x, y + shift_y) for x, y in edge.view.points[1:-1]]
        bends = [point for x, y in passes for point in _through(x, y, boxes)]
        start, end = (a.middle, a.top + a.height), (b.middle, b.top)
        arrows.append(Arrow((start, *bends, end), b.box.head))
    return boxes, arrows, high_x - low_x, high_y - low_y


def _through(x: float, y: float, boxes: list[Placed]) -> tuple[Point, Point]:
    """The way of an arrow past a layer of boxes: straight down, so that it crosses none."""
    heights = [p.height for p in boxes if abs(p.top + p.height / 2 - y) < 1]
    half = max(heights, default=0.0) / 2
    return (x, y - half), (x, y + half)
