"""Tensors made ready for tensor cores: rounded, channels next to each other, in whole 16 bytes.

A position's channels become words: TF32 one to a word, bfloat16 two, the first in the lower half;
zeros up to a multiple of four words. What is rounded on the host is by rounding.py. Where a kernel
on tensor cores makes what another one reads it packs by itself (tensor.py, or here if its sums were
cut into parts); which those are is decided in packing.py.
"""

from __future__ import annotations

from math import prod

from numba import cuda, float32, int32, uint32

from netdsl.cuda.arith import quotient, remainder
from netdsl.cuda.describe import Sum
from netdsl.cuda.direct import added, plan_adding, put_at
from netdsl.cuda.layout import Buffer, Call, spread
from netdsl.cuda.rounding import PER_WORD, words_of
from netdsl.cuda.sizes import SIMULATED, THREADS
from netdsl.cuda.sums import EACH, FILTERS, GROUPS, POSITIONS, ZERO, packed_of, target_of
from netdsl.cuda.task import Task
from netdsl.cuda.warp import as_bf16, as_tf32, load_if, store4
from netdsl.ops import Shape

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH, CHANNELS, PLANE, WORDS, PER = range(8)
"""Of the kernels that pack alone: WORDS of a position, PER (1 or 2) channels of a word."""

UNIT = 4
"""Words of a unit."""
MOST_CHANNELS = UNIT * max(PER_WORD.values())

SIDE = 4 if SIMULATED else 32
"""Positions and channels of a block's square."""
LINE = SIDE + 1
SQUARE = SIDE * LINE
DOWN = THREADS // SIDE
STEPS = SIDE // DOWN


@cuda.jit(device=True)
def word_of(square, w, p, each):  # type: ignore[no-untyped-def]
    """Word w of position p of a square."""
    if each == 1:
        return as_tf32(square[uint32(w * LINE + p)])
    low = square[uint32(2 * w * LINE + p)]
    return as_bf16(low, square[uint32((2 * w + 1) * LINE + p)])


@cuda.jit
def pack_planes(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Turns channels of positions into positions of channels: grid (positions / SIDE, channels /
    SIDE, samples)."""
    square = cuda.shared.array(SQUARE, float32)
    t = int32(cuda.threadIdx.x)
    n = int32(cuda.blockIdx.z)
    first_p = int32(cuda.blockIdx.x * SIDE)
    first_c = int32(cuda.blockIdx.y * SIDE)
    channels = ints[uint32(at + CHANNELS)]
    plane = ints[uint32(at + PLANE)]
    words = ints[uint32(at + WORDS)]
    each = ints[uint32(at + PER)]
    source = int32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)])
    for step in range(STEPS):
        i = int32(t + step * THREADS)
        c, p = quotient(i, int32(SIDE)), remainder(i, int32(SIDE))
        value = ZERO
        if first_c + c < channels and first_p + p < plane:
            value = arena[uint32(source + (first_c + c) * plane + first_p + p)]
        square[uint32(c * LINE + p)] = value
    cuda.syncthreads()
    across = quotient(int32(SIDE), each)
    first_w = quotient(first_c, each)
    target = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)])
    i = t
    while i < SIDE * across:
        p, w = quotient(i, across), remainder(i, across)
        if first_p + p < plane and first_w + w < words:
            to = int32(target + (first_p + p) * words + first_w + w)
            arena[uint32(to)] = word_of(square, w, p, each)
        i = int32(i + THREADS)


@cuda.jit
def pack_units(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The same of a few channels, a unit a position, and a thread: grid (positions / threads,
    samples)."""
    p = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    channels, plane = ints[uint32(at + CHANNELS)], ints[uint32(at + PLANE)]
    if p >= plane:
        return
    place = int32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + p)
    values = cuda.local.array(MOST_CHANNELS, float32)
    for c in range(MOST_CHANNELS):
        values[c] = load_if(arena, uint32(place + c * plane), c < channels)
    to = uint32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + 4 * p)
    if ints[uint32(at + PER)] == 1:
        a, b = as_tf32(values[0]), as_tf32(values[1])
        c, d = as_tf32(values[2]), as_tf32(values[3])
    else:
        a, b = as_bf16(values[0], values[1]), as_bf16(values[2], values[3])
        c, d = as_bf16(values[4], values[5]), as_bf16(values[6], values[7])
    store4(arena, to, a, b, c, d)


