"""Sets by name, fetched once into the user's cache and checked: mnist, fashion_mnist.

A set that is there already is taken from where it lies: the folder that NETDSL_DATA names (a
folder NAME inside it), the user's cache, or where Debian's packages put it.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from netdsl import resources
from netdsl.faults import error
from netdsl.formats.fetch import fetch
from netdsl.resources import user_folder
from netdsl.train.data.examples import Data
from netdsl.train.data.idx import idx_files, read_idx_folder

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class NamedSet:
    """Where a set comes from: a base address, the checksum of each gzipped file in FILES' order,
    and, where known, that of each unpacked one."""

    base: str
    packed: tuple[str, ...]
    labels: str
    unpacked: tuple[str, ...] = ()
    debian: str | None = None


SETS = {
    "mnist": NamedSet(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        (
            "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "md5:d53e105ee54ea40749a09fcbcd1e9432",
            "md5:9fb629c4189551a2d022fa330f9573f3",
            "md5:ec29112dd5afa0611ce80d1b7f02629c",
        ),
        "mnist",
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion_mnist": NamedSet(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        (
            "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "md5:25c81989df183df01b3e8a0aad5dffbe",
            "md5:bef4ecab320f06d8554ea6380940ec79",
            "md5:bb300cfdad3c16e7a12a480ee83cd310",
        ),
        "fashion_mnist",
        debian="/usr/share/datasets/fashion-mnist",
    ),
}


def read_named(name: str) -> Data:
    """A set by its name, fetched where it is not on this machine yet. Raises NetError."""
    found = SETS[name]
    folder = next((f for f in _folders(name, found) if _whole(f)), None) or _fetch(name, found)
    _check(folder, found)
    return read_idx_folder(folder, resources.read_labels(resources.label_lists()[found.labels]))


def _cache(name: str) -> Path:
    return user_folder() / "netdsl" / "data" / name


def _folders(name: str, found: NamedSet) -> list[Path]:
    given = os.environ.get("NETDSL_DATA")
    folders = [Path(given) / name] if given else []
    return [*folders, _cache(name), *([Path(found.debian)] if found.debian else [])]


def _whole(folder: Path) -> bool:
    return folder.is_dir() and len(idx_files(folder)) == len(FILES)


def _fetch(name: str, found: NamedSet) -> Path:
    folder = _cache(name)
    for file, checksum in zip(FILES, found.packed, strict=True):
        fetch(f"{found.base}{file}.gz", folder / f"{file}.gz", checksum)
    return folder


def _check(folder: Path, found: NamedSet) -> None:
    """That unpacked files are the ones we know. Raises NetError `wrong-checksum`."""
    for file, checksum in zip(FILES, found.unpacked, strict=False):
        path = folder / file
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
            raise error("wrong-checksum", f"{path} is not the file it should be")
