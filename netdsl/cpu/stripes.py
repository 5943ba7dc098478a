"""Convolutions in a chain, done a stripe of rows at a time.

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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from netdsl.cpu import depthwise, direct
from netdsl.cpu.chains import Chain, Span, spans, window
from netdsl.cpu.choices import choice
from netdsl.cpu.conv import call_of, direct_sum
from netdsl.cpu.direct import Sum
from netdsl.cpu.lanes import load, store
from netdsl.cpu.late import late
from netdsl.cpu.launch import BODY, Worker, worker
from netdsl.cpu.layout import WORKER, Buffer, Call
from netdsl.cpu.micro import past
from netdsl.cpu.task import Places, Task

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
class Layer:
    """A layer of a chain: its task, its places, its sum over whole images, and the calls that make
    so many rows from the first on, of the first sample."""

    task: Task
    places: Places
    whole: Sum
    calls: dict[int, Call]

    @classmethod
    def of(cls, task: Task, places: Places) -> Layer:
        return cls(task, places, direct_sum(task, places), {})

    def call(self, rows: Span, source: tuple[int, int], target: tuple[int, int]) -> Call:
        """The call that makes some rows of the output.

        source, target: which sample, or thread's share, of a buffer, and which row is its first.
        """
        count, stride = rows[1] - rows[0], window(self.task).stride[0]
        if count not in self.calls:
            part = self.whole._replace(counts=(1, 1, count, self.task.made[2]))
            self.calls[count] = call_of(
                replace(self.task, threads=1), part, choice(self.task).shape
            )
        kernel, d = self.calls[count]
        shifts = [
            _shift(self.places.inputs[0], source[0], rows[0] * stride - source[1]),
            _shift(self.places.output, target[0], rows[0] - target[1]),
        ]
        if self.task.whole.residual:
            shifts.append(_shift(self.places.inputs[1], target[0], rows[0]))
        d = d.copy()
        for place, shift in zip(PLACES[kernel], shifts, strict=False):
            d[place] += shift
        return Call(kernel, d)


PLACES: dict[object, tuple[int, ...]] = {
    direct.direct: direct.PLACES,
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
                yield from _padding(buffer, part, rows, heights[i])
                first = max(first, there)
            if first < end:
                source = (part, needed[i - 1][0]) if i else (n, 0)
                yield layer.call((first, end), source, (part, rows[0]) if between else (n, 0))
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
