"""Parallel regions: a kernel's call on all threads, or a list of calls one after the other.

Where OpenMP's library is here, its threads are asked directly, by some lines of LLVM's language
(`SOURCE`): Numba, which would take half a second to start, is not wanted, and other Python threads
run meanwhile. Elsewhere `launch` of numba_region.py does it, on the threads that Numba has.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from functools import cache as once
from threading import local

import numpy as np

from netdsl.cpu import memory, native, threads
from netdsl.cpu.layout import Call, Floats, Ints

# A descriptor begins with its worker's address and the parts of its work. A thread of a region
# does every so-manieth part, as many as there are threads: if OpenMP gives fewer than were asked
# for, all parts are done all the same.
SOURCE = """
%work = type { ptr, ptr, ptr }
declare i32 @omp_get_thread_num()
declare i32 @omp_get_num_threads()
declare void @GOMP_parallel(ptr, ptr, i32, i32)

define internal void @parts(ptr %arena, ptr %params, ptr %d, i64 %first, i64 %step) {
start:
  %address = load i64, ptr %d
  %worker = inttoptr i64 %address to ptr
  %at = getelementptr i64, ptr %d, i64 1
  %count = load i64, ptr %at
  br label %test
test:
  %part = phi i64 [ %first, %start ], [ %next, %do ]
  %more = icmp slt i64 %part, %count
  br i1 %more, label %do, label %done
do:
  call void %worker(ptr %arena, ptr %params, ptr %d, i64 %part, i64 %count)
  %next = add i64 %part, %step
  br label %test
done:
  ret void
}

define internal void @thread(ptr %work) {
  %a = load ptr, ptr %work
  %at1 = getelementptr %work, ptr %work, i64 0, i32 1
  %p = load ptr, ptr %at1
  %at2 = getelementptr %work, ptr %work, i64 0, i32 2
  %d = load ptr, ptr %at2
  %number = call i32 @omp_get_thread_num()
  %first = sext i32 %number to i64
  %count = call i32 @omp_get_num_threads()
  %step = sext i32 %count to i64
  call void @parts(ptr %a, ptr %p, ptr %d, i64 %first, i64 %step)
  ret void
}

define void @netdsl_run(ptr %arena, ptr %params, ptr %calls, i64 %count, i32 %threads) {
start:
  %work = alloca %work
  store ptr %arena, ptr %work
  %at1 = getelementptr %work, ptr %work, i64 0, i32 1
  store ptr %params, ptr %at1
  %at2 = getelementptr %work, ptr %work, i64 0, i32 2
  br label %test
test:
  %i = phi i64 [ 0, %start ], [ %next, %on ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %do, label %done
do:
  %place = getelementptr ptr, ptr %calls, i64 %i
  %d = load ptr, ptr %place
  %at = getelementptr i64, ptr %d, i64 1
  %parts = load i64, ptr %at
  %several = icmp sgt i64 %parts, 1
  %free = icmp sgt i32 %threads, 1
  %both = and i1 %several, %free
  br i1 %both, label %together, label %alone
together:
  store ptr %d, ptr %at2
  call void @GOMP_parallel(ptr @thread, ptr %work, i32 %threads, i32 0)
  br label %on
alone:
  call void @parts(ptr %arena, ptr %params, ptr %d, i64 0, i64 1)
  br label %on
on:
  %next = add i64 %i, 1
  br label %test
done:
  ret void
}
"""

NEEDS = ("omp_get_thread_num", "omp_get_num_threads", "GOMP_parallel")
NAME = "region"

Run = Callable[[int, int, int, int, int], None]


class _Asked(local):
    """The threads that this Python thread's regions take; all unless said otherwise."""

    count: int | None = None


_asked = _Asked()
_forked = False


@once
def run() -> Run | None:
    """`run(arena, params, calls, count, threads)`, addresses and numbers; None without OpenMP."""
    library = threads.openmp()
    if library is None:
        return None
    try:
        known = {name: threads.address(library, name) for name in NEEDS}
    except AttributeError:
        return None
    address = native.load(NAME, known)
    if address is None:
        code = native.assembled(SOURCE)
        native.keep(NAME, "netdsl_run", list(NEEDS), code)
        address = native.linked("netdsl_run", code, known)
    os.register_at_fork(after_in_child=_alone)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    return ctypes.CFUNCTYPE(None, pointer, pointer, pointer, number, ctypes.c_int32)(address)


def _alone() -> None:
    """OpenMP's threads do not outlive a fork, so a child does all work on its one thread."""
    global _forked
    _forked = True


def ready() -> bool:
    """Whether regions need no compiling."""
    if run() is not None:
        return True
    from netdsl.cpu import numba_region

    return numba_region.ready()


def prepare() -> None:
    """Makes regions ready."""
    if run() is None:
        from netdsl.cpu import numba_region

        numba_region.prepare()


def use(count: int) -> None:
    """Lets this Python thread's regions take that many threads."""
    _asked.count = count
    if run() is None:
        threads.use_numba(count)


def launch(arena: Floats, params: Floats, d: Ints) -> None:
    """Runs a descriptor's worker on its threads: arena, params float32, d int64, each in one
    stretch; the arena may be one that is only read."""
    native_run = run()
    if native_run is None:
        from netdsl.cpu import numba_region

        numba_region.launch(memory.lent(arena), params, d)
        return
    pointer = ctypes.c_void_p(d.ctypes.data)
    count = 1 if _forked else _asked.count or threads.available()
    native_run(arena.ctypes.data, params.ctypes.data, ctypes.addressof(pointer), 1, count)


class Chain:
    """Calls of `launch`, one after the other, without Python between them."""

    def __init__(self, calls: Sequence[Call], threads: int) -> None:
        self._calls = tuple(calls)
        self._threads = threads
        self._table = np.array([call.d.ctypes.data for call in calls], np.uint64)

    def __call__(self, arena: Floats, params: Floats) -> None:
        """Runs them on these arrays."""
        native_run = run()
        if native_run is None:
            for kernel, d in self._calls:
                kernel(arena, params, d)
            return
        count = 1 if _forked else self._threads
        table = self._table
        native_run(arena.ctypes.data, params.ctypes.data, table.ctypes.data, len(table), count)
