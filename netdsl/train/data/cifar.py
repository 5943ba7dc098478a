"""CIFAR's binary files: a label byte (CIFAR-100: two, coarse then fine), then 3x32x32 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from netdsl.faults import error
from netdsl.train.data.examples import Data, Examples

PIXELS = 3 * 32 * 32
CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def is_cifar(folder: Path) -> bool:
    """Whether a folder holds CIFAR's binary files."""
    return (folder / "data_batch_1.bin").is_file() or (folder / "train.bin").is_file()


def is_pickled_cifar(folder: Path) -> bool:
    """Whether a folder holds CIFAR's pickles, which are programs and are not read."""
    return (folder / "data_batch_1").is_file()


def read_cifar(folder: Path) -> Data:
    """CIFAR-10's data_batch_*.bin and test_batch.bin, or CIFAR-100's train.bin and test.bin."""
    ten = (folder / "data_batch_1.bin").is_file()
    training = sorted(folder.glob("data_batch_*.bin")) if ten else [folder / "train.bin"]
    testing = folder / ("test_batch.bin" if ten else "test.bin")
    train = _examples(f"{folder} (train)", training, 1 if ten else 2)
    return Data(
        train,
        _examples(f"{folder} (test)", [testing], 1 if ten else 2) if testing.is_file() else None,
    )


def _examples(name: str, files: list[Path], labels: int) -> Examples:
    rows = []
    for path in files:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        if not len(data) or len(data) % (labels + PIXELS):
            raise error(
                "truncated",
                f"{path} has {len(data):,} bytes, not a multiple of {labels + PIXELS:,}",
            )
        rows.append(data.reshape(-1, labels + PIXELS))
    table = np.concatenate(rows)
    pictures = table[:, labels:].reshape(-1, 3, 32, 32)
    classes = CIFAR10 if labels == 1 else None
    return Examples(name, pictures, table[:, labels - 1].astype(np.int64), classes)
