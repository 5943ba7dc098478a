"""One parallel region for all simple kernels.

A worker is a kernel's share of one thread: `worker(arena, params, d, part, parts)`, on raw
pointers, cutting its own range of the work by `part` of `parts`. Compiled alone it takes a
quarter of the time that a parallel function takes, so `launch` is the only parallel function:
it calls the worker whose address stands in the descriptor, once for each thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numba
from llvmlite import ir
from numba import njit, prange
from numba.core import cgutils, types
from numba.core.ccallback import CFunc
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from netdsl.cpu import cache
from netdsl.cpu.cache import KernelCache, cache_for
from netdsl.cpu.layout import Floats, Ints

FLOATS, INTS = types.CPointer(types.float32), types.CPointer(types.int64)
SIGNATURE = types.void(FLOATS, FLOATS, INTS, types.int64, types.int64)
ARRAYS = types.void(types.float32[::1], types.float32[::1], types.int64[::1])
"""Every kernel that a plan calls: kernel(arena, params, d)."""

WORKER, PARTS, BODY = 0, 1, 2
"""Where a descriptor holds the worker's address and the threads; the rest is the worker's own."""


_watcher: ContextVar[Callable[[str], None]] = ContextVar("watcher", default=lambda name: None)
"""Told the name of each kernel before it is compiled."""


class Worker:
    """A function that each thread of a region runs, compiled when first wanted."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.name = function.__name__
        self.__doc__ = function.__doc__
        args = (SIGNATURE.args, SIGNATURE.return_type)
        options = {"nopython": True, "boundscheck": False, "error_model": "numpy"}
        self._compiled = CFunc(function, args, locals={}, options=options)
        self._compiled._cache = cache_for(function)

    def __call__(self, arena: Floats, params: Floats, d: Ints) -> None:
        """Runs it as the kernel it is, on the threads that d says. A plan goes a shorter way."""
        d[WORKER] = self.address
        launch(arena, params, d)

    @property
    def address(self) -> int:
        """Where its machine code lies; compiles it, or reads it from the cache."""
        if self._compiled.address is None:
            if not self.ready:
                _watcher.get()(self.name)
            self._compiled.compile()
        return int(self._compiled.address)

    @property
    def ready(self) -> bool:
        """Whether it needs no compiling: it is in memory or in the cache."""
        kept = self._compiled._cache
        if self._compiled.address is not None:
            return True
        return isinstance(kept, KernelCache) and kept.holds(
            self._compiled._sig, cpu_target.target_context
        )


def worker(function: Callable[..., None]) -> Worker:
    """Marks a worker; see the module's docstring."""
    return Worker(function)


@intrinsic
def _call(typing: Any, arena: Any, params: Any, d: Any, part: Any, parts: Any) -> Any:
    """Calls the worker of descriptor d."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        pointers = [
            cgutils.create_struct_proxy(given)(context, builder, value=value).data
            for given, value in zip(sig.args[:3], args[:3], strict=True)
        ]
        number = ir.IntType(64)
        kinds = [pointer.type for pointer in pointers]
        function = ir.FunctionType(ir.VoidType(), [*kinds, number, number])
        address = builder.load(builder.gep(pointers[2], [ir.Constant(number, WORKER)]))
        target = builder.inttoptr(address, function.as_pointer())
        builder.call(target, [*pointers, *args[3:]])
        return context.get_dummy_value()

    return types.void(arena, params, d, types.int64, types.int64), lower


@njit(parallel=True, boundscheck=False, error_model="numpy")
def launch(arena, params, d):  # type: ignore[no-untyped-def]
    """Runs a descriptor's worker on its threads: arena, params float32[::1], d int64[::1]."""
    parts = d[PARTS]
    for part in prange(parts):
        _call(arena, params, d, numba.int64(part), parts)


launch._cache = cache_for(launch.py_func)


@njit(forceinline=True)
def share(work, part, parts):  # type: ignore[no-untyped-def]
    """The first of `work` items that belongs to this part; that of part + 1 is its end."""
    return work * part // parts


def ready(kernel: Any) -> bool:
    """Whether a worker, or `launch`, needs no compiling."""
    if isinstance(kernel, Worker):
        return kernel.ready
    kept = kernel._cache
    return bool(kernel.signatures) or (
        isinstance(kept, KernelCache) and kept.holds(ARRAYS.args, cpu_target.target_context)
    )


def prepare(kernel: Any) -> None:
    """Compiles one kernel, or reads it from the cache."""
    if isinstance(kernel, Worker):
        kernel.address  # noqa: B018 - asking for it makes it
    elif not kernel.signatures:
        if not ready(kernel):
            _watcher.get()(kernel.py_func.__name__)
        kernel.compile(ARRAYS.args)


Progress = Callable[[int, int, str], None]
"""Told before each kernel is compiled: how many are done, of how many, and its name."""


@contextmanager
def watched(kernels: Iterable[Any], progress: Progress | None) -> Iterator[list[str]]:
    """Tells `progress` of every kernel that is compiled within the block.

    kernels: those that may be wanted; the ones that are not ready make up the expected number. At
    the end all are done, whether they were wanted or not. Gives the names of those compiled.
    """
    cache.used()
    missing = sum(not ready(kernel) for kernel in dict.fromkeys([launch, *kernels]))
    names: list[str] = []
    if not missing:
        yield names
        return

    def watch(name: str) -> None:
        if progress is not None:
            progress(len(names), max(missing, len(names) + 1), name.strip("_").replace("_", " "))
        names.append(name)

    token = _watcher.set(watch)
    try:
        yield names
    finally:
        _watcher.reset(token)
    if names and progress is not None:
        progress(max(missing, len(names)), max(missing, len(names)), "")


def compile_all(kernels: Iterable[Any], progress: Progress | None) -> int:
    """Compiles the kernels that are not, telling `progress` of each; how many those were."""
    wanted = list(dict.fromkeys([launch, *kernels]))
    with watched(wanted, progress) as names:
        for kernel in wanted:
            prepare(kernel)
    return len(names)
