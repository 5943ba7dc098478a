"""Where Numba keeps the parallel functions that it compiles for us: in our folder, as it likes."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numba.core import config
from numba.core.caching import FunctionCache, NullCache

from netdsl.cpu import cache

DAMAGED = (OSError, EOFError, pickle.UnpicklingError, AttributeError, ValueError, KeyError)
"""What reading a file that is unreadable, cut short or another program's can raise."""


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
        with _numba_caches_in(cache.folder()):
            found = KernelCache(function)
    except (OSError, RuntimeError):
        return NullCache()
    # Where ours cannot be written Numba looks for another, where an old version's code may lie.
    return found if Path(found.cache_path).is_relative_to(cache.folder()) else NullCache()


@contextlib.contextmanager
def _numba_caches_in(path: Path) -> Iterator[None]:
    """Numba reads its folder's name when a cache is made; others' functions keep theirs."""
    before = config.CACHE_DIR
    config.CACHE_DIR = str(path)
    try:
        yield
    finally:
        config.CACHE_DIR = before
