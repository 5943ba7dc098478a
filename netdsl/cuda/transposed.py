"""How transposed convolutions are planned: as a plain convolution for each remainder of the output
position by the stride.

Output o takes input i through tap t where o + padding = i stride + t dilation. For the outputs
of one remainder those are always the same taps, and i grows by 1 from one output to the next.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from netdsl.cuda.conv import Axes, Sum, plan_ending, plan_sums, taps
from netdsl.cuda.doubled import doubles, plan_doubled
from netdsl.cuda.layout import Call, axes
from netdsl.cuda.mixed import packs
from netdsl.cuda.packing import Packs
from netdsl.cuda.task import Task
from netdsl.ops import ConvTranspose


def plan_transposed(task: Task) -> list[Call]:
    """A transposed convolution with what is fused into it."""
    if doubles(task):
        return [plan_doubled(task, plan_ending(task, task.output.channels))]
    return plan_sums(task, _sums_of(task))


def transposed_packs(task: Task) -> Packs:
    """What its kernels do with packed tensors."""
    return packs(task, _sums_of(task))


def _sums_of(task: Task) -> list[Sum]:
    op = task.whole.base
    assert isinstance(op, ConvTranspose)
    remainders = product(*(range(s) for s in axes(op.window.stride, 1)))
    sums = (_remainder(task, op, (z, y, x)) for z, y, x in remainders)
    return [one for one in sums if one is not None]


def _remainder(task: Task, op: ConvTranspose, first: Axes) -> Sum | None:
    """The sum of the outputs `first`, `first` + stride, … along each axis, if there are any."""
    source, target, w = task.inputs[0], task.output, op.window
    stride, dilation, kernel = axes(w.stride, 1), axes(w.dilation, 1), axes(w.kernel, 1)
    before = axes((lo for lo, _ in w.padding), 0)
    out = [
        -(-(size - at) // step) for size, at, step in zip(target.size, first, stride, strict=True)
    ]
    if min(out) < 1:
        return None
    met = []
    for i in range(3):
        reach = [first[i] + before[i] - t * dilation[i] for t in range(kernel[i])]
        met.append([(t, r // stride[i]) for t, r in enumerate(reach) if r % stride[i] == 0])
    chosen = list(product(*met))
    numbers = [(tz * kernel[1] + ty) * kernel[2] + tx for (tz, _), (ty, _), (tx, _) in chosen]
    cells = [(z, y, x) for (_, z), (_, y), (_, x) in chosen]
    inside, each = source.channels // op.groups, op.filters // op.groups
    weights = task.weights["weight"].reshape(op.groups, inside, each, -1)
    weights = weights[..., np.array(numbers, np.intp)].transpose(0, 1, 3, 2)
    _, height, width = target.size
    return Sum(
        size=source.size,
        out=(out[0], out[1], out[2]),
        stride=(1, 1, 1),
        start=(0, 0, 0),
        taps=taps(source.size, inside, cells),
        weights=weights.reshape(op.groups, inside * len(numbers), each),
        origin=(first[0] * height + first[1]) * width + first[2],
        steps=(stride[0] * height * width, stride[1] * width, stride[2]),
        group_floats=inside * source.plane,
        channels=inside,
    )
