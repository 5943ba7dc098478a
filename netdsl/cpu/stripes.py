"""Layers in a chain, done a stripe of rows at a time.

What such layers pass to each other may be far larger than what goes in and comes out: MobileNetV2
widens its channels six times in between. A stripe, some rows of the last layer's output, goes
through all layers before the next, so that what is between them stays in a core's own cache:

```
    rows of the input  ─▶ rows between ─▶ rows between ─▶ rows of the output
                           │  the last ones, which the next stripe
                           ▼  reads again, are moved to the front
```

The layers' kernels are those that do whole images; only descriptors differ. Each thread has its own
rows between, and its own range of the output's rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from netdsl.cpu import depthwise, direct_kernel, pool, response, walks
from netdsl.cpu.chains import Chain, Span, spans, window
from netdsl.cpu.choices import choice
from netdsl.cpu.conv import call_of, direct_sum
from netdsl.cpu.direct import Sum
from netdsl.cpu.lanes import load, store
from netdsl.cpu.late import late
from netdsl.cpu.launch import BODY, Worker, worker
from netdsl.cpu.layout import ORIGIN, WORKER, Buffer, Call
from netdsl.cpu.micro import past
from netdsl.cpu.task import Places, Task
from netdsl.cpu.views import SOURCE, TARGET
from netdsl.ops import Conv, LocalResponseNorm, Op

# Where the calls of a part start in the table, for each part and the end; then the table: where
# each call's descriptor starts in this one.
FIRSTS = BODY

run_worker = late("netdsl.cpu.nested", "run_worker")


@worker
def in_turn(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Each part's own calls, one after the other."""
    for i in range(d[FIRSTS + part], d[FIRSTS + part + 1]):
        run_worker(arena, params, past(d, d[i]))


FROM, TO, SIZE, BLOCKS, APART = range(BODY, BODY + 5)


