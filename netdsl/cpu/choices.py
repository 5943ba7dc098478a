"""The ways to do a convolution, by name: a table of costs takes one, tuning measures all of them.

An *algorithm* is `direct`, `thirds` (thirds.py), `strassen`, `winograd4`, `winograd2` or
`winograd5` (tiles of 4x4, 2x2 or 5x5 outputs). Each can be done in several *ways*, which differ in
what is done at once: `direct 14x2` is direct sums by tiles of 14 pixels and 2 blocks of filters,
`winograd4 by tiles of 49` and `winograd4 by products of 196` are the two orders of Winograd's steps
(winograd.py), so many tiles at a time; `winograd4 strassen by tiles of 28` makes its products by
Strassen's algorithm, and `winograd4 thirds by tiles of 32` in AMX's registers. A strided layer of
few channels goes by Winograd's algorithm on the phases of its input (phases.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from math import prod
from typing import NamedTuple

from netdsl.cpu import factors, matrix, phases, strassen, strides, thirds, winograd_ways
from netdsl.cpu.costs import PLANAR, rates
from netdsl.cpu.direct import View
from netdsl.cpu.layout import LANES, axes3
from netdsl.cpu.micro import Kind, Shape, matrices, quartered
from netdsl.cpu.micro.fields import CUT, SIZES, Size
from netdsl.cpu.strides import Phases
from netdsl.cpu.task import Task
from netdsl.cpu.tiling import by_cost
from netdsl.cpu.winograd import Winograd
from netdsl.cpu.winograd_costs import cycles
from netdsl.graph import Graph
from netdsl.graph.fused import parts
from netdsl.ops import Conv, ConvTranspose, Input, Linear, MaxPool

ROUGH = {Size(4, 5): 5, Size(5, 4): 8}
"""The sizes that err most, and how many layers a net has for each layer of theirs, at least. Errors
add up in squares: one of 4 direct sums' roundings, as F(4x4, 5x5) errs, among n of 1 makes
(n - 1 + 16) / n, which is 4, twice the error of direct sums alone, where n is 5."""

ROUGHER, WASTE = {Size(5, 3): 8}, 1.2
"""The sizes that err twice as much as F(4x4, 3x3), and how many layers a net has at least where
they are taken: in images of which tiles of 4x4 outputs make so many times the outputs that there
are, as of 13 and 14 pixels."""

DEEP = 10
"""Layers that a net has at least where products are made by Strassen's algorithm, which errs 1.75
times as much as F(4x4, 3x3) does without."""

WORTH_COMPILING = 0.25
"""The part of a net's multiply-adds that a kernel does at least where others could do them too: the
first run of a net compiles what it needs, and some seconds are much for a hundredth of its time."""

POOL = 2.4
"""Cycles of a thread to pool each of a layer's outputs, a step of its own."""

HEAVIEST, HEAVIER = 16 << 20, 4 << 20
"""Floats that a strided layer's transformed weights may take, up to 11 times those of a 3x3 kernel,
and for each sample, where that is more. ResNet-50's last 3x3 of stride 2 takes another 100 MB, for
0.7% of the net's time at batch 8 on a Zen 4."""

MORE_SHAPES = 3
"""Tiles of direct sums that are worth measuring beside the one that is taken by its cost."""


class Algorithm(NamedTuple):
    """Direct sums (size None), of floats as three bfloat16 each where `thirds`, Winograd's with
    tiles of a size, or Strassen's; cycles: what it costs a layer."""

    size: Size | None
    cycles: float
    strassen: bool = False
    thirds: bool = False

    @property
    def name(self) -> str:
        if self.strassen:
            return "strassen"
        if self.thirds:
            return "thirds"
        return f"winograd{self.size.outputs}" if self.size else "direct"


class Choice(NamedTuple):
    """A way to do a layer: by a plan of Winograd's algorithm, or by direct sums or Strassen's
    algorithm with tiles of a shape; of a shape taken by its cost where that is None."""

    quick: Winograd | None = None
    shape: Shape | None = None
    strassen: bool = False
    thirds: bool = False

    @property
    def name(self) -> str:
        if self.quick is not None:
            return self.quick.name
        if self.thirds:
            return "thirds"
        name = "strassen" if self.strassen else "direct"
        return name if self.shape is None else f"{name} {self.shape.pixels}x{self.shape.blocks}"


