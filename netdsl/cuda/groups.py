"""Elements that are summed together: a channel of all samples, or channels of one.

A group is `rows` stretches of `length` floats: a channel of a batch has a row a sample, channels of
one sample are one row. A grid has a block for each group, or several that share it in parts.
"""

from __future__ import annotations

from dataclasses import dataclass

from numba import cuda, int32, uint32

from netdsl.cuda.arith import quotient, remainder
from netdsl.cuda.layout import Buffer, Call, blocks
from netdsl.cuda.rows import fits
from netdsl.cuda.sizes import SIMULATED, THREADS
from netdsl.cuda.warp import load4, store4
from netdsl.cuda.wide import EACH, row_of

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH, OTHER, OTHER_BATCH = range(6)
GROUPS, LENGTH, ROWS, PLANE, CHANNELS, WIDE = range(6, 12)
"""Groups of a sample, floats of a row, rows; positions of a channel, channels of a group; how
elements are taken, see below."""
OWN = 12
"""Where the fields begin that a kernel has besides."""

SINGLE, FOURS, RAGGED = range(3)
"""One element at a time; or four, where rows begin and end at multiples of four; or the fours that
a row has a part in, where they do not. Then what of a four is another row's is left out."""
SHORTEST_ROW = 5 if SIMULATED else 4 * EACH
"""Elements from which on a row is taken by such fours."""

MOST_PARTS = min(64, THREADS)
SHORTEST = 2 * EACH * THREADS
"""Elements below which a part is not worth a block."""
WAVES = 4
"""Blocks that a multiprocessor should have."""


@cuda.jit(device=True)
def group_at(ints, at, field, q):  # type: ignore[no-untyped-def]
    """Where group q of a tensor begins."""
    groups = ints[uint32(at + GROUPS)]
    n = quotient(q, groups)
    return int32(row_of(ints, at + field, n) + (q - n * groups) * ints[uint32(at + LENGTH)])


@cuda.jit(device=True)
def span(ints, at, part, parts):  # type: ignore[no-untyped-def]
    """A part's first unit, its end, and the units of a row; a unit is four elements, or one."""
    row, wide = ints[uint32(at + LENGTH)], ints[uint32(at + WIDE)]
    if wide == FOURS:
        row = quotient(row, EACH)
    if wide == RAGGED:
        row = quotient(int32(row + 2 * (EACH - 1)), EACH)
    total = int32(row * ints[uint32(at + ROWS)])
    each = quotient(int32(total + parts - 1), parts)
    first = int32(part * each)
    return first, min(int32(first + each), total), row


@cuda.jit(device=True)
def stepped(row, column, units, down):  # type: ignore[no-untyped-def]
    """The row and column of the unit that is THREADS further on, in rows of `units`; these are
    `down` rows and a rest, which a loop knows beforehand."""
    row, column = int32(row + down), int32(column + THREADS - down * units)
    if column >= units:
        return int32(row + 1), int32(column - units)
    return row, column


@cuda.jit(device=True)
def take(values, array, start, column, length, wide, missing):  # type: ignore[no-untyped-def]
    """Puts the values of a row's unit `column` into `values`, `missing` for those that are none of
    the row's; gives back where in the row the first of them lies, which may be below 0. start:
    where the row begins."""
    if wide == SINGLE:
        values[0] = array[uint32(start + column)]
        for k in range(1, EACH):
            values[k] = missing
        return column
    begin = int32(column * EACH)
    if wide == FOURS:
        values[0], values[1], values[2], values[3] = load4(array, uint32(start + begin))
        return begin
    skew = remainder(start, int32(EACH))
    begin = int32(begin - skew)
    last = int32(quotient(int32(skew + length - 1), int32(EACH)) * EACH - skew)
    a, b, c, d = load4(array, uint32(start + min(begin, last)))
    values[0] = a if within(begin, length) else missing
    values[1] = b if within(int32(begin + 1), length) else missing
    values[2] = c if within(int32(begin + 2), length) else missing
    values[3] = d if within(int32(begin + 3), length) else missing
    return begin


@cuda.jit(device=True)
def give(array, start, begin, length, wide, values):  # type: ignore[no-untyped-def]
    """Writes those values of a unit that are the row's."""
    if wide == SINGLE:
        array[uint32(start + begin)] = values[0]
    elif begin >= 0 and int32(begin + EACH) <= length:
        store4(array, uint32(start + begin), values[0], values[1], values[2], values[3])
    else:
        for k in range(EACH):
            if within(int32(begin + k), length):
                array[uint32(start + begin + k)] = values[k]


@cuda.jit(device=True)
def within(i, length):  # type: ignore[no-untyped-def]
    """Whether 0 <= i < length."""
    return uint32(i) < uint32(length)


@dataclass(frozen=True)
class Groups:
    """The groups of some tensors of one shape. count: all of them. See the fields above."""

    count: int
    groups: int
    length: int
    rows: int
    plane: int
    channels: int
    wide: int

    @property
    def fields(self) -> list[int]:
        """What a descriptor holds of them, from GROUPS on."""
        return [self.groups, self.length, self.rows, self.plane, self.channels, self.wide]

    def parts(self, processors: int) -> int:
        """How many blocks should share a group, so that there is work for every multiprocessor."""
        elements = self.rows * self.length
        wanted = -(-WAVES * processors // self.count)
        parts = max(1, min(wanted, elements // SHORTEST, MOST_PARTS))
        units = elements // EACH if self.wide == FOURS else elements
        if self.wide == RAGGED:
            units = self.rows * ((self.length + 2 * (EACH - 1)) // EACH)
        return -(-units // -(-units // parts))


def groups_of(groups: int, *buffers: Buffer, batch: bool = False, mixed: bool = False) -> Groups:
    """The groups of each sample's channels; with `batch` each channel of all samples. mixed: if
    four elements that are taken at a time may be of several channels."""
    first = buffers[0]
    plane, channels = first.plane, first.channels // groups
    length = plane * channels
    starts = [n for b in buffers for n in (b.offset, b.batch_stride)]
    wide = FOURS if fits(length, *starts) and (mixed or plane == 1 or fits(plane)) else SINGLE
    if not wide and channels == 1 and length >= SHORTEST_ROW and alike(*buffers):
        wide = RAGGED
    samples = 1 if batch else first.batch
    rows = first.batch if batch else 1
    return Groups(samples * groups, groups, length, rows, plane, channels, wide)


def alike(*buffers: Buffer) -> bool:
    """Whether rows of all these begin in the same place of a four."""
    return len({(b.offset % EACH, b.batch_stride % EACH) for b in buffers}) == 1


def shared_by(kernel: object, groups: Groups, parts: int, at: int) -> Call:
    """A launch of `parts` blocks for each group."""
    return blocks(kernel, groups.count, at)._replace(grid=(groups.count, parts, 1))
