"""From what a person gave to data: a set's name, a folder, a .npz file."""

from __future__ import annotations

from pathlib import Path

from netdsl.faults import error
from netdsl.resources import exists
from netdsl.train.data.arrays import read_npz
from netdsl.train.data.cifar import is_cifar, is_pickled_cifar, read_cifar
from netdsl.train.data.examples import Data
from netdsl.train.data.folders import read_folder
from netdsl.train.data.idx import idx_files, read_idx_folder
from netdsl.train.data.named import SETS, read_named


def open_data(given: str | Path, broken: str = "stop") -> Data:
    """The data that a name or a path stands for.

    broken: "stop" or "skip", what to do about pictures that cannot be decoded. Raises NetError.
    """
    path = Path(given)
    there = exists(path)
    if str(given) in SETS and not there:
        return read_named(str(given))
    if there and path.is_file():
        return read_npz(path)
    if not (there and path.is_dir()):
        raise error(
            "no-such-data",
            f"there is no data {str(given)!r}",
            help=f"a folder, a .npz file, or one of {', '.join(SETS)}",
        )
    if idx_files(path):
        return read_idx_folder(path)
    if is_cifar(path):
        return read_cifar(path)
    if is_pickled_cifar(path):
        raise error(
            "pickled-data",
            f"{path} holds CIFAR as Python pickles, which can run any program and are not read",
            help="the set's binary version holds the same pictures",
        )
    return read_folder(path, broken)