def algorithms(task: Task) -> list[Algorithm]:
    """The algorithms that can do a convolution, the cheapest first."""
    op, channels = _conv(task), task.shapes[0][0]
    direct = task.exact or by_matrices(task)  # which are faster than any
    sizes = [] if direct else _sizes(op, channels)
    if task.whole.pool is not None:
        sizes = [size for size in sizes if size.pools]
    least = task.layers if _wasteful(task) else 0
    sizes = [size for size in sizes if ROUGHER.get(size, 0) <= least]
    if task.shallow:
        sizes = [size for size in sizes if size not in ROUGH]
    fewer = strassen.suits(task)
    parts = thirds.suits(task)
    if not sizes and not fewer and not parts:
        return [Algorithm(None, 0.0)]
    work = factors.work(task)
    pairs = task.precision == "bf16" and factors.cheapest(task) is Kind.PAIRED
    plans = {size: winograd_ways.planned(size, layer(task, size)) for size in sizes}
    found = [
        Algorithm(size, cycles(plan) + _split_cycles(task, plan))
        for size, plan in plans.items()
        if len(plan.phases.order) == 1 or plan.weight_floats <= max(HEAVIEST, HEAVIER * task.batch)
    ]
    if task.whole.pool is None:
        found.append(Algorithm(None, work.direct(Kind.PAIRED if pairs else Kind.BLOCKED)))
    if fewer:
        found.append(Algorithm(None, work.strassen(), strassen=True))
    if parts:
        found.append(Algorithm(None, thirds.cycles(task), thirds=True))
    return sorted(found, key=lambda one: (one.strassen and not task.points, one.cycles))


def _split_cycles(task: Task, plan: Winograd) -> float:
    """Cycles of a thread to split an image into its phases, where that is done."""
    op = _conv(task)
    if not phases.suit(op, task.shapes[0][0]):
        return 0.0
    return phases.CYCLES * phases.buffer(plan, op.window, task).floats / task.threads


