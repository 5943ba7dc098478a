"""What a layer's sums are made of where factors may be rounded to bfloat16: the cheapest of three.

A product of *pairs* makes two multiply-adds in each lane, and both factors take half the bytes. A
Zen 4 starts as many of them as multiply-adds of floats, so they take half the time. Intel's servers
start one every other cycle, in which they start four of floats, so they take twice the time. There
*floats* stay what they are, or, where so few places read them that their coming from memory counts
for more, *weights alone* are rounded, and shifted back into floats.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from netdsl.cpu.costs import PLANAR, SHARED, Work, rates
from netdsl.cpu.layout import LANES, axes3
from netdsl.cpu.micro import Kind, dots, matrices, tiles
from netdsl.cpu.task import Task
from netdsl.ops import Conv, Linear


def settled(task: Task) -> Task:
    """A task, in single precision where rounding to bfloat16 would gain nothing."""
    if task.precision != "bf16" or matrices():
        return task
    sums = isinstance(task.whole.base, Conv | Linear)
    plain = cheapest(task) is Kind.BLOCKED if sums else floats_pay()
    return replace(task, precision="fp32") if plain else task


def floats_pay() -> bool:
    """Whether floats are the fastest factors that this CPU has, matrices apart."""
    known = rates()
    return known.halved > 1 and (known.pairs > 1 or not dots())


def cheapest(task: Task) -> Kind:
    """The kind of a layer's direct sums that costs least: PAIRED where both factors are rounded,
    HALVED where weights alone are, BLOCKED where none is."""
    layer = work(task)
    kinds = (*([Kind.PAIRED] if dots() else []), Kind.HALVED, Kind.BLOCKED)
    return min(kinds, key=layer.direct)


TOGETHER = 4
"""Blocks of filters that tiles of several samples go across."""


def tight(task: Task) -> bool:
    """Whether a fully connected layer's weights are to lose bits and no digits (tight.py): where
    they come from memory, threads wait for nothing else, and a tile has all samples, so that each
    weight is widened once."""
    op = task.whole.base
    if not isinstance(op, Linear) or (task.fc_weights or task.precision) != "fp32":
        return False
    once = {tile.shape.pixels for tile in tiles() if tile.kind is Kind.TIGHT}
    few = task.batch in once and task.batch <= rates().tight * task.threads
    whole = task.batch == 1 or -(-op.filters // LANES) % TOGETHER == 0
    return few and whole and 4 * op.filters * prod(task.shapes[0]) > SHARED


def work(task: Task) -> Work:
    """A convolution's direct sums, or those of a fully connected layer, whose places are the
    samples and whose taps are the whole image."""
    op, (channels, *image) = task.whole.base, task.shapes[0]
    assert isinstance(op, Conv | Linear)
    filter_blocks = -(-op.filters // LANES)
    if isinstance(op, Linear):
        sizes = 1, -(-channels // LANES), filter_blocks, (1, 1, task.batch), prod(image)
        return Work(*sizes, task.threads)
    lanes = 1 if channels <= PLANAR else LANES
    places, taps = axes3(task.made[1:]), prod(op.window.kernel)
    return Work(task.batch, -(-channels // lanes), filter_blocks, places, taps, task.threads, lanes)
