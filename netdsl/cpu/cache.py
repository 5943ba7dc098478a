"""Where compiled kernels are kept, so that only a first run pays for compiling them.

They lie in the user's cache folder, `netdsl/kernels-DIGEST`, the digest being that of the kernels'
sources: an upgrade never meets what another version compiled. NUMBA_CACHE_DIR, if set, is used
instead of the user's folder. Files are written aside and renamed, so processes may share the
folder; one that cannot be read or written costs time and nothing else. What other versions compiled
goes once it has not been used for a month.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import config
from numba.core.caching import FunctionCache, NullCache

from netdsl.resources import user_folder

DAMAGED = (OSError, EOFError, pickle.UnpicklingError, AttributeError, ValueError, KeyError)
"""What reading a file that is unreadable, cut short or another program's can raise."""


@cache
def folder() -> Path:
    """Where this version's compiled kernels lie. It may not exist, nor be writable."""
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    given = os.environ.get("NUMBA_CACHE_DIR")
    base = Path(given) if given else user_folder() / "netdsl"
    return base / f"kernels-{digest.hexdigest()[:12]}"


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


class KernelCache(FunctionCache):
    """Numba's cache of one function, to which a failing disk is an empty one."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except DAMAGED:
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(*DAMAGED):
            super().save_overload(sig, data)

    def holds(self, sig: Any, target_context: Any) -> bool:
        """Whether the function is kept for this CPU and signature."""
        target_context.refresh()
        try:
            kept = self._cache_file._load_index()
            return self._index_key(sig, target_context.codegen()) in kept
        except DAMAGED:
            return False


def cache_for(function: Callable[..., Any]) -> KernelCache | NullCache:
    """The cache of one function in our folder, or none where no folder can be written."""
    try:
        with _numba_caches_in(folder()):
            found = KernelCache(function)
    except (OSError, RuntimeError):
        return NullCache()
    # Where ours cannot be written Numba looks for another, where an old version's code may lie.
    return found if Path(found.cache_path).is_relative_to(folder()) else NullCache()


@contextlib.contextmanager
def _numba_caches_in(path: Path) -> Iterator[None]:
    """Numba reads its folder's name when a cache is made; others' functions keep theirs."""
    before = config.CACHE_DIR
    config.CACHE_DIR = str(path)
    try:
        yield
    finally:
        config.CACHE_DIR = before