def _wasteful(task: Task) -> bool:
    """Whether many of the outputs of 4x4 tiles are none of the image's."""
    made = task.made[-2:]
    return prod(-(-n // 4) * 4 for n in made) >= WASTE * prod(made)


def by_matrices(task: Task) -> bool:
    """Whether sums of this precision are made by products of matrices (matrix.py)."""
    return task.precision == "bf16" and matrices()


def _sizes(op: Conv, channels: int) -> list[Size]:
    """Winograd's tiles that a convolution of so many channels can be done with."""
    window = op.window
    plain = set(window.dilation) | set(window.stride[:-2]) <= {1} and op.groups == 1
    plain = plain and len(window.kernel) > 1 and min(channels, op.filters) >= LANES
    if not plain and not phases.suit(op, channels):
        return []
    taps = by_phases(op, channels).taps
    return [size for size in SIZES if taps == (size.taps, size.taps)]


def by_phases(op: Conv, channels: int) -> Phases:
    """The phases that Winograd's algorithm sums over: none where they are channels already."""
    whole = strides.of(op.window)
    return Phases(whole.taps) if phases.suit(op, channels) else whole


def shallow(graph: Graph) -> bool:
    """Whether a net has too few layers to hide the errors of rough sizes among their roundings."""
    bases = [(parts(n).base, graph.input_shapes(n)) for n in graph if not isinstance(n.op, Input)]
    needed = [
        max((ROUGH.get(size, 0) for size in _sizes(op, shape[0])), default=0)
        for op, (shape, *_) in bases
        if isinstance(op, Conv)
    ]
    return layers(graph) < sum(needed)


def layers(graph: Graph) -> int:
    """How many layers of sums a net has, among whose roundings the errors of one hide: none where
    an output is an image, for no sum over many places is behind the last layers then."""
    if any(prod(graph[name].shape[1:]) > 1 for name in graph.outputs):
        return 0
    return sum(isinstance(parts(n).base, Conv | ConvTranspose | Linear) for n in graph)


def cut(task: Task) -> bool:
    """Whether a convolution's products are made of quarters."""
    quick = choice(task).quick
    return quick is not None and quick.strassen


def in_registers(task: Task) -> bool:
    """Whether products of Winograd's algorithm are made in AMX's registers."""
    quick = choice(task).quick
    return quick is not None and quick.thirds


def worth_compiling(some: Iterable[Task], tasks: Iterable[Task]) -> bool:
    """Whether some of a net's convolutions are enough of it for a kernel of their own."""
    part, whole = (sum(t.node.op.macs(t.shapes) for t in ts) for ts in (some, tasks))
    return part >= WORTH_COMPILING * whole


@lru_cache(maxsize=1024)
def choice(task: Task) -> Choice:
    """How a convolution is done: as measured, where that is known, else as the table says. It is
    asked for several times while a net is planned."""
    if task.choice is not None:
        found = next((way for way in ways(task) if way.name == task.choice), None)
        if found is not None:
            return found
    best = algorithms(task)[0]
    if best.size:
        return Choice(winograd_ways.planned(best.size, layer(task, best.size)))
    return Choice(strassen=best.strassen, thirds=best.thirds)


def ways(task: Task) -> list[Choice]:
    """All that are worth measuring, the table's own choice first: several of its algorithm, few
    of the others."""
    found: list[Choice] = []
    for algorithm in algorithms(task):
        first = not found
        if algorithm.strassen:
            found.append(Choice(strassen=True))
        elif algorithm.thirds:
            found.append(Choice(thirds=True))
        elif algorithm.size:
            known = layer(task, algorithm.size)
            found += map(Choice, winograd_ways.ways(algorithm.size, known, 3 if first else 1))
        else:
            found += [Choice(), *(_shapes(task) if first else [])]
    return found


def _shapes(task: Task) -> list[Choice]:
    """Direct sums by other tiles than the one that is taken by its cost."""
    op, output = _conv(task), task.made
    if op.groups > 1:
        return []
    kind = Kind.PLANAR if task.shapes[0][0] <= PLANAR else Kind.BLOCKED
    *_, columns = axes3(output[1:])
    rows = task.batch * prod(output[1:]) // columns
    terms = prod(op.window.kernel) * -(-task.shapes[0][0] // kind.lanes) * kind.lanes
    found = by_cost(kind, columns, rows, [-(-op.filters // LANES)], task.threads, terms=terms)
    return [Choice(shape=row.shape) for row in found[1 : 1 + MORE_SHAPES]]


def layer(task: Task, size: Size) -> winograd_ways.Layer:
    """A convolution as Winograd's algorithm knows it."""
    op, channels = _conv(task), task.shapes[0][0]
    whole = by_phases(op, channels)
    if phases.suit(op, channels):
        channels *= phases.count(op.window)
    return winograd_ways.Layer(
        task.batch,
        channels,
        op.filters,
        axes3(task.made[1:]),
        op.window.kernel[0] if len(op.window.kernel) == 3 else None,
        task.threads,
        whole,
        _may_cut(task, size, channels) and len(whole.order) == 1,
        thirds.allowed(task) and task.points and len(whole.order) == 1,
    )


def _may_cut(task: Task, size: Size, channels: int) -> bool:
    """Whether Strassen's algorithm may make a layer's products: of halves that are whole blocks.
    Padding lanes would not stay zero: what they hold cancels out but for its rounding."""
    if rates().quarters is None or not quartered() or size not in CUT:
        return False
    if task.layers < DEEP or not task.points or not task.fixed:
        return False
    filters = _conv(task).filters
    blocks = -(-channels // LANES)
    return task.precision == "fp32" and filters % (2 * LANES) == 0 and blocks % 2 == 0


def pools(task: Task, pool: MaxPool) -> bool:
    """Whether a convolution also pools its result: Winograd's does where the windows are squares
    of two that fill its tiles."""
    kernel, stride, padding = pool.window.kernel, pool.window.stride, pool.window.padding
    if not isinstance(task.whole.base, Conv) or task.whole.residual or len(kernel) != 2:
        return False
    if set(kernel) != {2} or set(stride) != {2} or set(sum(padding, ())) != {0}:
        return False
    inside = pool.output((task.made,))[1:] == tuple(n // 2 for n in task.made[1:])
    if not inside or pool.window.dilation != (1, 1):
        return False
    if by_matrices(task):
        return _matrices_pool(task)
    quick = choice(task).quick
    if quick is None or quick.size.pools:
        return quick is not None
    fused = replace(task.node, op=replace(task.whole, pool=pool))
    together = algorithms(replace(task, node=fused))[0]
    apart = algorithms(task)[0].cycles + POOL * task.batch * prod(task.made) / task.threads
    return together.size is not None and together.cycles < apart


def _matrices_pool(task: Task) -> bool:
    """Whether a convolution by products of matrices is faster with a pool of 2x2 than before it."""
    op, (channels, _, width) = _conv(task), task.shapes[0]
    if 1 < op.groups == op.filters == channels:
        return False
    (down, right), row = op.window.stride, width + sum(op.window.padding[-1])
    rows, columns = (n // 2 * 2 for n in task.made[1:])
    taps = prod(op.window.kernel) * -(-channels // op.groups // Kind.MATRIX.lanes)
    source = View(0, (0, 0, down * row, right), 0)
    return matrix.pool_pays((task.batch, 1, rows, columns), source, taps)


def _conv(task: Task) -> Conv:
    op = task.whole.base
    assert isinstance(op, Conv)
    return op
