"""Output gradients made ready for tensor cores, in one pass with the sums of a bias and with what a
relu in the layer takes.

The gradient is read once, as floats, and written packed (see `netdsl.cuda.pack`); as floats nobody
reads it again. A relu took what it made zero of: that is read of its output, packed where it lies
so. A block goes over some squares of SIDE positions by SIDE channels, in turn; a thread packs the
same word of several positions, so that its channels' sums stay in registers. The threads' sums are
added up in their order, and so are the blocks'.
"""

from __future__ import annotations

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda.arith import quotient, remainder
from netdsl.cuda.backward.task import BackPlaces, Calls
from netdsl.cuda.layout import Buffer, Call, blocks
from netdsl.cuda.pack import LINE, SIDE, SQUARE, STEPS
from netdsl.cuda.rounding import PER_WORD
from netdsl.cuda.rows import place
from netdsl.cuda.sizes import SIMULATED, THREADS
from netdsl.cuda.task import Task
from netdsl.cuda.warp import as_bf16, as_tf32, bits_of, float_of
from netdsl.cuda.wide import WARPS, block_sum

SOURCE, SOURCE_BATCH, OTHER, OTHER_BATCH, TARGET, MASK, MASK_CELL = range(7)
CHANNELS, PLANE, WORDS, PER, SQUARES, EACH, PARTS, SUMS = range(7, 15)
"""Where the gradient lies, and how far apart its samples; the same of a relu's output as floats, or
-1; where the packed gradient goes, position by position; where a relu's output lies packed, or -1,
and how far apart its positions. WORDS of a position, PER channels of a word. SQUARES of SIDE
positions, sample by sample, EACH of them in each of PARTS; sums go to SUMS, (channels, parts),
or -1 if nobody wants them."""
COUNT, FROM, INTO = range(3)
"""Of bias_parts: parts of a channel, where they lie, and where the sums go."""

WAVES = 2 if SIMULATED else 16
"""Blocks that a multiprocessor should have in all."""

ZERO = np.float32(0)
HIGH = np.uint32(0xFFFF0000)


@cuda.jit
def pack_gradient(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Packs a gradient: grid (channels of whole words / SIDE, parts)."""
    square = cuda.shared.array(SQUARE, float32)
    low_sums = cuda.shared.array(THREADS, float32)
    high_sums = cuda.shared.array(THREADS, float32)
    t = int32(cuda.threadIdx.x)
    first_c = int32(cuda.blockIdx.x * SIDE)
    channels, plane = ints[uint32(at + CHANNELS)], ints[uint32(at + PLANE)]
    words, each = ints[uint32(at + WORDS)], ints[uint32(at + PER)]
    across = quotient(int32(SIDE), each)
    # The word that this thread packs, of every position that it takes.
    w = remainder(t, across)
    to_word = int32(quotient(first_c, each) + w)
    own = int32(each * w * LINE)
    per_plane = quotient(int32(plane + SIDE - 1), int32(SIDE))
    s = int32(cuda.blockIdx.y * ints[uint32(at + EACH)])
    end = min(int32(s + ints[uint32(at + EACH)]), ints[uint32(at + SQUARES)])
    low_sum, high_sum = ZERO, ZERO
    while s < end:
        n = quotient(s, per_plane)
        first_p = int32((s - n * per_plane) * SIDE)
        source = int32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)])
        other = ints[uint32(at + OTHER)]
        if other >= 0:
            other = int32(other + n * ints[uint32(at + OTHER_BATCH)])
        for step in range(STEPS):
            i = int32(t + step * THREADS)
            c, p = quotient(i, int32(SIDE)), remainder(i, int32(SIDE))
            value = ZERO
            if first_c + c < channels and first_p + p < plane:
                far = int32((first_c + c) * plane + first_p + p)
                value = arena[uint32(source + far)]
                if other >= 0 and not arena[uint32(other + far)] > ZERO:
                    value = ZERO
            square[uint32(c * LINE + p)] = value
        cuda.syncthreads()
        p = quotient(t, across)
        while p < SIDE:
            if first_p + p < plane and to_word < words:
                m = int32(n * plane + first_p + p)
                low = square[uint32(own + p)]
                high = square[uint32(own + LINE + p)] if each == 2 else ZERO
                if ints[uint32(at + MASK)] >= 0:
                    far = int32(m * ints[uint32(at + MASK_CELL)] + to_word)
                    word = bits_of(arena[uint32(ints[uint32(at + MASK)] + far)])
                    if each == 2:
                        if not float_of(word & HIGH) > ZERO:
                            high = ZERO
                        word = uint32(word << uint32(16))
                    if not float_of(word) > ZERO:
                        low = ZERO
                low_sum += low
                high_sum += high
                packed = as_tf32(low) if each == 1 else as_bf16(low, high)
                arena[uint32(ints[uint32(at + TARGET)] + m * words + to_word)] = packed
            p = int32(p + quotient(int32(THREADS), across))
        cuda.syncthreads()
        s = int32(s + 1)
    if ints[uint32(at + SUMS)] < 0:
        return
    low_sums[uint32(t)] = low_sum
    high_sums[uint32(t)] = high_sum
    cuda.syncthreads()
    # A thread adds up a channel.
    c = int32(first_c + t)
    if t < SIDE and c < channels:
        first = quotient(t, each)
        odd = int32(t - each * first) != 0
        total = ZERO
        for i in range(first, int32(THREADS), across):
            total += high_sums[uint32(i)] if odd else low_sums[uint32(i)]
        part = int32(c * ints[uint32(at + PARTS)] + cuda.blockIdx.y)
        arena[uint32(ints[uint32(at + SUMS)] + part)] = total


@cuda.jit
def bias_parts(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Adds up the parts of a channel's sum, a block a channel: grid (channels)."""
    shared = cuda.shared.array(WARPS, float32)
    t, c = int32(cuda.threadIdx.x), int32(cuda.blockIdx.x)
    count = ints[uint32(at + COUNT)]
    start = int32(ints[uint32(at + FROM)] + c * count)
    total = ZERO
    for i in range(t, count, int32(THREADS)):
        total += arena[uint32(start + i)]
    total = block_sum(shared, t, total)
    if t == 0:
        arena[uint32(ints[uint32(at + INTO)] + c)] = total


def plan_gradient(task: Task, places: BackPlaces, target: Buffer) -> Calls:
    """The calls that pack the output's gradient, without what a relu took, and sum it up for a
    bias. target: where it goes, contiguous."""
    g, each = places.gradient, PER_WORD[task.precision]
    relu = task.whole.activation is not None
    other, mask = (-1, 0), (-1, 0)
    if relu and places.packed is not None:
        mask = (places.packed.offset, places.packed.cell)
    elif relu:
        other = (places.output.offset, places.output.batch_stride)
    wide = -(-target.shape[-1] * each // SIDE)
    squares = g.batch * -(-g.plane // SIDE)
    share = -(-squares // max(min(-(-WAVES * task.processors // wide), squares), 1))
    parts = -(-squares // share)
    into = places.into.get("bias", -1)
    sums = into if into < 0 or parts == 1 else task.scratch(g.channels * parts)
    d = [*place(g), *other, target.offset, *mask, g.channels, g.plane, target.shape[-1], each]
    at = task.ints.add([*d, squares, share, parts, sums])
    calls = [Call(pack_gradient, (wide, parts, 1), THREADS, at)]
    if into < 0 or parts == 1:
        return calls
    return [*calls, blocks(bias_parts, g.channels, task.ints.add([parts, sums, into]))]