@cuda.jit
def pack_rows(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The same for a single position, a thread a word: grid (words / threads, samples)."""
    w = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    if w >= ints[uint32(at + WORDS)]:
        return
    channels = ints[uint32(at + CHANNELS)]
    each = ints[uint32(at + PER)]
    source = int32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)])
    c = int32(each * w)
    low = arena[uint32(source + c)] if c < channels else ZERO
    high = arena[uint32(source + c + 1)] if each == 2 and c + 1 < channels else ZERO
    word = as_tf32(low) if each == 1 else as_bf16(low, high)
    arena[uint32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + w)] = word


@cuda.jit
def conv_finish_packed(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Adds up sums that were split, and packs them: grid (positions / SIDE, channels / SIDE)."""
    square = cuda.shared.array(SQUARE, float32)
    begins = cuda.shared.array(SIDE, int32)
    t = int32(cuda.threadIdx.x)
    first_m = int32(cuda.blockIdx.x * SIDE)
    first_f = int32(cuda.blockIdx.y * SIDE)
    positions = ints[uint32(at + POSITIONS)]
    lines = int32(ints[uint32(at + GROUPS)] * ints[uint32(at + FILTERS)])
    # A thread's channels are all of one position.
    p = remainder(t, int32(SIDE))
    m = int32(first_m + p)
    n, place = target_of(ints, at, m)
    if t < SIDE:
        begins[uint32(t)] = packed_of(ints, at, m)
    for step in range(STEPS):
        c = int32(quotient(t, int32(SIDE)) + step * DOWN)
        f = int32(first_f + c)
        value = ZERO
        if f < lines and m < positions:
            total = added(arena, ints, at, m, f)
            value = put_at(arena, params, ints, at, total, n, place, f)
        square[uint32(c * LINE + p)] = value
    cuda.syncthreads()
    each = ints[uint32(at + EACH)]
    across = quotient(int32(SIDE), each)
    first_w = quotient(first_f, each)
    words = int32(4 * quotient(int32(lines + 4 * each - 1), int32(4 * each)))
    i = t
    while i < SIDE * across:
        p, w = quotient(i, across), remainder(i, across)
        to = begins[uint32(p)]
        if to >= 0 and first_w + w < words:
            arena[uint32(to + first_w + w)] = word_of(square, w, p, each)
        i = int32(i + THREADS)


def plan_finish(task: Task, whole: Sum, partial: int, at: int) -> Call:
    """The call that ends sums which were cut into parts, from `partial` in the arena on."""
    if task.packed_output is None:
        return plan_adding(task, whole, partial, at)
    groups, _, filters = whole.weights.shape
    wide = words_of(groups * filters, task.precision) * PER_WORD[task.precision]
    squares = -(-task.batch * whole.positions // SIDE), -(-wide // SIDE), 1
    return Call(conv_finish_packed, squares, THREADS, at)


def plan_pack(task: Task, source: Buffer, shape: Shape, target: int) -> Call:
    """The call that makes a tensor ready, from `target` in the arena on. shape: what it is taken
    for, channels and axes."""
    channels, plane, each = shape[0], prod(shape[1:]), PER_WORD[task.precision]
    words = words_of(channels, task.precision)
    d = [source.offset, source.batch_stride, target, plane * words]
    at = task.ints.add([*d, channels, plane, words, each])
    if words == UNIT and plane > 1:
        return spread(pack_units, plane, at, source.batch)
    if plane == 1:
        return spread(pack_rows, words, at, source.batch)
    squares = (-(-plane // SIDE), -(-words * each // SIDE), source.batch)
    return Call(pack_planes, squares, THREADS, at)
