"""From a net to a picture file."""

from __future__ import annotations

from pathlib import Path

from netdsl.cost import Cost
from netdsl.cost.sheet import number, shape
from netdsl.draw.fold import fold, trivial
from netdsl.draw.layout import Drawing, lay_out
from netdsl.draw.scene import Scene, scene
from netdsl.draw.svg import as_svg
from netdsl.faults import error

FORMATS = (".svg", ".png", ".html")
MOST_PANELS = 6
MOST_BOXES = 2000


def draw(cost: Cost, opened: frozenset[str] | None = frozenset()) -> Scene:
    """The picture: the net with its blocks folded, and beside it each kind of block from within.

    opened: calls of blocks to show from within in their place; None for all. Raises NetError: a
    name that is no block, a picture of too many boxes.
    """
    graph = cost.graph
    everything = opened is None
    chosen = frozenset(graph.blocks) if opened is None else _with_parents(cost, opened)
    main = fold(cost, chosen)
    if len(main.boxes) > MOST_BOXES:
        raise error("too-large", f"{len(main.boxes)} boxes are too many for a picture")
    panels: list[tuple[str, Drawing]] = [("", lay_out(main))]
    kinds: dict[str, str] = {}
    small = trivial(graph)
    for box in main.boxes:
        if box.block and not everything and box.block not in small:
            kinds.setdefault(graph.blocks.get(box.block, box.block), box.block)
    for block in list(kinds.values())[:MOST_PANELS]:
        panels.append((f"inside {block}", lay_out(fold(cost, within=block))))
    inputs = " and ".join(map(shape, cost.inputs.values()))
    subtitle = (
        f"input {inputs}; {number(cost.params)} parameters, {number(cost.macs)} multiply-adds"
    )
    return scene(cost.net, subtitle, panels)


def _with_parents(cost: Cost, opened: frozenset[str]) -> frozenset[str]:
    """The names and the blocks around them. Raises NetError for a name that is no block."""
    from netdsl.ops.base import nearest

    for name in opened:
        if name not in cost.graph.blocks:
            guess = nearest(name, cost.graph.blocks)
            hint = f"did you mean `{guess}`?" if guess else None
            raise error("no-such-block", f"{cost.net} has no block `{name}`", help=hint)
    parts = (name.split(".") for name in opened)
    return frozenset(".".join(p[: i + 1]) for p in parts for i in range(len(p)))


def save(cost: Cost, path: str | Path, opened: frozenset[str] | None = frozenset()) -> None:
    """Draws a net into a .svg, .png or .html file. Raises NetError."""
    file = Path(path)
    kind = file.suffix.lower()
    if kind not in FORMATS:
        raise error("bad-picture", f"{file} must end in one of {', '.join(FORMATS)}")
    made = draw(cost, opened)
    try:
        if kind == ".png":
            from netdsl.draw.png import as_image

            as_image(made).save(file)
        elif kind == ".svg":
            file.write_text(as_svg(made), encoding="utf-8")
        else:
            from netdsl.draw.page import as_page

            file.write_text(as_page(cost.net, as_svg(made)), encoding="utf-8")
    except OSError as problem:
        raise error("unwritable", f"{file} cannot be written: {problem.strerror}") from None
