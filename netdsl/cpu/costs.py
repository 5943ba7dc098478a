"""What each algorithm costs a layer, in rough cycles: the table by which one is chosen.

Nothing is measured at start. A cycle is the time of one multiply-add of 16 floats. The numbers are
of three machines: a Zen 4 with AVX-512 and a Zen 3 with AVX2, both at one multiply-add a clock, and
an Emerald Rapids at two, so that all else weighs twice as much there.
"""

from __future__ import annotations

from functools import cache
from math import inf, prod
from typing import NamedTuple

from netdsl.cpu.layout import LANES, Triple
from netdsl.cpu.micro.shapes import HALF, Kind, Shape, twice, wide
from netdsl.cpu.processor import second_level

PLANAR = 8
"""Input channels up to which planes beat a block that is mostly padding."""

OWN_CACHE = second_level() // 8
"""Floats that stay in a core's own cache while others pass: half of its second level."""

CACHED = 4 << 20
"""Bytes of weights that other layers leave in a cache until the next run."""

SHARED = 16 << 20
"""Bytes of weights that stay in the cache that all cores share, while one layer is done."""


class Fewer(NamedTuple):
    """What Strassen's algorithm takes of the time of direct sums: `sums` where places have their
    like, more of it by `ends` for each input channel, since tiles sum half as many, and by `made`
    for each filter, which shares the sums of inputs. bytes: of weights a cycle, the first time;
    wait: cycles beside, of each call."""

    sums: float
    ends: float
    made: float
    bytes: float
    wait: float


class Quarters(NamedTuple):
    """What Winograd's algorithm takes besides where its products are made by Strassen's: the end of
    each of the seven that a tile makes, the sums of inputs for each of a tile's, and instead of
    `Rates.missed` and `Rates.room`, since more weights pass through the cache."""

    end: float
    form: float
    missed: float
    room: float


class Thirds(NamedTuple):
    """What direct sums of floats as three bfloat16 each take: all six products of 16 places by 16
    filters and 32 channels; the parts of 32 channels of a place; 16 filters of a place to store,
    and more with a residual; a byte of weights, as a part of what bringing it in takes, and of
    inputs' parts that threads share; and a call."""

    products: float
    parts: float
    end: float
    residual: float
    weights: float
    shared: float
    call: float


class Registers(NamedTuple):
    """What Winograd's algorithm takes where its products are made in AMX's registers: the products
    of 32 tiles by 32 filters and 32 channels; the parts of 16 tiles' 32 channels; each of a tile's
    inputs and outputs, and as `Rates.missed` and `Rates.room` for them; bytes of weights a cycle
    the first time, and when they pass again; bytes from one step to the next, the part of it that
    this takes more where it is much, and the part of OWN_CACHE up to which it is little."""

    products: float
    form: float
    transform: float
    missed: float
    room: float
    first: float
    again: float
    passing: float
    more: float
    few: float


class Rates(NamedTuple):
    """What a kind of CPU takes.

    direct: a multiply-add of a direct sum, planes: where its input lies in planes. pairs: as a part
    of it, one of pairs of bfloat16, of which an instruction makes two in each lane; halved: one
    where weights alone are in bfloat16. reads: each of the loads of a turn of a product's tile, of
    which as many start in a clock as multiply-adds do; 0 where they hide. turn, loads: such a turn
    beside either, and what it takes more for each of its blocks, whose weights come from the second
    level; chosen: the same two where the tile's shape is chosen. tile: a tile's start and end.
    transform: each of a tile's inputs, there and back.

    tight: samples for each thread up to which a large fully connected layer is faster with its
    weights in fewer bits (tight.py): measured on a Zen 4, for AVX2 too, and on a Granite Rapids.

    near, far: bytes of weights a cycle for all threads together, from the cache that they share and
    from memory. passing: bytes a cycle from one step of Winograd's algorithm to the next, through
    that cache; wait: what a step takes beside, of the threads for each other. unhidden: the part of
    waiting for weights that still shows where tiles ask for them ahead of time; alone: the tiles
    along a chunk from which on they have the time to. apart: whether threads that go through all
    weights, chunk by chunk, each bring them in.

    room: floats of a chunk by tiles that stay in the core's own cache, as a part of OWN_CACHE; what
    has no room there costs `missed` more for each of a tile's inputs, and again for each tile of
    filters as many bytes as pass at `again` a cycle. gaps: whether what lies between the places
    that a strided layer reads takes room as well, since those that it reads fill every other set of
    the cache alone. strassen, quarters: None where they were not measured.

    kept: bytes that stay in the cache that all cores share while layers pass them on: of 32 MB or
    more, which strangers use too.
    """

    direct: float
    planes: float
    pairs: float
    halved: float
    reads: float
    turn: float
    loads: float
    chosen: tuple[float, float]
    tile: float
    transform: float
    tight: float
    near: float
    far: float
    passing: float
    wait: float
    unhidden: float
    alone: int
    apart: bool
    room: float
    missed: float
    again: float
    gaps: bool
    strassen: Fewer | None
    thirds: Thirds | None = None
    quarters: Quarters | None = None
    registers: Registers | None = None
    kept: int = 24 << 20


