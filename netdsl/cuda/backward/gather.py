"""What keeps packed weights like the weights they were packed from."""

from __future__ import annotations

import numpy as np
from numba import cuda, int32, uint32

from netdsl.cuda.backward.task import Calls, Moved
from netdsl.cuda.layout import spread
from netdsl.cuda.rounding import PER_WORD
from netdsl.cuda.task import Descriptors
from netdsl.cuda.warp import as_bf16, as_tf32

COUNT, TARGET, TABLE, EACH = range(4)
"""COUNT floats from TARGET on. Of `gather_words` each holds EACH weights, 1 or 2."""

ZERO = np.float32(0)


@cuda.jit
def gather(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Copies weights to where the table wants them: grid (packed floats / threads)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    if i < ints[uint32(at + COUNT)]:
        place = ints[uint32(ints[uint32(at + TABLE)] + i)]
        if place >= 0:
            params[uint32(ints[uint32(at + TARGET)] + i)] = params[uint32(place)]


@cuda.jit(device=True)
def weight_at(params, place):  # type: ignore[no-untyped-def]
    """The weight at a place, zero where there is none."""
    return params[uint32(place)] if place >= 0 else ZERO


@cuda.jit
def gather_words(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The same for weights that are rounded: grid (words / threads)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    if i < ints[uint32(at + COUNT)]:
        each = ints[uint32(at + EACH)]
        entry = int32(ints[uint32(at + TABLE)] + i * each)
        low = weight_at(params, ints[uint32(entry)])
        if each == 1:
            word = as_tf32(low)
        else:
            word = as_bf16(low, weight_at(params, ints[uint32(entry + 1)]))
        params[uint32(ints[uint32(at + TARGET)] + i)] = word


def plan_gather(moved: Moved, ints: Descriptors) -> Calls:
    """The call that packs weights again."""
    count, table = len(moved.places), ints.add(moved.places)
    if moved.precision == "fp32":
        return [spread(gather, count, ints.add([count, moved.start, table]))]
    each = PER_WORD[moved.precision]
    at = ints.add([count // each, moved.start, table, each])
    return [spread(gather_words, count // each, at)]
