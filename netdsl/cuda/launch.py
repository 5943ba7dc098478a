"""Memory on the device, streams, and launches."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import numpy as np
from numba import cuda, float32, int32, void

from netdsl.cuda import cache
from netdsl.cuda.layout import Call, Floats
from netdsl.cuda.sizes import SIMULATED
from netdsl.cuda.task import Ints

SIGNATURE = void(float32[::1], float32[::1], int32[::1], int32)
"""Every kernel: kernel(arena, params, ints, at). at: where in ints its descriptor begins."""

SIMULATED_PROCESSORS = 3

H200 = 0.14
"""The `bandwidth` of an H200: 18 bytes for the 128 multiply-adds of a multiprocessor."""

HALVED = ((7, 5), (8, 0))
"""Whose multiprocessors make 64 multiply-adds in a tick, and others 128."""


def processors() -> int:
    """The card's multiprocessors."""
    if SIMULATED:
        return SIMULATED_PROCESSORS
    attach()
    return int(cuda.get_current_device().MULTIPROCESSOR_COUNT)


def bandwidth() -> float:
    """Bytes that the card's memory passes while the card makes a multiply-add in float32, both at
    most; next to none where the driver does not tell."""
    if SIMULATED:
        return H200
    attach()
    card = cuda.get_current_device()
    memory = 2 * card.MEMORY_CLOCK_RATE * card.GLOBAL_MEMORY_BUS_WIDTH / 8
    each = 64 if card.compute_capability in HALVED else 128
    found = memory / (each * card.MULTIPROCESSOR_COUNT * card.CLOCK_RATE)
    return max(float(found), 1e-3)


def free_bytes() -> int | None:
    """Bytes that the card has left; None where it does not say."""
    if SIMULATED:
        return None
    context = cuda.current_context()
    # Numba gives back what nobody holds any more only now and then, and up to a fifth of the card.
    pending = getattr(context.memory_manager, "deallocations", None)
    if pending is not None:
        pending.clear()
    return int(context.get_memory_info().free)


def prepare(kernels: Iterable[Any]) -> int:
    """Compiles kernels for the card, or takes what was compiled before; how many it compiled. The
    simulator compiles nothing."""
    if SIMULATED:
        return 0
    count = 0
    for kernel in kernels:
        kept = cache.keep(kernel)
        before = kept.compiled
        kernel.compile(SIGNATURE)
        count += kept.compiled - before
    return count


def on_device(values: Floats | Ints) -> Any:
    """A copy in the device's memory, of one element at least."""
    return cuda.to_device(values if values.size else np.zeros(1, values.dtype))


def room(floats: int) -> Any:
    """Memory of the device in which nothing is written yet."""
    return cuda.device_array(max(floats, 1), np.float32)


def staging(floats: int) -> Floats:
    """Memory on this side that the card reads and writes by itself, without the processor; where
    the system has none to pin down, ordinary memory, from which copies are only slower."""
    try:
        pinned: Floats = cuda.pinned_array(max(floats, 1), np.float32)[:floats]
        return pinned
    except Exception as problem:
        if "cuda" not in type(problem).__module__:
            raise
        return np.empty(floats, np.float32)


def attach() -> None:
    """Makes the card this thread's own. Streams and events are of no use to a thread without."""
    if not SIMULATED:
        _here[:] = [cuda.current_context()]


_here: list[Any] = []
"""The card's context, once there is one; a card that is lost would not even tell which."""

_for_good = ExitStack()


def abandon() -> None:
    """Keeps Numba from giving memory back to a card that answers nothing but errors: each would be
    printed at exit."""
    for context in _here:
        _for_good.enter_context(context.defer_cleanup())


def stream() -> Any:
    """An order of work on the device; what is put into it runs in turn."""
    return cuda.stream()


def event(*, timed: bool = False) -> Any:
    """A mark in a stream, for others to wait for."""
    return cuda.event(timing=timed) if not SIMULATED else cuda.event()


def configured(call: Call, stream: Any) -> Any:
    """A launch that only lacks its arguments: making it costs as much as launching it."""
    if SIMULATED:
        # There a kernel is configured in place, and the next call's configuration replaces it.
        return lambda *arguments: call.kernel[call.grid, call.block, stream](*arguments)
    with warnings.catch_warnings():
        # Numba warns of grids that leave a part of the card idle. Small layers are no mistake.
        warnings.simplefilter("ignore")
        return call.kernel[call.grid, call.block, stream]


def launch(call: Call, arena: Any, params: Any, ints: Any, stream: Any = 0) -> None:
    """Starts a kernel; it runs after those that the stream was given before."""
    configured(call, stream)(arena, params, ints, np.int32(call.at))


def wait() -> None:
    """Until all that was started has ended."""
    cuda.synchronize()
