"""How fully connected layers are planned: filter by filter for a few samples, since reading the
weights is the work, and as a convolution of one position for many."""

from __future__ import annotations

import numpy as np

from netdsl.cuda.activation import ends, numbers
from netdsl.cuda.conv import Sum, plan_sums
from netdsl.cuda.layout import Call
from netdsl.cuda.reduce import SAMPLES, dense_rows
from netdsl.cuda.sizes import THREADS
from netdsl.cuda.task import Task
from netdsl.ops import Linear

FEW_SAMPLES = 2 * SAMPLES


def plan_dense(task: Task) -> list[Call]:
    """A fully connected layer with what is fused into it."""
    op, source = task.whole.base, task.inputs[0]
    assert isinstance(op, Linear)
    if task.batch <= FEW_SAMPLES:
        return [_rows(task, op)]
    table = np.zeros((source.sample, 4), np.int32)
    table[:, 0] = np.arange(source.sample)
    whole = Sum(
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
    return plan_sums(task, [whole])


def _rows(task: Task, op: Linear) -> Call:
    source, params = task.inputs[0], task.params
    kind, values = numbers(task.whole.activation)
    weights = params.add(task.weights["weight"])
    bias = params.add(task.weights.get("bias", np.zeros(op.filters, np.float32)))
    d = [*ends(source, task.output), source.sample, task.batch, weights, bias]
    at = task.ints.add([*d, kind, params.add(values)])
    return Call(dense_rows, (op.filters, -(-task.batch // SAMPLES), 1), THREADS, at)
