"""Where compiled kernels are kept, so that only a first run pays for compiling them.

They lie in the user's cache folder, `netdsl/kernels-DIGEST`, the digest being that of the kernels'
sources and of the versions of Numba and LLVM: an upgrade never meets what another version compiled.
NUMBA_CACHE_DIR, if set, is used instead of the user's folder. Files are written aside and renamed,
so processes may share the folder; one that cannot be read or written costs time and nothing else.
What other versions compiled goes once it has not been used for a month.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from netdsl.resources import user_folder


@cache
def folder() -> Path:
    """Where this version's compiled kernels lie. It may not exist, nor be writable."""
    digest = hashlib.sha256(version("numba") + version("llvmlite"))
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    given = os.environ.get("NUMBA_CACHE_DIR")
    base = Path(given) if given else user_folder() / "netdsl"
    return base / f"kernels-{digest.hexdigest()[:12]}"


def version(package: str) -> bytes:
    """What says which version of a package is here: its file of that, for importing Numba would
    take longer than all the rest of a start."""
    spec = find_spec(package)
    if spec is not None and spec.origin is not None:
        with contextlib.suppress(OSError):
            return Path(spec.origin).with_name("_version.py").read_bytes()
    return str(import_module(package).__version__).encode()


def write(path: Path, content: bytes) -> None:
    """Writes a file beside and renames it; does nothing where the folder cannot be written."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(content)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


DAY = 24 * 3600
OLD = 30 * DAY
"""Seconds without use after which another version's kernels go."""

MOST = 32
"""Versions whose kernels are kept at most; several checkouts may take turns."""


def size() -> int:
    """Bytes that this version's kernels take."""
    with contextlib.suppress(OSError):
        return sum(path.stat().st_size for path in folder().rglob("*") if path.is_file())
    return 0


def used() -> None:
    """Marks this version's folder as used today, and removes those that long have not been."""
    now = time.time()
    with contextlib.suppress(OSError):
        there = folder().is_dir()
        if there and now - folder().stat().st_mtime < DAY:
            return
        if there:
            os.utime(folder())
        prune(now)


def prune(now: float) -> None:
    """Removes the folders of other versions that are old, or more than there should be."""
    found = [(p.stat().st_mtime, p) for p in folder().parent.glob("kernels-*") if p != folder()]
    for i, (last, path) in enumerate(sorted(found, reverse=True)):
        if now - last > OLD or i >= MOST - 1:
            shutil.rmtree(path, ignore_errors=True)
