"""Factors as the tensor cores take them: rounded, and how many of them share a word."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from netdsl.ops import Shape

Floats = NDArray[np.float32]

PER_WORD = {"tf32": 1, "bf16": 2}


def words_of(channels: int, precision: str) -> int:
    """Words of a position's channels: whole units of 16 bytes."""
    return 4 * -(-channels // (4 * PER_WORD[precision]))


def packed_shape(shape: Shape, precision: str) -> Shape:
    """Of a packed tensor: axes, and words of a position."""
    return (*shape[1:], words_of(shape[0], precision))


def rounded_words(values: Floats, precision: str) -> Floats:
    """Rows of values (rows, n), n even, as the words that stand for them, rounded as the kernels
    do. Row by row, because the largest layers' weights fill a good part of a machine's memory."""
    words = np.empty((len(values), values.shape[1] // PER_WORD[precision]), np.uint32)
    for row, target in zip(np.ascontiguousarray(values, np.float32), words, strict=True):
        target[:] = _tf32(row) if precision == "tf32" else _bf16(row)
    return words.view(np.float32)


def _tf32(row: Floats) -> NDArray[np.uint32]:
    bits = row.view(np.uint32)
    near = (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(row), near, bits)


def _bf16(row: Floats) -> NDArray[np.uint32]:
    bits = row.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    near = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    halves = np.where(np.isnan(row), np.uint32(0x7FFF), near)
    words: NDArray[np.uint32] = halves[::2] | (halves[1::2] << np.uint32(16))
    return words
