"""Files in the user's cache folder, which hold what could be made again.

They are written beside and renamed, and begin with a digest of the rest, so processes may share a
folder, and a file that is damaged is as good as none. What cannot be read or written costs time and
nothing else.

A folder is named `WHAT-DIGEST`, the digest being that of the sources that made what lies in it: an
upgrade never meets what another version made. Other versions' folders go once they have not been
used for a month.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from importlib.util import source_hash
from io import FileIO
from pathlib import Path

DIGEST = 8
"""Bytes of what Python itself tells sources apart by (a SipHash). `hashlib` takes longer to import
than all files that a run reads take to be checked, and against damage this is as good."""

DAY = 24 * 3600
OLD = 30 * DAY
"""Seconds without use after which another version's folder goes."""

MOST = 32
"""Versions whose folders are kept at most; several checkouts may take turns."""


def read(path: Path) -> bytes | None:
    """What was kept in a file; None where it is not there or damaged."""
    try:
        whole = path.read_bytes()
    except OSError:
        return None
    content = whole[DIGEST:]
    return content if source_hash(content) == whole[:DIGEST] else None


def write(path: Path, content: bytes) -> None:
    """Keeps content in a file, if the folder can be written."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(source_hash(content) + content)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def digest(sources: Iterable[str], *more: bytes) -> str:
    """What a folder is called by, from the sources of what lies in it."""
    return called(b"".join([*more, *map(_content, sorted(sources))]))


def below(folder: Path, ending: str = ".py") -> list[str]:
    """The files of this ending in a folder and those in it. There are a hundred, every start asks
    for them, and as paths of `pathlib` they would take three times as long."""
    walk = os.walk(folder)
    return [f"{at}/{name}" for at, _, names in walk for name in names if name.endswith(ending)]


def _content(path: str) -> bytes:
    with FileIO(path) as file:
        return file.read()


def called(content: bytes) -> str:
    """A name for what is made of this content."""
    return source_hash(content).hex()


def used(folder: Path) -> None:
    """Marks a folder as used today, and removes those of other versions that long have not been."""
    now = time.time()
    with contextlib.suppress(OSError):
        there = folder.is_dir()
        if there and now - folder.stat().st_mtime < DAY:
            return
        if there:
            os.utime(folder)
        prune(folder, now)


def prune(folder: Path, now: float) -> None:
    """Removes the folders of other versions that are old, or more than there should be."""
    import shutil

    what, _, _ = folder.name.partition("-")
    found = [(p.stat().st_mtime, p) for p in folder.parent.glob(f"{what}-*") if p != folder]
    for i, (last, path) in enumerate(sorted(found, reverse=True)):
        if now - last > OLD or i >= MOST - 1:
            shutil.rmtree(path, ignore_errors=True)
