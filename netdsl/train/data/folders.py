"""Folders of pictures: a folder a class, its name the class's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from netdsl.faults import error
from netdsl.train.data.examples import Data, Examples

ENDINGS = frozenset(["png", "jpg", "jpeg", "bmp", "gif", "webp", "tif", "tiff", "ppm", "pgm"])
TESTING = ("test", "val", "valid", "validation")
THREADS = 4


def read_folder(folder: Path, broken: str = "stop") -> Data:
    """A folder of class folders, or of train/ and test/ (or val/) that hold class folders.

    Every picture is decoded once: one that cannot be is named, and ends it (broken="stop") or is
    left out (broken="skip"). Raises NetError.
    """
    training = folder / "train"
    if not training.is_dir():
        train, notes = _examples(folder, None, broken)
        return Data(train, None, notes)
    train, notes = _examples(training, None, broken)
    testing = next((folder / name for name in TESTING if (folder / name).is_dir()), None)
    if testing is None:
        return Data(train, None, notes)
    test, more = _examples(testing, train.classes, broken)
    return Data(train, test, notes + more)


def _examples(
    folder: Path, classes: tuple[str, ...] | None, broken: str
) -> tuple[Examples, tuple[str, ...]]:
    held = {path.name: _pictures(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    held = {name: files for name, files in held.items() if files}
    if not held:
        raise error(
            "empty-data",
            f"{folder} holds no pictures in class folders",
            help="a folder a class, with its pictures inside",
        )
    names = classes or tuple(held)
    unknown = sorted(set(held) - set(names))
    if unknown:
        raise error("unknown-class", f"{folder} has a class {unknown[0]} that training has not")
    pairs = [(file, names.index(name)) for name, files in held.items() for file in files]
    with ThreadPoolExecutor(THREADS) as pool:
        said = list(pool.map(_fault, [file for file, _ in pairs]))
    bad = [f"{file}: {why}" for (file, _), why in zip(pairs, said, strict=True) if why]
    if bad and broken == "stop":
        more = f" ({len(bad) - 1} more like it)" if len(bad) > 1 else ""
        raise error(
            "broken-picture",
            f"{bad[0]}{more}",
            help="--broken skip goes on without broken pictures",
        )
    good = [pair for pair, why in zip(pairs, said, strict=True) if not why]
    labels = np.array([label for _, label in good], np.int64)
    examples = Examples(str(folder), [file for file, _ in good], labels, names)
    return examples, tuple(f"left out {line}" for line in bad)


def _pictures(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*")) if p.suffix.lower().lstrip(".") in ENDINGS]


def _fault(path: Path) -> str | None:
    """Why a picture cannot be decoded; None where it can."""
    try:
        with Image.open(path) as picture:
            picture.load()
    except Exception as problem:  # Pillow's decoders raise all sorts on broken files
        if "identify" in str(problem):
            return "not a picture that Pillow can read"
        return f"cannot be decoded: {problem}"
    return None
