"""A scene as SVG text."""

from __future__ import annotations

from html import escape

from netdsl.draw.scene import INK, Label, Path, Rect, Scene

FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
ARROW = 6.0


def as_svg(scene: Scene) -> str:
    """The scene as a self-contained SVG document."""
    width, height = f"{scene.width:.0f}", f"{scene.height:.0f}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="{FONT}" role="img">',
        f'<rect width="{width}" height="{height}" fill="#FFFFFF"/>',
    ]
    parts += [_shape(shape) for shape in scene.shapes]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _shape(shape: Rect | Path | Label) -> str:
    if isinstance(shape, Rect):
        return _rect(shape)
    return _path(shape) if isinstance(shape, Path) else _label(shape)


def _rect(r: Rect) -> str:
    stroke = f' stroke="{r.stroke}" stroke-width="1.4"' if r.stroke else ""
    dash = ' stroke-dasharray="5 4"' if r.dashed else ""
    tag = (
        f'<rect x="{r.left:.1f}" y="{r.top:.1f}" width="{r.width:.1f}" height="{r.height:.1f}" '
        f'rx="{r.radius:.1f}" fill="{r.fill}"{stroke}{dash}'
    )
    return f"{tag}><title>{escape(r.tip)}</title></rect>" if r.tip else f"{tag}/>"


def _label(t: Label) -> str:
    anchor = ' text-anchor="middle"' if t.middle else ""
    weight = ' font-weight="600"' if t.bold else ""
    place = f'x="{t.x:.1f}" y="{t.y:.1f}" font-size="{t.size}"'
    return f'<text {place}{anchor}{weight} fill="{t.fill}">{escape(t.text)}</text>'


def _path(p: Path) -> str:
    dash = ' stroke-dasharray="5 4"' if p.dashed else ""
    (x, y) = p.points[-1]
    points = (*p.points[:-1], (x, y - ARROW))
    line = _straight(points) if p.straight else curve(points)
    head = f"M{x - 4:.1f},{y - ARROW:.1f} L{x + 4:.1f},{y - ARROW:.1f} L{x:.1f},{y:.1f} Z"
    stroke = f'fill="none" stroke="{INK}" stroke-width="1.2"{dash}'
    return f'<path d="{line}" {stroke}/><path d="{head}" fill="{INK}"/>'


def curve(points: tuple[tuple[float, float], ...]) -> str:
    """A path that leaves and reaches every point straight down."""
    x, y = points[0]
    parts = [f"M{x:.1f},{y:.1f}"]
    for a, b in points[1:]:
        bend = (b - y) / 2
        parts.append(f"C{x:.1f},{y + bend:.1f} {a:.1f},{b - bend:.1f} {a:.1f},{b:.1f}")
        x, y = a, b
    return " ".join(parts)


def _straight(points: tuple[tuple[float, float], ...]) -> str:
    return "M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in points)
