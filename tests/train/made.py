"""Small data for tests: a bright spot in one of three corners is the class."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

from netdsl.train import Examples

NET = "input 1x8x8; conv3p1(4) -> bn -> relu -> maxpool2 -> fc(16) -> relu -> dropout(0.2) -> fc(3)"
CORNERS = ((0, 0), (0, 5), (5, 0))


def spots(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, 1, 8, 8) uint8 and their classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CORNERS)
    pictures = rng.integers(0, 60, (count, 1, 8, 8)).astype(np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        y, x = CORNERS[label]
        picture[0, y : y + 3, x : x + 3] += 150
    return pictures, labels


def examples(count: int = 60, seed: int = 0) -> Examples:
    """Spots as examples."""
    pictures, labels = spots(count, seed)
    return Examples("spots", pictures, labels, ("left", "right", "low"))


def write_idx(path: Path, values: np.ndarray) -> None:
    """An idx file, gzipped where its name says so."""
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    data = header + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
