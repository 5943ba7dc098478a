"""A scene as pixels, by Pillow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netdsl.draw.scene import INK, Label, Path, Rect, Scene
from netdsl.draw.svg import ARROW
from netdsl.draw.text import font

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

SCALE = 2
STEPS = 24
LARGEST = 100_000_000


def as_image(scene: Scene) -> Image:
    """The scene drawn at twice its size; a huge one smaller, so that it fits in memory."""
    from PIL import Image, ImageDraw

    scale = float(SCALE)
    while scene.width * scene.height * scale * scale > LARGEST:
        scale /= 2
    image = Image.new("RGB", (round(scene.width * scale), round(scene.height * scale)), "white")
    pen = ImageDraw.Draw(image)
    for shape in scene.shapes:
        if isinstance(shape, Rect):
            _rect(pen, shape, scale)
        elif isinstance(shape, Path):
            _path(pen, shape, scale)
        else:
            _label(pen, shape, scale)
    return image


def _rect(pen: ImageDraw, r: Rect, scale: float) -> None:
    right, bottom = r.left + r.width, r.top + r.height
    place = (r.left * scale, r.top * scale, right * scale, bottom * scale)
    width = max(round(1.4 * scale), 1) if r.stroke else 0
    outline = r.stroke or None
    pen.rounded_rectangle(place, r.radius * scale, fill=r.fill, outline=outline, width=width)


def _label(pen: ImageDraw, t: Label, scale: float) -> None:
    stroke = 0.45 * scale if t.bold else 0
    anchor = "ms" if t.middle else "ls"
    place = (t.x * scale, t.y * scale)
    face = font(max(round(t.size * scale), 1))
    pen.text(place, t.text, fill=t.fill, font=face, anchor=anchor, stroke_width=stroke)


def _path(pen: ImageDraw, p: Path, scale: float) -> None:
    x, y = p.points[-1]
    way = (*p.points[:-1], (x, y - ARROW))
    points = [(a * scale, b * scale) for a, b in (way if p.straight else _bend(way))]
    width = max(round(1.2 * scale), 1)
    if p.dashed:
        for at in range(0, len(points) - 1, 2):
            pen.line(points[at : at + 2], INK, width)
    else:
        pen.line(points, INK, width, joint="curve")
    head = ((x - 4, y - ARROW), (x + 4, y - ARROW), (x, y))
    pen.polygon([(a * scale, b * scale) for a, b in head], fill=INK)


def _bend(points: tuple[tuple[float, float], ...]) -> list[tuple[float, float]]:
    """Points along the curve that the SVG has."""
    x, y = points[0]
    found = [(x, y)]
    for a, b in points[1:]:
        bend = (b - y) / 2
        for step in range(1, STEPS + 1):
            t = step / STEPS
            s = 1 - t
            u, v = 3 * s * s * t, 3 * s * t * t
            end = t**3
            found.append(
                (
                    s**3 * x + u * x + v * a + end * a,
                    s**3 * y + u * (y + bend) + v * (b - bend) + end * b,
                )
            )
        x, y = a, b
    return found
