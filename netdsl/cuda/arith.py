"""Arithmetic of indices in 32 bits. Numba widens int32 to 64 bits unless told otherwise."""

from __future__ import annotations

from numba import cuda, int32, uint32, uint64


@cuda.jit(device=True)
def quotient(a, b):  # type: ignore[no-untyped-def]
    """a // b for a >= 0 and b > 0."""
    return int32(uint32(a) // uint32(b))


@cuda.jit(device=True)
def remainder(a, b):  # type: ignore[no-untyped-def]
    """a % b for a >= 0 and b > 0."""
    return int32(uint32(a) % uint32(b))


@cuda.jit(device=True)
def inside(i, size):  # type: ignore[no-untyped-def]
    """Whether 0 <= i < size."""
    return i >= 0 and i < size


@cuda.jit(device=True)
def place_of(i, depth, height, width):  # type: ignore[no-untyped-def]
    """The channel, depth, row and column of element i of a sample."""
    rows = quotient(i, width)
    planes = quotient(rows, height)
    c = quotient(planes, depth)
    z, y, x = planes - c * depth, rows - planes * height, i - rows * width
    return c, int32(z), int32(y), int32(x)


MOST = 1 << 30
"""What is divided by reciprocals is below."""


def reciprocal(b: int) -> tuple[int, int]:
    """A multiplier and a shift that make of a product the quotient by b, see `divided`."""
    shift = (b - 1).bit_length()
    return -(-(1 << (30 + shift)) // b), shift


@cuda.jit(device=True)
def divided(a, multiplier, shift):  # type: ignore[no-untyped-def]
    """a // b for 0 <= a < MOST and the reciprocal of b: a product in the place of a division, which
    takes some seventeen instructions."""
    product = uint64(uint32(a)) * uint64(uint32(multiplier))
    return int32(uint32(product >> uint64(30)) >> uint32(shift))


@cuda.jit(device=True)
def place_by(i, depth, height, width, widths, depths):  # type: ignore[no-untyped-def]
    """As `place_of`, by reciprocals. widths: a multiplier and a shift for the width, then for the
    height; depths: begins with those for the depth."""
    rows = divided(i, widths[0], widths[1])
    planes = divided(rows, widths[2], widths[3])
    c = divided(planes, depths[0], depths[1])
    z, y, x = planes - c * depth, rows - planes * height, i - rows * width
    return c, int32(z), int32(y), int32(x)
