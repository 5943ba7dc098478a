"""Pictures of a graph: boxes with shapes and costs, blocks folded, branches side by side."""

from netdsl.draw.picture import FORMATS, draw, save

__all__ = ["FORMATS", "draw", "save"]
