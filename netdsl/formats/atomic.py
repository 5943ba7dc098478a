"""Files that are either the old one or the new one, never half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
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
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
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
        beside.unlink(missing_ok=True)
