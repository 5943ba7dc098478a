"""The idx format of MNIST: two zero bytes, the kind of number, the rank, the sizes, the numbers."""

from __future__ import annotations

import gzip
import struct
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error
from netdsl.train.data.examples import Data, Examples

KINDS = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
PARTS = {"train": "train", "t10k": "test", "test": "test"}
LARGEST = 1 << 34
"""Bytes of the largest idx file that is read."""


def read_idx(path: Path) -> NDArray[Any]:
    """The array of an idx file, gzipped or not. Raises NetError: unreadable, not idx, truncated."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as problem:
        raise error("unreadable", f"{path} cannot be read: {problem}") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in KINDS or not 1 <= data[3] <= 8:
        raise error("not-idx", f"{path} is not an idx file")
    rank = data[3]
    start = 4 + 4 * rank
    kind = np.dtype(KINDS[data[2]])
    shape = struct.unpack(f">{rank}I", data[4:start]) if len(data) >= start else (LARGEST,)
    needed = start + prod(shape) * kind.itemsize
    if len(data) < needed:
        raise error("truncated", f"{path} breaks off: {len(data):,} of {needed:,} bytes are there")
    values = np.frombuffer(data, kind, prod(shape), start).reshape(shape)
    return np.ascontiguousarray(values, kind.newbyteorder("="))


def idx_files(folder: Path) -> dict[tuple[str, str], Path]:
    """The idx files of a folder, by ("train" or "test", "images" or "labels")."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.iterdir()):
        name = path.name.lower()
        if "idx" not in name or not path.is_file():
            continue
        part = next((p for start, p in PARTS.items() if name.startswith(start)), None)
        what = next((w for w in ("images", "labels") if w in name), None)
        if part and what:
            found.setdefault((part, what), path)
    return found


def read_idx_folder(folder: Path, classes: tuple[str, ...] | None = None) -> Data:
    """A folder such as MNIST's: train-images-idx3-ubyte and its three companions."""
    files = idx_files(folder)

    def part(name: str) -> Examples | None:
        if not {(name, "images"), (name, "labels")} <= files.keys():
            return None
        images, labels = read_idx(files[name, "images"]), read_idx(files[name, "labels"])
        if images.ndim == 3:
            images = images[:, None]
        return Examples(f"{folder} ({name})", images, labels.astype(np.int64), classes)

    train = part("train")
    if train is None:
        raise error(
            "no-data",
            f"{folder} has no training images and labels in idx format",
            help="train-images-idx3-ubyte and train-labels-idx1-ubyte, gzipped or not",
        )
    return Data(train, part("test"))
