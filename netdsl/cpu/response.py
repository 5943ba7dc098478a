"""Local response normalisation: x / (k + alpha / size times the squares around it) ^ beta.

Around it means in the neighbouring channels, of one position.
"""

from __future__ import annotations

import numpy as np

from netdsl.cpu.functions import three_quarters
from netdsl.cpu.lanes import keep, load, muladd, power, splat, store, store_half, sum_of_five
from netdsl.cpu.late import njit
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import BATCH, BLOCK_STRIDE, BLOCKS, CHANNELS, DEPTH, HEIGHT, Buffer, Call
from netdsl.cpu.task import Needs, Places, Task
from netdsl.cpu.views import OWN, SOURCE, TARGET, call, row_at, row_width
from netdsl.ops import LocalResponseNorm

# Of local_response: the window's size; whether beta is 3/4; where alpha / size, k and beta lie in
# params; where the threads' scratch lies in the arena, and how many floats each has; whether it
# writes bfloat16, in blocks of 32 channels.
SIZE, THREE_QUARTERS, SETTINGS, SCRATCH, SCRATCH_STEP, IN_HALF = range(OWN, OWN + 6)
FIVE = 5
"""The size of nearly all nets' windows."""
CHUNK = 16
"""Columns that a thread squares at once; their squares stay in its first cache."""


def response_scratch(channels: int, size: int) -> int:
    """Floats of scratch that each thread of local_response wants."""
    return CHUNK * (16 * -(-channels // 16) + 2 * margin(size))


def margin(size: int) -> int:
    """Zeros before and after a position's squares: as far as a window reaches, in blocks."""
    return 16 * -(-size // 32)


@njit(forceinline=True)
def less_power(base, beta, is_three_quarters):  # type: ignore[no-untyped-def]
    """base to the power of -beta."""
    return three_quarters(base) if is_three_quarters else power(base, -beta)


@worker
def local_response(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """x / (k + alpha / size times the sum of squares of neighbouring channels) ^ beta.

    The squares of some columns are laid out by channel, zeros on both sides; a window's sum is
    then the sum of `size` shifted vectors, whatever the size.
    """
    blocks, columns, size = d[SOURCE + BLOCKS], row_width(d), d[SIZE]
    rows, depth, half = d[TARGET + HEIGHT], d[TARGET + DEPTH], d[IN_HALF]
    from_block, to_block = d[SOURCE + BLOCK_STRIDE], d[TARGET + BLOCK_STRIDE]
    at = d[SETTINGS]
    alpha, k, beta = params[at], params[at + 1], params[at + 2]
    side = 16 * ((size + 31) // 32)
    step = 16 * blocks + 2 * side
    scratch = d[SCRATCH] + part * d[SCRATCH_STEP]
    for x in range(min(columns, CHUNK)):
        for i in range(0, side, 16):
            store(arena, scratch + x * step + i, splat(np.float32(0.0)))
            store(arena, scratch + x * step + side + 16 * blocks + i, splat(np.float32(0.0)))
    work = d[TARGET + BATCH] * depth * rows
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, z, y = item // (rows * depth), item // rows % depth, item % rows
        for start in range(0, columns, CHUNK):
            width = min(columns - start, CHUNK)
            source = row_at(d, SOURCE, n, 0, z, y) + 16 * start
            out = row_at(d, TARGET, n, 0, z, y) + 16 * start
            for b in range(blocks):
                for x in range(width):
                    v = load(arena, source + b * from_block + 16 * x)
                    store(arena, scratch + x * step + side + 16 * b, v * v)
            for b in range(blocks):
                lanes = min(d[SOURCE + CHANNELS] - 16 * b, 16)
                for x in range(width):
                    around = scratch + x * step + side + 16 * b - (size - 1) // 2
                    sums = load(arena, around)
                    for i in range(1, size):
                        sums += load(arena, around + i)
                    base = muladd(sums, alpha, k)
                    v = load(arena, source + b * from_block + 16 * x)
                    v = v * less_power(base, beta, d[THREE_QUARTERS])
                    v = keep(v, 0, lanes)
                    if half:
                        store_half(arena, out + (b >> 1) * to_block + 8 * (b & 1) + 16 * x, v)
                    else:
                        store(arena, out + b * to_block + 16 * x, v)
            if half and blocks & 1:
                for x in range(width):
                    at = out + (blocks >> 1) * to_block + 8 + 16 * x
                    store_half(arena, at, splat(np.float32(0.0)))


@njit(forceinline=True)
def squares(arena, at, there):  # type: ignore[no-untyped-def]
    """The squares of 16 channels, zeros where there are none."""
    v = splat(np.float32(0.0))
    if there:
        v = load(arena, at)
    return v * v


@worker
def near_response(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The same where windows are five channels: they lie in a block and those beside it, whose
    squares are made anew and stay in registers."""
    blocks, columns = d[SOURCE + BLOCKS], row_width(d)
    rows, depth = d[TARGET + HEIGHT], d[TARGET + DEPTH]
    step, at = d[SOURCE + BLOCK_STRIDE], d[SETTINGS]
    alpha, k, beta = params[at], params[at + 1], params[at + 2]
    work = d[TARGET + BATCH] * depth * rows
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, z, y = item // (rows * depth), item // rows % depth, item % rows
        for b in range(blocks):
            source = row_at(d, SOURCE, n, b, z, y)
            out = row_at(d, TARGET, n, b, z, y)
            lanes = min(d[SOURCE + CHANNELS] - 16 * b, 16)
            for x in range(columns):
                v = load(arena, source + 16 * x)
                before = squares(arena, source + 16 * x - step, b > 0)
                after = squares(arena, source + 16 * x + step, b < blocks - 1)
                base = muladd(sum_of_five(before, v * v, after), alpha, k)
                v = v * less_power(base, beta, d[THREE_QUARTERS])
                if lanes < 16:
                    v = keep(v, 0, lanes)
                store(arena, out + 16 * x, v)


def response_needs(task: Task) -> Needs:
    """Scratch for local_response: its threads' squares."""
    op = task.whole.base
    assert isinstance(op, LocalResponseNorm)
    return Needs(scratch=task.threads * response_scratch(task.node.shape[0], op.size))


def plan_response(task: Task, places: Places) -> list[Call]:
    """The call of a local response normalisation."""
    return [response_call(task, places, places.output, places.inputs[0], task.parts)]


def response_call(task: Task, places: Places, output: Buffer, source: Buffer, parts: int) -> Call:
    """The call that makes all of `output`, which may be some rows, on so many threads."""
    op, channels = task.whole.base, task.node.shape[0]
    assert isinstance(op, LocalResponseNorm)
    at = places.params.add(np.array([op.alpha / op.size, op.k, op.beta]))
    own = (op.size, int(op.beta == 0.75), at, places.scratch, response_scratch(channels, op.size))
    near = op.size == FIVE and not output.pairs
    return call(
        near_response if near else local_response, parts, output, source, *own, int(output.pairs)
    )
