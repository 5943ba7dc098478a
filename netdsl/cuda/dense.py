"""How fully connected layers are planned: filter by filter for a few samples, since reading the
weights is the work, and as a convolution of one position for many."""

from __future__ import annotations

import numpy as np

from netdsl.cuda.activation import ends, numbers
from netdsl.cuda.conv import Sum, plan_sums
from netdsl.cuda.layout import Call
from netdsl.cuda.mixed import packs
from netdsl.cuda.packing import NEVER, Packs
from netdsl.cuda.reduce import DENSE, ROWS, SAMPLES
from netdsl.cuda.rounding import PER_WORD
from netdsl.cuda.rows import fits
from netdsl.cuda.sizes import THREADS
from netdsl.cuda.task import Task
from netdsl.ops import Linear

FEW_SAMPLES = 2 * SAMPLES


def plan_dense(task: Task) -> list[Call]:
    """A fully connected layer with what is fused into it."""
    if task.batch <= FEW_SAMPLES:
        return [_rows(task)]
    return plan_sums(task, [_sum_of(task)])


def dense_packs(task: Task) -> Packs:
    """What its kernels do with packed tensors. Positions of their own are other rows of weights."""
    if task.batch <= FEW_SAMPLES:
        return NEVER
    can = packs(task, [_sum_of(task)])
    return can._replace(reads=can.reads and task.inputs[0].plane == 1)


def _sum_of(task: Task) -> Sum:
    source = task.inputs[0]
    table = np.zeros((source.sample, 4), np.int32)
    table[:, 0] = np.arange(source.sample)
    return Sum(
        size=(1, 1, 1),
        out=(1, 1, 1),
        stride=(1, 1, 1),
        start=(0, 0, 0),
        taps=table,
        weights=task.weights["weight"].T[None],
        origin=0,
        steps=(0, 0, 0),
        group_floats=0,
        channels=source.sample,
    )


def _rows(task: Task) -> Call:
    op, source, params = task.whole.base, task.inputs[0], task.params
    assert isinstance(op, Linear)
    kind, values = numbers(task.whole.activation)
    # Weights of half the bytes are read in half the time.
    per = PER_WORD["bf16"] if task.precision == "bf16" else 1
    rows, inputs = -(-op.filters // ROWS) * ROWS, source.sample
    given = task.weights["weight"]
    width = 4 * per * -(-inputs // (4 * per))
    if given.shape != (rows, width):
        given = np.pad(given, ((0, rows - op.filters), (0, width - inputs)))
    weights = params.add(given) if per == 1 else params.add_words(given, task.precision)
    bias = params.add(task.weights.get("bias", np.zeros(op.filters, np.float32)))
    d = [*ends(source, task.output), inputs, task.batch, op.filters, weights, bias]
    wide = fits(source.offset, source.batch_stride, inputs)
    at = task.ints.add([*d, kind, params.add(values), int(wide)])
    blocks = rows // ROWS * -(-task.batch // SAMPLES)
    return Call(DENSE[per], (blocks, 1, 1), THREADS, at)