WIDE = Rates(
    direct=1.0,
    planes=1.0,
    pairs=0.5,
    halved=1.0,
    reads=0.0,
    turn=0.25,
    loads=0.3,
    chosen=(2.7, 0.0),
    tile=20.0,
    transform=4.0,
    tight=2.0,
    near=52.0,
    far=22.0,
    passing=15.0,
    wait=0.0,
    unhidden=0.5,
    alone=2,
    apart=False,
    room=1.0,
    missed=9.0,
    again=inf,
    gaps=False,
    strassen=Fewer(sums=0.885, ends=8.0, made=4.0, bytes=27.0, wait=10e3),
    quarters=Quarters(20.0, 3.0, 3.0, 0.6),
)
"""A Zen 4 with AVX-512. By the least regret over 82 layers of VGG-16, ResNet-50, AlexNet and
GoogLeNet at batches of 1 and 8 on two threads, each done in some twenty ways within its net: the
ways that the table takes need 1.8% more time than the best, in the geometric mean; by the numbers
before tiles asked for weights it was 4.0%. `quarters`: by 98 layers of VGG-16, ResNet-18,
GoogLeNet and U-Net, at batches of 1 and 8 but U-Net's, each in all its ways within its net: the
ways that the table takes need 2.0% more time than the best, by the numbers before 2.6%.
`strassen`: by hand, from 237 1x1 layers of ResNet-50, DenseNet-121 and GoogLeNet at both batches,
each also by direct sums: the part of the time that it takes is as reckoned to within 3% in most."""

NARROW = Rates(
    direct=1.0,
    planes=1.0,
    pairs=0.5,
    halved=1.0,
    reads=0.0,
    turn=0.0,
    loads=0.5,
    chosen=(2.0, 0.0),
    tile=40.0,
    transform=8.0,
    tight=0.5,
    near=16.0,
    far=9.0,
    passing=10.0,
    wait=0.0,
    unhidden=0.2,
    alone=2,
    apart=True,
    room=2.0,
    missed=0.0,
    again=16.0,
    gaps=False,
    strassen=None,
)
"""A Zen 3 with AVX2; with narrower registers all but memory slows down alike."""

