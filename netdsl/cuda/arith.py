"""Arithmetic of indices in 32 bits. Numba widens int32 to 64 bits unless told otherwise."""

from __future__ import annotations

from numba import cuda, int32, uint32


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
