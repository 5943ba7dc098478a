"""The generator of tiles: a sum over taps, for some pixels and filters at once, in registers.

    y[pixel][filter] = clamp(start + sum over taps t and lanes l of x[pixel][t, l] w[t, l][filter])

A tile is `pixels` places of a row times `blocks` blocks of 16 filters. Where each tap's 16 input
channels lie, relative to the tile's first pixel, is read from a table, so a convolution of any
rank, kernel, dilation and grouping, a phase of a transposed one, a product of matrices and a
fully connected layer are the same code with another table.

What a tile reads besides its arguments stands in the descriptor, from `t` on (`fields.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from netdsl.cpu.compiler import FLOATS, INTS
from netdsl.cpu.micro import tight, vectors
from netdsl.cpu.micro.fields import (
    ADD_RESIDUAL,
    FROM_BIAS,
    HIGH,
    LOW,
    R_BLOCK,
    R_STEP,
    START,
    TABLE,
    TURNS,
    W_BLOCK,
    X_STEP,
    Y_BLOCK,
    Y_STEP,
)
from netdsl.cpu.micro.shapes import SCALED, SHORT, Kind, Tile, asks, code, tiles
from netdsl.cpu.micro.turn import Loop, written_out
from netdsl.cpu.micro.vectors import FIRST_LEVEL, FLOAT, INT, LANES, LONG, SECOND_LEVEL, ask

VECTOR = ir.VectorType(FLOAT, LANES)
Values = list[ir.Value]
Sums = list[Values]


class Writer(vectors.Writer):
    """Writes one tile's function."""

    arguments = 5
    """The places that it is told."""

    def __init__(self, module: ir.Module, tile: Tile, name: str) -> None:
        self.tile, (self.shape, self.kind) = tile, tile
        super().__init__(module, name, self.arguments)
        self.x, self.w, self.y, self.bias, self.residual = self.places[:5]
        self.x_step, self.across = self.field(X_STEP), self.field(W_BLOCK)
        self.xs = self.builder.gep(self.arena, [self.x])
        self.table = self.builder.gep(self.t, [self.field(TABLE)])
        self.write()

    def write(self) -> None:
        """Start, loop over the taps, clamp, store."""
        start = self.field(START)
        if ends_asked_for(self.tile):
            self.ask_for_ends(start)
        sums = self.grid(ir.Constant(VECTOR, [0.0] * LANES))
        sums = self.either(start, FROM_BIAS, self.biases, sums)
        sums = self.reduce(sums, self.field(TURNS), self.builder.gep(self.params, [self.w]))
        sums = self.either(start, ADD_RESIDUAL, self.with_residual, sums)
        low, high = self.bound(LOW), self.bound(HIGH)
        self.store([[self.clamped(value, low, high) for value in row] for row in sums])
        self.builder.ret_void()

    def store(self, sums: Sums) -> None:
        """What the tile gives."""
        for row, places in zip(sums, self.outputs(), strict=True):
            for value, place in zip(row, places, strict=True):
                self.builder.store(value, place).align = 4

    def outputs(self) -> Iterator[Values]:
        """Where they go, block by block."""
        return self.vectors(self.y, self.field(Y_STEP), self.field(Y_BLOCK))

    def residuals(self) -> Iterator[Values]:
        """Where what is added to them lies."""
        return self.vectors(self.residual, self.field(R_STEP), self.field(R_BLOCK))

    def vectors(self, first: ir.Value, step: ir.Value, across: ir.Value) -> Iterator[Values]:
        """The places of all pixels' vectors, block by block. Fields are read before anything is
        stored, after which LLVM would have to read them again."""
        for block in range(self.shape.blocks):
            base = self.builder.add(first, self.times(across, block))
            pixels = range(self.shape.pixels)
            yield [self.vector(self.arena, base, self.times(step, pixel)) for pixel in pixels]

    def ask_for_ends(self, start: ir.Value) -> None:
        """Asks for what the tile's end adds and for the places it writes, which the sums give time
        to come from memory."""
        more = self.builder.and_(start, ir.Constant(LONG, ADD_RESIDUAL))
        with self.builder.if_then(self.builder.icmp_signed("!=", more, ir.Constant(LONG, 0))):
            self.ask_for(self.residuals())
        self.ask_for(self.outputs())

    def ask_for(self, rows: Iterator[Values]) -> None:
        for row in rows:
            for place in row:
                ask(self.builder, place, FIRST_LEVEL)

    def begin(self, turn: ir.Value, across: ir.Value) -> None:
        """What a turn of the loop does first."""

    def grid(self, value: ir.Value) -> Sums:
        return [[value] * self.shape.pixels for _ in range(self.shape.blocks)]

    def either(self, mode: ir.Value, bit: int, change: Any, before: Sums) -> Sums:
        """The sums as `change` makes them where the mode has the bit, else as before."""
        b = self.builder
        here = b.block
        yes, after = b.append_basic_block(), b.append_basic_block()
        asked = b.icmp_signed("!=", b.and_(mode, ir.Constant(LONG, bit)), ir.Constant(LONG, 0))
        b.cbranch(asked, yes, after)
        b.position_at_end(yes)
        changed = change(before)
        b.branch(after)
        b.position_at_end(after)
        return [
            [self.merge((old, here), (new, yes)) for old, new in zip(*rows, strict=True)]
            for rows in zip(before, changed, strict=True)
        ]

    def merge(self, *ways: tuple[ir.Value, ir.Block]) -> ir.Value:
        phi = self.builder.phi(VECTOR)
        for value, block in ways:
            phi.add_incoming(value, block)
        return phi

    def biases(self, sums: Sums) -> Sums:
        loaded = []
        for block in range(self.shape.blocks):
            at = self.vector(self.params, self.bias, ir.Constant(LONG, block * LANES))
            loaded.append([self.load(at)] * self.shape.pixels)
        return loaded

    def with_residual(self, sums: Sums) -> Sums:
        return [
            [self.builder.fadd(v, self.load(p)) for v, p in zip(row, places, strict=True)]
            for row, places in zip(sums, self.residuals(), strict=True)
        ]

    def reduce(self, sums: Sums, turns: ir.Value, weights: ir.Value) -> Sums:
        """The sums over the first taps of the table: so many turns, with weights from there on."""
        b, zero = self.builder, ir.Constant(LONG, 0)
        before, some, after = b.block, b.append_basic_block(), b.append_basic_block()
        b.cbranch(b.icmp_signed(">", turns, zero), some, after)
        b.position_at_end(some)
        if self.kind.scales:
            found = self.parts(sums, weights, turns)
        elif written_out(self.tile):
            found = self.written(sums, weights, turns)
        else:
            found = self.loop(sums, weights, zero, turns)
        last = b.block
        b.branch(after)
        b.position_at_end(after)
        return [
            [self.merge((v, before), (u, last)) for v, u in zip(*rows, strict=True)]
            for rows in zip(sums, found, strict=True)
        ]

    def written(self, sums: Sums, weights: ir.Value, turns: ir.Value) -> Sums:
        """The sums after these turns, one at least, in instructions that are not LLVM's choice."""
        loop = Loop(
            self.builder,
            self.tile,
            lambda turn: self.begin(turn, self.across),
            self.source,
            self.table,
            weights,
            self.across,
            self.not_unrolled(),
        )
        found = loop.write([value for column in zip(*sums, strict=True) for value in column], turns)
        return [found[block :: self.shape.blocks] for block in range(self.shape.blocks)]

    def source(self, far: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Where the first pixel of a tap lies that the table says to be so far, and the floats to
        the next."""
        return self.builder.gep(self.xs, [far]), self.x_step

    def loop(self, sums: Sums, weights: ir.Value, first: ir.Value, end: ir.Value) -> Sums:
        """The sums after these turns, one at least: some of a tap's rows of weights a turn."""
        b, unroll = self.builder, self.kind.unroll
        per_tap = self.kind.rows // unroll
        before, loop, after = b.block, b.append_basic_block(), b.append_basic_block()
        b.branch(loop)
        b.position_at_end(loop)
        turn = b.phi(LONG)
        phis = [[b.phi(VECTOR) for _ in row] for row in sums]
        tap = b.lshr(turn, ir.Constant(LONG, per_tap.bit_length() - 1))
        offset = b.load(b.gep(self.table, [tap]))
        if per_tap > 1:
            part = b.and_(turn, ir.Constant(LONG, per_tap - 1))
            offset = b.add(offset, self.times(part, self.reach))
        pixels = [
            b.gep(b.gep(self.xs, [self.times(self.x_step, p)]), [offset])
            for p in range(self.shape.pixels)
        ]
        here = b.gep(weights, [self.times(turn, unroll * LANES)])
        self.begin(turn, self.across)
        values = [list(row) for row in phis]
        if self.kind is Kind.TIGHT:
            values = self.eight(values, pixels, here)
        else:
            for i in range(unroll):
                values = self.step(values, pixels, here, i)
        last, following = b.block, b.add(turn, ir.Constant(LONG, 1))
        again = b.cbranch(b.icmp_signed("<", following, end), loop, after)
        again.set_metadata("llvm.loop", self.not_unrolled())
        turn.add_incoming(first, before)
        turn.add_incoming(following, last)
        join(phis, sums, before, values, last)
        b.position_at_end(after)
        return values

    def parts(self, sums: Sums, weights: ir.Value, turns: ir.Value) -> Sums:
        """The same part by part, each scaled when it is done by what stands before its weights."""
        b, each = self.builder, ir.Constant(LONG, SCALED // self.reach)
        before, loop, after = b.block, b.append_basic_block(), b.append_basic_block()
        b.branch(loop)
        b.position_at_end(loop)
        part, phis = b.phi(LONG), [[b.phi(VECTOR) for _ in row] for row in sums]
        first = b.mul(part, each)
        following = b.add(first, each)
        end = b.select(b.icmp_signed("<", following, turns), following, turns)
        # Before a part stand as many scales as parts, its own the last of them.
        base = b.gep(weights, [self.times(part, self.kind.scales)])
        scales = b.gep(base, [self.times(first, LANES)])
        behind = b.gep(base, [ir.Constant(LONG, self.kind.scales)])
        zeros = self.grid(ir.Constant(VECTOR, [0.0] * LANES))
        found = self.loop(zeros, behind, first, end)
        totals = []
        for i, (row, values) in enumerate(zip(phis, found, strict=True)):
            scale = self.load(self.vector(scales, self.times(self.across, i)))
            totals.append([b.fadd(v, b.fmul(u, scale)) for v, u in zip(row, values, strict=True)])
        part.add_incoming(ir.Constant(LONG, 0), before)
        part.add_incoming(b.add(part, ir.Constant(LONG, 1)), b.block)
        join(phis, sums, before, totals, b.block)
        again = b.cbranch(b.icmp_signed("<", following, turns), loop, after)
        again.set_metadata("llvm.loop", self.not_unrolled())
        b.position_at_end(after)
        return totals

    def step(self, values: Sums, pixels: Values, weights: ir.Value, row: int) -> Sums:
        """The share of every sum that a row of weights has."""
        b = self.builder
        rows = [
            self.vector(weights, self.times(self.across, i), ir.Constant(LONG, row * LANES))
            for i in range(self.shape.blocks)
        ]
        if self.kind is not Kind.BYTES:  # which are loaded channel by channel
            rows = [self.load(place) for place in rows]
        result = [list(sums) for sums in values]
        for k in range(self.width):
            factors = [self.factor(found, k) for found in rows]
            at = ir.Constant(LONG, row * self.width + k)
            for p, place in enumerate(pixels):
                channels = self.channels(b.gep(place, [at]))
                for i, factor in enumerate(factors):
                    result[i][p] = self.muladd(channels, factor, result[i][p])
        return result

    def eight(self, values: Sums, pixels: Values, weights: ir.Value) -> Sums:
        """The share of every sum that eight channels have, whose weights are tight: in a loop over
        seven rows, in whose registers only what was gathered of the eighth is kept besides."""
        b, whole = self.builder, ir.VectorType(INT, LANES)
        scale = self.spread(b.load(b.gep(self.params, [self.bias])))
        before, loop, after = b.block, b.append_basic_block(), b.append_basic_block()
        b.branch(loop)
        b.position_at_end(loop)
        k, phis = b.phi(LONG), [[b.phi(VECTOR) for _ in row] for row in values]
        bits = [b.phi(whole) for _ in values]
        here = b.gep(weights, [self.times(k, LANES)])
        places = [self.vector(here, self.times(self.across, i)) for i in range(self.shape.blocks)]
        rows = [b.bitcast(self.load(place), whole) for place in places]
        for place in places:
            ask(b, b.gep(place, [ir.Constant(LONG, tight.AHEAD)]), SECOND_LEVEL)
        factors = [b.fmul(tight.own(b, row), scale) for row in rows]
        found = self.times_channel(phis, pixels, k, factors)
        gathered = [tight.gathered(b, old, row) for old, row in zip(bits, rows, strict=True)]
        following = b.add(k, ir.Constant(LONG, 1))
        again = b.icmp_signed("<", following, ir.Constant(LONG, tight.SEVEN))
        b.cbranch(again, loop, after).set_metadata("llvm.loop", self.not_unrolled())
        k.add_incoming(ir.Constant(LONG, 0), before)
        k.add_incoming(following, loop)
        for phi, new in zip(bits, gathered, strict=True):
            phi.add_incoming(ir.Constant(whole, [0] * LANES), before)
            phi.add_incoming(new, loop)
        join(phis, values, before, found, loop)
        b.position_at_end(after)
        factors = [b.fmul(tight.eighth(b, kept), scale) for kept in gathered]
        return self.times_channel(found, pixels, ir.Constant(LONG, tight.SEVEN), factors)

    def times_channel(self, values: Sums, pixels: Values, k: ir.Value, factors: Values) -> Sums:
        """The share of every sum that the k-th channel has, with these weights."""
        result = [list(sums) for sums in values]
        for p, place in enumerate(pixels):
            channels = self.channels(self.builder.gep(place, [k]))
            for i, factor in enumerate(factors):
                result[i][p] = self.muladd(channels, factor, result[i][p])
        return result

    @property
    def reach(self) -> int:
        """Floats of an input that a turn of the loop is for."""
        return tight.EIGHT if self.kind is Kind.TIGHT else self.kind.unroll * self.width

    @property
    def width(self) -> int:
        """Floats of an input that a row of weights is for."""
        return {Kind.HALVED: 2, Kind.BYTES: 4}.get(self.kind, 1)

    def factor(self, row: ir.Value, k: int) -> ir.Value:
        """What a row of weights holds for the k-th of these floats."""
        if self.kind is Kind.BYTES:
            return self.byte(row, k)
        return self.half(row, k) if self.kind is Kind.HALVED else row

    def half(self, pairs: ir.Value, k: int) -> ir.Value:
        """The first or the second of each pair of bfloat16, exactly, as floats."""
        b, whole = self.builder, ir.VectorType(INT, LANES)
        bits = b.bitcast(pairs, whole)
        if k == 0:
            bits = b.shl(bits, ir.Constant(whole, [16] * LANES))
        else:
            bits = b.and_(bits, ir.Constant(whole, [-1 << 16] * LANES))
        return b.bitcast(bits, VECTOR)

    def byte(self, place: ir.Value, k: int) -> ir.Value:
        """The k-th 16 bytes from a place on, exactly, as floats."""
        b, few = self.builder, ir.VectorType(ir.IntType(8), LANES)
        at = b.gep(b.bitcast(place, few.as_pointer()), [ir.Constant(LONG, k)])
        whole = b.sext(b.load(at, align=1), ir.VectorType(INT, LANES))
        return b.sitofp(whole, VECTOR)

    def channels(self, place: ir.Value) -> ir.Value:
        """What all filters are multiplied with: one channel for all, or a channel for each."""
        if self.kind is Kind.DEPTHWISE:
            return self.load(self.vector(place))
        return self.spread(self.builder.load(place))

    def muladd(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a b + c, in every lane; of pairs the sum of both products."""
        if self.kind in (Kind.PAIRED, Kind.PLANAR_PAIR):
            return self.dot(a, b, c)
        return super().muladd(a, b, c)

    def dot(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """c and the two products of each pair of bfloat16, summed in single precision."""
        whole = ir.VectorType(INT, LANES)
        kind = ir.FunctionType(VECTOR, [VECTOR, whole, whole])
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        pairs = [self.builder.bitcast(value, whole) for value in (b, a)]
        return self.builder.call(function, [c, *pairs])


def ends_asked_for(tile: Tile) -> bool:
    """Whether a tile asks for what its end reads and writes: where LLVM does not take the sums out
    of registers for it."""
    planar = tile.kind is Kind.PLANAR and tile.shape.pixels > 2
    return asks() and (planar or written_out(tile))


def name_of(tile: Tile) -> str:
    """What a tile's function is called in LLVM's module."""
    return f"netdsl.{tile.kind.name.lower()}{tile.shape.pixels}x{tile.shape.blocks}"


def tile_function(module: ir.Module, tile: Tile) -> ir.Function:
    """The function of one tile in this module, written when first asked for."""
    name = name_of(tile)
    return module.globals.get(name) or Writer(module, tile, name).function


def runner(write: Callable[[ir.Module, Tile], ir.Function], *kinds: Kind) -> Any:
    """What runs a tile of these kinds by its number; write: gives its function in a module."""

    def typed(
        typing: Any,
        number: Any,
        arena: Any,
        params: Any,
        t: Any,
        x: Any,
        w: Any,
        y: Any,
        bias: Any,
        residual: Any,
    ) -> Any:
        def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            call_one(builder, write, [tile for tile in tiles() if tile.kind in kinds], *args)
            return context.get_dummy_value()

        return types.void(types.int64, FLOATS, FLOATS, INTS, *[types.int64] * 5), lower

    return typed


def join(phis: Sums, sums: Sums, before: ir.Block, values: Sums, last: ir.Block) -> None:
    """Gives a loop's sums what they are when it starts, and what they are after a turn."""
    for row, start, new in zip(phis, sums, values, strict=True):
        for phi, v, u in zip(row, start, new, strict=True):
            phi.add_incoming(v, before)
            phi.add_incoming(u, last)


def call_one(
    builder: ir.IRBuilder,
    write: Callable[[ir.Module, Tile], ir.Function],
    some: Iterable[Tile],
    wanted: ir.Value,
    *rest: ir.Value,
) -> None:
    """Calls the function of one of some tiles, the one with the number wanted."""
    functions = ((code(tile), write(builder.module, tile)) for tile in some)
    vectors.call_one(builder, wanted, functions, rest)


run_tile = intrinsic(runner(tile_function, Kind.BLOCKED, Kind.PLANAR, Kind.DEPTHWISE))
"""run_tile(number, arena, params, t, x, w, y, bias, residual) runs a tile by its number (`code`).

t: its part of the descriptor. x, y, residual: where the first pixel's input, output and residual
lie in the arena; w, bias: the first block's weights and biases in params.
"""
run_short = intrinsic(runner(tile_function, *SHORT))
"""The same for the kinds with weights of fewer bits than a float has."""
run_tight = intrinsic(runner(tile_function, Kind.TIGHT))
"""The same for weights that have all of theirs; bias: where they have their scale."""


@intrinsic
def past(typing: Any, numbers: Any, count: Any) -> Any:
    """A pointer to what comes `count` int64 later."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.gep(args[0], [args[1]])

    return INTS(INTS, types.int64), lower


@intrinsic
def prefetch(typing: Any, floats: Any, at: Any) -> Any:
    """Asks for the cache line of a float, into the second-level cache."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        ask(builder, builder.gep(args[0], [args[1]]), SECOND_LEVEL)
        return context.get_dummy_value()

    return types.void(FLOATS, types.int64), lower
