"""Files that are either the old one or the new one, never half of one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from netdsl.faults import error


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` when the block ends, and not before.

    It lies beside `path` until then; it may be read and sought in. If the block raises, it is
    removed and `path` is as it was. Raises NetError where it cannot be written (no such folder,
    no space).
    """
    beside = _beside(path)
    try:
        with beside.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as problem:
        if problem.filename is None or Path(problem.filename) in (path, beside):
            said = problem.strerror or str(problem)
            raise error("cannot-write", f"{path} cannot be written: {said}") from None
        raise
    finally:
        _remove(beside)


def check_place(path: Path) -> None:
    """That a file can be written there, before the work begins whose results it is to hold. Raises
    NetError."""
    beside = _beside(path)
    try:
        if path.is_dir():
            raise error("cannot-write", f"{path} cannot be written: it is a folder")
        if not path.parent.is_dir():
            said = f"{path} cannot be written: there is no folder {path.parent}"
            raise error("cannot-write", said)
        beside.touch()
    except OSError as problem:
        raise error("cannot-write", f"{path} cannot be written: {problem.strerror}") from None
    finally:
        _remove(beside)


def called(name: str, ending: str) -> Path:
    """A file in this folder that is called as a net is, whose name may be any text: `_` stands for
    what could lead elsewhere."""
    return Path(re.sub(r"^[.-]+|[^\w.-]", "_", name) + ending)


def _beside(path: Path) -> Path:
    return path.parent / f".{path.name}.{os.getpid()}.part"


def _remove(beside: Path) -> None:
    """Takes away what was not finished, where it could be begun at all."""
    with suppress(OSError):
        beside.unlink()
