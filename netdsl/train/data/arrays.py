"""Arrays in .npz files: inputs and labels, with or without a test part."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error
from netdsl.formats.arrays import DAMAGE, in_a_line
from netdsl.train.data.examples import Data, Examples

INPUTS = ("inputs", "images", "x", "data")
TARGETS = ("labels", "targets", "y")


def read_npz(path: Path) -> Data:
    """A .npz file with arrays such as `inputs` and `labels`, or `x_train`, `y_train`, `x_test`, ….

    uint8 inputs are pictures, floats are taken as they are; whole numbers as targets are classes.
    Raises NetError: another file, unreadable, no such arrays.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise error(
                "not-data",
                f"{path} is no .npz file, or is broken off",
                help="np.savez writes arrays `inputs` and `labels` to one",
            )
        with np.load(path, allow_pickle=False) as file:
            arrays = {name.lower(): np.asarray(file[name]) for name in file.files}
    except DAMAGE as problem:
        raise error("unreadable", f"{path} cannot be read: {in_a_line(problem)}") from None
    for ending in ("", "_train"):
        train = _examples(f"{path}", arrays, ending)
        if train is not None:
            return Data(train, _examples(f"{path} (test)", arrays, "_test"))
    raise error(
        "no-data",
        f"{path} holds {', '.join(arrays) or 'nothing'}: no inputs with their labels",
        help="arrays `inputs` and `labels`, or `x_train` and `y_train` (and `x_test`, `y_test`)",
    )


def _examples(name: str, arrays: dict[str, NDArray[Any]], ending: str) -> Examples | None:
    inputs = next((arrays[n + ending] for n in INPUTS if n + ending in arrays), None)
    targets = next((arrays[n + ending] for n in TARGETS if n + ending in arrays), None)
    if inputs is None or targets is None:
        return None
    for what, values in (("inputs", inputs), ("targets", targets)):
        if values.dtype.kind not in "biuf" or values.ndim == 0:
            raise error("not-numbers", f"{name}: the {what} are {values.dtype}, not numbers")
    if inputs.dtype != np.uint8:
        with np.errstate(over="ignore"):  # beyond float32 is infinite
            inputs = inputs.astype(np.float32)
    if targets.dtype.kind in "biu":
        targets = targets.astype(np.int64)
    return Examples(name, inputs, targets)
