"""The idx format of MNIST: two zero bytes, the kind of number, the rank, the sizes, the numbers."""

from __future__ import annotations

import gzip
import io
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
LARGEST = 1 << 32
"""Bytes of the largest idx file that is read."""


def read_idx(path: Path) -> NDArray[Any]:
    """The array of an idx file, gzipped or not. Raises NetError: unreadable, not idx, truncated,
    too large."""
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            return _read(file, path)
    except (OSError, EOFError, zlib.error) as problem:
        raise error("unreadable", f"{path} cannot be read: {problem}") from None


def _read(file: io.BufferedIOBase, path: Path) -> NDArray[Any]:
    """No more is unpacked than the sizes say."""
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in KINDS or not 1 <= head[3] <= 8:
        raise error("not-idx", f"{path} is not an idx file")
    kind, rank = np.dtype(KINDS[head[2]]), head[3]
    sizes = file.read(4 * rank)
    if len(sizes) < 4 * rank:
        raise error("truncated", f"{path} breaks off within its sizes")
    shape = struct.unpack(f">{rank}I", sizes)
    needed = prod(shape) * kind.itemsize
    if needed > LARGEST:
        raise error("too-large", f"{path} says that it has {needed:,} bytes")
    data = file.read(needed)
    if len(data) < needed:
        start = 4 + 4 * rank
        said = f"{start + len(data):,} of {start + needed:,} bytes are there"
        raise error("truncated", f"{path} breaks off: {said}")
    values = np.frombuffer(data, kind).reshape(shape)
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
