"""How fully connected layers are planned: as a convolution whose window is the whole image.

So they read an image as it lies, and weights are packed to suit. The samples of a batch are the
pixels of a tile, and each weight is read once for all of them.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from netdsl.cpu import matrix
from netdsl.cpu.choices import by_matrices
from netdsl.cpu.conv import add_biases, all_biases, channel_steps, clamp, kind_for, tap_offsets
from netdsl.cpu.direct import Sum, View, block_floats, describe
from netdsl.cpu.factors import tight
from netdsl.cpu.layout import LANES, Buffer, Call, Floats, Triple
from netdsl.cpu.micro import SHORT, Kind
from netdsl.cpu.pack import packed_weights
from netdsl.cpu.short import shortened
from netdsl.cpu.task import Needs, Places, Task
from netdsl.cpu.tight import EXACT, begun, tightened
from netdsl.ops import Linear


def plan_dense(task: Task, places: Places) -> list[Call]:
    """The calls of a fully connected layer with what is fused into it."""
    op, source, target = task.whole.base, places.inputs[0], places.output
    assert isinstance(op, Linear)
    channels = task.shapes[0][0]
    weights = places.weights["weight"].reshape(op.filters, channels, -1)
    kind = kind_for(source, task.fc_weights or task.precision)
    places_read = [(z, y, x) for z, y, x in product(*map(range, source.size))]
    if kind is Kind.BLOCKED and task.batch <= FEW and padded(channels, len(places_read)):
        kind = Kind.PLANAR
    taps = taps_of(source, kind, channels, places_read)
    if kind is Kind.BLOCKED and tight(task):
        calls = plan_tight(task, places, weights, taps)
        if calls:
            return calls
    weights, starts = matrix.whole_blocks(target, weights, [0] * -(-op.filters // LANES))
    block = block_floats(len(taps), kind)
    whole = Sum(
        kind=kind,
        counts=(1, 1, 1, source.batch),
        source=samples(source),
        target=samples(target),
        taps=taps,
        starts=starts,
        weights=places.params.add(_packed(task, places, weights, kind, block)),
        block=block,
        biases=all_biases(places, len(starts)) if kind is Kind.MATRIX else add_biases(places),
        residual=samples(places.inputs[1]) if task.whole.residual else None,
        spare=-channels % LANES if weights.shape[2] == 1 else 0,
        clamp=clamp(task.whole.activation),
    )
    if kind is Kind.MATRIX:
        return [matrix.describe(whole, task.threads, places)]
    return [describe(whole, task.threads)]


def plan_tight(task: Task, places: Places, weights: Floats, taps: list[int]) -> list[Call]:
    """The same calls with weights that are tight; none where these do not fit."""
    source, target, params = places.inputs[0], places.output, places.params
    block = block_floats(len(taps), Kind.TIGHT)
    near = max(taps) + LANES <= EXACT
    found = tightened(weights, block, task.threads, params.room) if near else None
    if found is None:
        return []
    residual = samples(places.inputs[1]) if task.whole.residual else None
    whole = Sum(
        kind=Kind.TIGHT,
        counts=(1, 1, 1, source.batch),
        source=samples(source),
        target=samples(target),
        taps=taps,
        starts=[0] * -(-len(weights) // LANES),
        weights=params.add(found.packed),
        block=block,
        residual=samples(target),
        scale=params.add(np.full(1, found.scale)),
        spare=-weights.shape[1] % LANES if weights.shape[2] == 1 else 0,
        clamp=clamp(task.whole.activation),
    )
    first = begun(found.misfits, whole, params, add_biases(places), residual, task.threads)
    return [first, describe(whole, task.threads)]


def dense_needs(task: Task) -> Needs:
    """The scratch of products of matrices."""
    quick = by_matrices(task) and in_pairs(task)
    return Needs(scratch=matrix.scratch(task.threads) if quick else 0)


WASTE = 1 / 8
"""The part of a layer's weights that may stand for channels that there are none of."""


def padded(channels: int, places: int) -> bool:
    """Whether so many weights would be for the channels that fill up the last block, that tiles
    had better read channel by channel. Of a single place they read the last block last, and stop
    where its channels end. At many samples weights are read from a cache, and the sums themselves
    take longer channel by channel."""
    return places > 1 and -channels % LANES > WASTE * channels


def taps_of(source: Buffer, kind: Kind, channels: int, places: list[Triple]) -> list[int]:
    """Where taps lie, in the order of their weights."""
    if kind is not Kind.PLANAR or source.lanes == 1:
        return tap_offsets(source, channel_steps(kind, channels), places)
    first = [c // LANES * source.block_stride + c % LANES for c in range(channels)]
    within = tap_offsets(source, 1, places)
    return [start + at for start in first for at in within]


def _packed(task: Task, places: Places, weights: Floats, kind: Kind, block: int) -> Floats:
    """The weights as tiles read them; where they were asked for in fewer bits, with their error."""
    if task.fc_weights is None or kind not in SHORT:
        return packed_weights(weights, kind, block, task.threads, places.params.room)
    packed, places.rounding["weight"] = shortened(weights, kind, block, task.threads)
    return packed


FEW = 4
"""Samples up to which a layer waits for its weights anyway, so its inputs need no rounding."""


def in_pairs(task: Task) -> bool:
    """Whether this layer sums products of bfloat16 pairs, where the CPU has them."""
    return task.fc_weights is None and task.batch > FEW


def samples(buffer: Buffer) -> View:
    """The walk from sample to sample."""
    return View(buffer.origin, (0, 0, 0, buffer.batch_stride), buffer.block_stride)
