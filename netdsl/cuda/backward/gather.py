"""What keeps packed weights like the weights they were packed from."""

from __future__ import annotations

from numba import cuda, int32, uint32

from netdsl.cuda.backward.task import Calls, Moved
from netdsl.cuda.layout import spread
from netdsl.cuda.task import Descriptors

COUNT, TARGET, TABLE = range(3)


@cuda.jit
def gather(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Copies weights to where the table wants them: grid (packed floats / threads)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    if i < ints[uint32(at + COUNT)]:
        place = ints[uint32(ints[uint32(at + TABLE)] + i)]
        if place >= 0:
            params[uint32(ints[uint32(at + TARGET)] + i)] = params[uint32(place)]


def plan_gather(moved: Moved, ints: Descriptors) -> Calls:
    """The call that packs weights again."""
    count = len(moved.places)
    return [spread(gather, count, ints.add([count, moved.start, ints.add(moved.places)]))]