FAST = Rates(
    direct=1.1,
    planes=1.4,
    pairs=2.0,
    halved=1.5,
    reads=1.2,
    turn=2.0,
    loads=0.7,
    chosen=(2.0, 1.3),
    tile=50.0,
    transform=20.0,
    tight=4.0,
    near=9.0,
    far=5.5,
    passing=8.5,
    wait=32e3,
    unhidden=0.3,
    alone=1,
    apart=True,
    room=0.7,
    missed=27.0,
    again=inf,
    gaps=True,
    strassen=None,
    thirds=Thirds(250.0, 22.0, 13.5, 12.0, 1.15, 0.3, 22e3),
    registers=Registers(1120.0, 1060.0, 13.8, 25.0, 1.6, 4.2, 14.0, 17.5, 2.0, 8.0),
    kept=26 << 20,
)
"""An Emerald Rapids with AVX-512. By the least regret over 28 layers of VGG-16, ResNet-50, AlexNet
and GoogLeNet at batches of 1 and 8 on two threads, each done in a dozen ways with weights that are
not cached: the ways that the table takes need 1.5% more time than the best, in the geometric mean;
by a Zen 4's numbers it was 4.3%. `direct`, `room`, `tile`, `transform` and `wait`: of another such
machine, whose cores were shared less, after direct sums had become faster; over 187 layers, small
ones among them, 2.8% more time than the best, before it was 3.5%. `near`: so that layers of 256
channels and 14 pixels go by products of F(5x5, 3x3). `pairs`: vdpbf16ps starts every other cycle,
where multiply-adds start twice a cycle. `halved`: by fully connected layers of 5 to 64 samples,
beside a `direct` of 1.4, and reckoned anew for this one; more than sums themselves take, for of
floats as much of the waiting for weights hides behind them. `thirds`: of a Granite Rapids with AMX,
by 546 layers of six nets at batches of 1 and 8, each within its net: their times are as reckoned
to within 11%, root of the mean square, and where it is this way or direct sums the table's choice
needs 0.4% more time than the better. `registers`: of the same, by the least regret over 151 layers
of six nets at batches of 1 to 8, each in some forty ways within its net: the ways that the table
takes need 2.2% more time than the best, in the geometric mean. `kept`: so that ResNet-50's section
stays one where weights take 1.5 times their bytes; there the cache has room for more."""


@cache
def rates() -> Rates:
    """Those of the machine that this CPU is most like."""
    if not wide():
        return NARROW
    return FAST if twice() else WIDE


@cache
def turn(shape: Shape, beside: tuple[float, float]) -> float:
    """Cycles of a turn of a product's tile: one input channel. beside: `Rates.turn` and
    `Rates.loads`, or those by which a shape is chosen."""
    sums = max(shape.cycles(Kind.BLOCKED), rates().reads * sum(shape))
    return sums + beside[0] + beside[1] * shape.blocks


def read(weights: int, times: int = 1) -> float:
    """Cycles of bringing in so many bytes of weights, so many times in a layer."""
    near, far = rates().near, rates().far
    first = weights / (near if weights <= CACHED else far)
    return first + (times - 1) * weights / (near if weights <= SHARED else far)


class Work(NamedTuple):
    """A convolution by direct sums: its samples, blocks of channels and filters, outputs per axis,
    taps, threads; lanes: the channels of a block. What Winograd's algorithm costs is in
    `winograd_costs.py`."""

    batch: int
    blocks: int
    filter_blocks: int
    outputs: Triple
    taps: int
    parts: int
    lanes: int = LANES

    @property
    def terms(self) -> int:
        """Multiply-adds of 16 floats for a place."""
        return self.taps * self.blocks * self.lanes * self.filter_blocks

    @property
    def sums(self) -> float:
        """Cycles of all multiply-adds."""
        each = rates().planes if self.lanes == 1 else rates().direct
        return each * self.batch * prod(self.outputs) * self.terms / self.parts

    def direct(self, kind: Kind = Kind.BLOCKED) -> float:
        """Cycles of the direct sum: of floats, of pairs of bfloat16 (PAIRED), or with weights alone
        in it (HALVED), which both take half the room."""
        known, weights = rates(), read(4 * self.terms * LANES)
        if kind not in HALF:
            return self.sums + weights
        return (known.pairs if kind is Kind.PAIRED else known.halved) * self.sums + weights / 2

    def strassen(self) -> float:
        """Cycles of Strassen's algorithm: seven of eight products where places have their like, and
        7/4 of the weights, which come from far before they are asked for."""
        known, filters = rates().strassen, self.filter_blocks * LANES
        if known is None:
            return inf
        rows = next((n for n in self.outputs if n > 1), 1)
        alone = rows % 2 / rows
        beside = 1 + known.ends / (self.blocks * self.lanes) + known.made / filters
        sums = self.sums * (known.sums * (1 - alone) + alone) * beside
        weights = 4 * self.terms * LANES * (7 / 4 + (1 if alone else 0))
        return sums + weights / known.bytes + known.wait * (2 if alone else 1)