@worker
def move_rows(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Moves so many floats of each block of channels to a place that lies before or apart."""
    for block in range(d[BLOCKS]):
        source, target = d[FROM] + block * d[APART], d[TO] + block * d[APART]
        for i in range(0, d[SIZE], 16):
            store(arena, target + i, load(arena, source + i))


KERNELS = (in_turn, move_rows)

Share = tuple[int, int]
"""Where rows lie in a buffer: which sample, or thread's share, and which row is its first."""


def striped(chain: Chain, places: Sequence[Places]) -> Call:
    """The call that does a chain, its layers' tensors at these places."""
    layers = [Layer.of(task, each) for task, each in zip(chain.tasks, places, strict=True)]
    ranges = enumerate(chain.ranges())
    return _joined([list(_part(layers, part, stripes)) for part, stripes in ranges])


def _joined(parts: Sequence[Sequence[Call]]) -> Call:
    """One call for the calls of each part."""
    calls = [call for part in parts for call in part]
    table = FIRSTS + len(parts) + 1
    firsts = np.cumsum([table, *map(len, parts)])
    starts = np.cumsum([table + len(calls), *(call.d.size for call in calls)])
    head = np.array([0, len(parts), *firsts, *starts[:-1]], np.int64)
    for kernel, d in calls:
        assert isinstance(kernel, Worker)
        d[WORKER] = kernel.address
    return Call(in_turn, np.concatenate([head, *(call.d for call in calls)]))


@dataclass
class Layer(ABC):
    """A layer of a chain: its task, its places, and the calls of whole rows that are known."""

    task: Task
    places: Places
    calls: dict[int, Call] = field(default_factory=dict)

    @classmethod
    def of(cls, task: Task, places: Places) -> Layer:
        kinds: dict[type[Op], type[Layer]] = {Conv: Sums, LocalResponseNorm: Response}
        return kinds.get(type(task.whole.base), Pool)(task, places)

    padded: ClassVar = False
    """Whether it reads zeros above and below its input."""

    @abstractmethod
    def call(self, rows: Span, source: Share, target: Share, part: int, sample: int) -> Call:
        """The call that makes some rows of a sample's output, on one thread."""


class Pool(Layer):
    """Any pool of windows."""

    def call(self, rows: Span, source: Share, target: Share, part: int, sample: int) -> Call:
        first, end = rows
        output = self.places.output.rows(target[0], first - target[1], end - first)
        given = self.places.inputs[0].rows(source[0], -source[1], self.task.shapes[0][1])
        return pool.pool_rows(self.task, output, given, slice(first, end), 1)


class Response(Layer):
    """A local response normalisation."""

    def call(self, rows: Span, source: Share, target: Share, part: int, sample: int) -> Call:
        count, given, output = rows[1] - rows[0], self.places.inputs[0], self.places.output
        if count not in self.calls:
            views = output.rows(0, 0, count), given.rows(0, 0, count)
            self.calls[count] = response.response_call(self.task, self.places, *views, 1)
        kernel, d = self.calls[count]
        d = d.copy()
        d[SOURCE + ORIGIN] += _shift(given, source[0], rows[0] - source[1])
        d[TARGET + ORIGIN] += _shift(output, target[0], rows[0] - target[1])
        d[response.SCRATCH] += part * d[response.SCRATCH_STEP]
        return Call(kernel, d)


class Sums(Layer):
    """A convolution by direct sums. whole: its sum over whole images."""

    padded = True

    @cached_property
    def whole(self) -> Sum:
        return direct_sum(self.task, self.places)

    def call(self, rows: Span, source: Share, target: Share, part: int, sample: int) -> Call:
        count, stride = rows[1] - rows[0], window(self.task).stride[0]
        if count not in self.calls:
            some = self.whole._replace(counts=(1, 1, count, self.task.made[2]))
            alone = replace(self.task, threads=1)
            self.calls[count] = call_of(alone, some, choice(self.task).shape)
        kernel, d = self.calls[count]
        shifts = [
            _shift(self.places.inputs[0], source[0], rows[0] * stride - source[1]),
            _shift(self.places.output, target[0], rows[0] - target[1]),
        ]
        if self.task.whole.residual:
            shifts.append(_shift(self.places.inputs[1], sample, rows[0]))
        d = d.copy()
        for place, shift in zip(PLACES[kernel], shifts, strict=False):
            d[place] += shift
        return Call(kernel, d)


PLACES: dict[object, tuple[int, ...]] = {
    direct_kernel.direct: walks.PLACES,
    depthwise.depthwise: depthwise.PLACES,
}


def _shift(buffer: Buffer, sample: int, rows: int) -> int:
    """How far a row of a sample lies from the first row of the first."""
    return sample * buffer.batch_stride + rows * buffer.row_stride


def _part(
    layers: Sequence[Layer], part: int, stripes: Sequence[tuple[int, int, int]]
) -> Iterator[Call]:
    """The calls of one thread."""
    windows = [window(layer.task) for layer in layers]
    heights = [layer.task.made[1] for layer in layers]
    made: list[Span] = []  # the rows of each layer that are there, from the stripe before
    sample = -1
    for n, *span in stripes:
        if n != sample:
            made, sample = [(0, 0)] * len(layers), n
        needed = spans(windows, heights, (span[0], span[1]))
        for i, layer in enumerate(layers):
            rows, between = needed[i], i < len(layers) - 1
            first, end = max(rows[0], 0), min(rows[1], heights[i])
            if between:
                buffer, (was, there) = layer.places.output, made[i]
                yield from _kept(buffer, part, (first, there), was, rows[0])
                if layers[i + 1].padded:
                    yield from _padding(buffer, part, rows, heights[i])
                first = max(first, there)
            if first < end:
                source = (part, needed[i - 1][0]) if i else (n, 0)
                target = (part, rows[0]) if between else (n, 0)
                yield layer.call((first, end), source, target, part, n)
            made[i] = rows[0], end


def _kept(buffer: Buffer, part: int, rows: Span, was: int, base: int) -> Iterator[Call]:
    """Moves rows that the stripe before made to where this one has them."""
    if rows[0] < rows[1] and was != base:
        yield _move(buffer, part, rows[0] - was, rows[0] - base, rows[1] - rows[0])


def _padding(buffer: Buffer, part: int, rows: Span, height: int) -> Iterator[Call]:
    """Zeros for rows outside of the image, from a row of the buffer's halo."""
    zeros = -1 if buffer.halo.lo[1] else buffer.size[1]
    outside = [*range(rows[0], min(rows[1], 0)), *range(max(rows[0], height), rows[1])]
    for row in outside:
        yield _move(buffer, part, zeros, row - rows[0], 1)


def _move(buffer: Buffer, part: int, source: int, target: int, rows: int) -> Call:
    start = buffer.origin - buffer.halo.lo[2] * buffer.lanes + part * buffer.batch_stride
    places = (start + row * buffer.row_stride for row in (source, target))
    fields = (0, 1, *places, rows * buffer.row_stride, buffer.blocks, buffer.block_stride)
    return Call(move_rows, np.array(fields, np.int64))
