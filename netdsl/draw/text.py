"""How wide text is drawn: Pillow's own font, which every backend is measured by."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

TITLE, BODY = 14, 12
"""Sizes in pixels of a box's title and of the lines below."""

ROOM = 1.12
"""A browser's sans-serif may be wider than Pillow's."""


@cache
def font(size: int) -> FreeTypeFont | ImageFont:
    """The font that ships with Pillow."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def width_of(text: str, size: int) -> float:
    """The pixels that a line of text takes, with some to spare."""
    return float(font(size).getlength(text)) * ROOM
