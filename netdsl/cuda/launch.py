"""Memory on the device, and launches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numba import cuda, float32, int32, void

from netdsl.cuda.layout import Call, Floats
from netdsl.cuda.sizes import SIMULATED
from netdsl.cuda.task import Ints

SIGNATURE = void(float32[::1], float32[::1], int32[::1], int32)
"""Every kernel: kernel(arena, params, ints, at). at: where in ints its descriptor begins."""

SIMULATED_PROCESSORS = 3


def processors() -> int:
    """The card's multiprocessors."""
    if SIMULATED:
        return SIMULATED_PROCESSORS
    return int(cuda.get_current_device().MULTIPROCESSOR_COUNT)


def free_bytes() -> int | None:
    """Bytes that the card has left; None where it does not say."""
    if SIMULATED:
        return None
    return int(cuda.current_context().get_memory_info().free)


def prepare(kernels: Iterable[Any]) -> None:
    """Compiles kernels for the card. The simulator compiles nothing."""
    if not SIMULATED:
        for kernel in kernels:
            kernel.compile(SIGNATURE)


def on_device(values: Floats | Ints) -> Any:
    """A copy in the device's memory, of one element at least."""
    return cuda.to_device(values if values.size else np.zeros(1, values.dtype))


def room(floats: int) -> Any:
    """Memory of the device in which nothing is written yet."""
    return cuda.device_array(max(floats, 1), np.float32)


def launch(call: Call, arena: Any, params: Any, ints: Any) -> None:
    """Starts a kernel; it runs after those that were started before."""
    call.kernel[call.grid, call.block](arena, params, ints, np.int32(call.at))


def wait() -> None:
    """Until all that was started has ended."""
    cuda.synchronize()
