"""Parallel regions on the threads that Numba has, where OpenMP's own cannot be asked.

`launch` is compiled as a parallel function once, whatever the worker: its address stands in the
descriptor.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import njit, prange
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from netdsl.cpu import threads
from netdsl.cpu.layout import PARTS, WORKER
from netdsl.cpu.numba_cache import KernelCache, cache_for

ARRAYS = types.void(types.float32[::1], types.float32[::1], types.int64[::1])


threads.tell_numba()


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


def ready() -> bool:
    """Whether it needs no compiling."""
    kept = launch._cache
    return bool(launch.signatures) or (
        isinstance(kept, KernelCache) and kept.holds(ARRAYS.args, cpu_target.target_context)
    )


def prepare() -> None:
    """Compiles it, or reads it from the cache."""
    if not launch.signatures:
        launch.compile(ARRAYS.args)
