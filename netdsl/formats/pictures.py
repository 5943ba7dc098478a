"""Pictures become input tensors, as the net's `input` settings say.

The steps: decode, turn upright (EXIF), bring to RGB or grey, scale the shorter side, cut the
centre, then (pixel / scale - mean) / std. Scaling is Pillow's bilinear filter on 8-bit pixels,
which averages over all that a shrunk one covers.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from netdsl.faults import NetError, error
from netdsl.ops import Input, show

CHANNELS = {1: "L", 3: "RGB"}
"""Pillow's mode for each number of channels that a picture can fill."""

PAPER = (255, 255, 255, 255)
"""What shows through where a picture is transparent: white, as in most viewers."""

Size = tuple[int, int]

LARGEST_SCALED = 1 << 24
"""Pixels of a scaled picture up to which it is made as a whole. A strip of 1 x 100,000 would be
larger: of it only the part that is cut out is computed, which rounds a pixel in a hundred apart."""


def check_fits(name: str, op: Input) -> None:
    """That pictures can fill this input at all. Raises NetError `not-a-picture-net`."""
    if len(op.shape) == 3 and op.shape[0] in CHANNELS:
        return
    channels = len(op.shape) == 3
    why = f"{op.shape[0]} channels, a picture 1 or 3" if channels else "another number of axes"
    raise error(
        "wrong-input",
        f"{name} is a picture, and the net's input is {show(op.shape)}: {why}",
        help=f"give an array (.npy) of shape Nx{show(op.shape)}",
    )


def read_picture(
    source: Path | IO[bytes], op: Input, name: str | None = None
) -> NDArray[np.float32]:
    """A picture file as the tensor (C, H, W) that this input takes.

    `name` is what errors call it, the path unless given. Raises NetError: unreadable, not a
    picture, broken off, more pixels than Pillow allows, or an input that no picture fits.
    """
    name = name or str(source)
    check_fits(name, op)
    return tensor(decode(source, name, CHANNELS[op.shape[0]]), op)


def tensor(picture: Image.Image, op: Input) -> NDArray[np.float32]:
    """A decoded picture, RGB for 3 channels or L for 1, as the tensor (C, H, W) of this input."""
    channels, height, width = op.shape
    how = op.picture
    scaled = scaled_size(picture.size, (width, height), how.resize)
    small = centre(picture, scaled, (width, height))
    pixels = np.asarray(small, np.float32).reshape(height, width, channels)
    if how.order == "bgr":
        pixels = pixels[..., ::-1]
    mean = np.asarray(how.mean, np.float32)
    std = np.asarray(how.std, np.float32)
    values = (pixels / np.float32(how.scale) - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1), np.float32)


def scaled_size(size: Size, into: Size, resize: int | None) -> Size:
    """The size of a picture whose shorter side is brought to `resize` pixels; None brings it to
    where it just covers the input. All sizes are (width, height).

    Raises NetError when the input is larger than that.
    """
    width, height = size
    if resize is None:
        resize = _covering(size, into)
    if width < height:
        scaled = (resize, max(resize, round(height * resize / width)))
    else:
        scaled = (max(resize, round(width * resize / height)), resize)
    if scaled[0] < into[0] or scaled[1] < into[1]:
        raise error(
            "wrong-input",
            f"resize={resize} makes the picture {scaled[0]}x{scaled[1]} wide and high, "
            f"less than the input's {into[0]}x{into[1]}",
            help="say resize=N with a larger N in the net's input, or leave it out",
        )
    return scaled


def centre(picture: Image.Image, scaled: Size, into: Size) -> Image.Image:
    """The centre of the picture, cut out of what it is when scaled."""
    bilinear = Image.Resampling.BILINEAR
    left, top = (round((have - want) / 2) for have, want in zip(scaled, into, strict=True))
    right, bottom = left + into[0], top + into[1]
    if scaled[0] * scaled[1] <= LARGEST_SCALED:
        return picture.resize(scaled, bilinear).crop((left, top, right, bottom))
    across, down = picture.width / scaled[0], picture.height / scaled[1]
    box = (
        left * across,
        top * down,
        min(picture.width, right * across),
        min(picture.height, bottom * down),
    )
    return picture.resize(into, bilinear, box=box)


def _covering(size: Size, into: Size) -> int:
    """The least length of the shorter side at which the picture covers the input."""
    short = min(size)
    needed = (-(-wanted * short // have) for wanted, have in zip(into, size, strict=True))
    return max(needed)


def decode(source: Path | IO[bytes], name: str, mode: str) -> Image.Image:
    """The picture, upright, in this mode. Raises NetError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source) as opened:
                return _in_mode(ImageOps.exif_transpose(opened), name, mode)
    except UnidentifiedImageError:
        raise error("not-a-picture", f"{name} is not a picture that Pillow can read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = f"{Image.MAX_IMAGE_PIXELS:,}"
        raise error("too-large", f"{name} has more than {limit} pixels") from None
    except FileNotFoundError:
        raise error("no-such-file", f"there is no file {name}") from None
    except NetError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, ArithmeticError) as problem:
        # Pillow's decoders raise all of these on broken files.
        said = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
        raise error("unreadable", f"{name} cannot be read: {said}") from None


def _in_mode(picture: Image.Image, name: str, mode: str) -> Image.Image:
    if picture.mode.startswith("I"):
        picture = _eight_bits(picture, name)
    if picture.mode == "F":
        raise error(
            "not-a-picture",
            f"{name} holds floating-point pixels, whose range is not known",
            help="save it with 8 bits a channel, or give an array (.npy)",
        )
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", over.size, PAPER), over)
    return picture.convert(mode)


def _eight_bits(picture: Image.Image, name: str) -> Image.Image:
    """A 16-bit grey picture with 8."""
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise error("not-a-picture", f"{name} has pixels of more than 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
