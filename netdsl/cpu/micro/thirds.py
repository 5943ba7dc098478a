"""The generator of tiles that sum floats in AMX's registers, each float as three of bfloat16.

A float has 24 binary digits and a bfloat16 eight, so a float is the sum of three, and a product of
floats that of nine products, of which the three smallest are less than what rounding loses:

    a = a0 + a1 + a2    b = b0 + b1 + b2    a b = a2 b0 + a1 b0 + a1 b1 + a0 b1 + a0 b2 + a0 b0

Products of bfloat16 are exact in single precision, and AMX makes 16 times as many of them as
there are multiply-adds of floats. A register holds one of the three parts of 32 channels, of 16
places or 16 filters; the three follow each other in memory.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from netdsl.cpu.compiler import FLOATS, INTS
from netdsl.cpu.intrinsics import INTS as LANES_OF_INTS
from netdsl.cpu.intrinsics import WIDTH, lanes, vector
from netdsl.cpu.micro import vectors
from netdsl.cpu.micro.matrix import POINTER, ROW, operate
from netdsl.cpu.micro.shapes import THIRDS, Shape
from netdsl.cpu.micro.vectors import LONG

REGISTER = 256
"""Floats that a register has the room of."""

ORDER = ((2, 0), (1, 0), (1, 1), (0, 1), (0, 2), (0, 0))
"""The parts of an input and a weight that are multiplied, one after the other. From one product to
the next a part stays, and the largest comes last."""


def split(builder: ir.IRBuilder, value: ir.Value) -> list[ir.Value]:
    """The three parts of each lane, each the upper half of 32 bits, as whole numbers: the first
    two rounded, halves up, so that what is left is as often above as below; the last is exact."""

    def each(number: int) -> ir.Constant:
        return ir.Constant(LANES_OF_INTS, [number] * WIDTH)

    found = []
    for _ in range(2):
        bits = builder.add(builder.bitcast(value, LANES_OF_INTS), each(0x8000))
        part = builder.and_(bits, each(-0x10000))
        value = builder.fsub(value, builder.bitcast(part, value.type))
        found.append(part)
    return [*found, builder.bitcast(value, LANES_OF_INTS)]


HALVES = ir.VectorType(ir.IntType(16), 2 * WIDTH)


def _keep(builder: ir.IRBuilder, place: ir.Value, parts: list[ir.Value]) -> None:
    """Writes a row of each of three registers that follow each other."""
    for i, part in enumerate(parts):
        far = builder.gep(place, [ir.Constant(LONG, i * REGISTER)])
        builder.store(part, builder.bitcast(far, part.type.as_pointer())).align = 4


@vector
def store_places(typing: Any, p: Any, i: Any, a: Any, b: Any) -> Any:
    """Writes the parts of 32 channels of a place from p[i] on: a row of each of three registers."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        upper = [ir.Constant(ir.IntType(32), 2 * lane + 1) for lane in range(2 * WIDTH)]
        mask = ir.Constant(ir.VectorType(ir.IntType(32), 2 * WIDTH), upper)
        pairs = zip(*(split(builder, value) for value in args[2:]), strict=True)
        parts = [
            builder.shuffle_vector(*(builder.bitcast(one, HALVES) for one in pair), mask)
            for pair in pairs
        ]
        _keep(builder, builder.gep(args[0], [args[1]]), parts)
        return context.get_dummy_value()

    return types.void(p, types.int64, lanes, lanes), lower


@vector
def store_filters(typing: Any, p: Any, i: Any, a: Any, b: Any) -> Any:
    """Writes the parts of two neighbouring channels' weights of 16 filters from p[i] on, those of a
    filter side by side: a row of each of three registers."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        by = ir.Constant(LANES_OF_INTS, [16] * WIDTH)
        above = ir.Constant(LANES_OF_INTS, [-0x10000] * WIDTH)
        first, second = (split(builder, value) for value in args[2:])
        parts = [
            builder.or_(builder.lshr(one, by), builder.and_(other, above))
            for one, other in zip(first, second, strict=True)
        ]
        _keep(builder, builder.gep(args[0], [args[1]]), parts)
        return context.get_dummy_value()

    return types.void(p, types.int64, lanes, lanes), lower


class Writer(vectors.Writer):
    """Writes one tile's function: (arena, params, t, x, x_step, w, w_step, turns, sums, again)."""

    def __init__(self, module: ir.Module, shape: Shape, name: str) -> None:
        super().__init__(module, name, 7)
        self.high, self.across = shape
        self.write()

    def write(self) -> None:
        """Zeros or sums from before, a loop over 32 channels at a time, one turn at least, and the
        sums stored."""
        b = self.builder
        x, x_step, w, w_step, turns, sums, again = self.places
        count = self.high * self.across
        kept = b.gep(self.arena, [sums])
        with b.if_else(b.icmp_signed("==", again, ir.Constant(LONG, 0))) as (first, later):
            with first:
                for i in range(count):
                    operate(b, "tilezero", i)
            with later:
                for i in range(count):
                    self.move("tileloadd64", i, kept, i)
        inputs, weights = b.gep(self.arena, [x]), b.gep(self.params, [w])
        before, loop, after = b.block, b.append_basic_block(), b.append_basic_block()
        b.branch(loop)
        b.position_at_end(loop)
        turn = b.phi(LONG)
        far = self.times(turn, 3 * REGISTER)
        self.turn(
            [b.gep(inputs, [b.add(far, self.times(x_step, i))]) for i in range(self.high)],
            [b.gep(weights, [b.add(far, self.times(w_step, j))]) for j in range(self.across)],
        )
        following = b.add(turn, ir.Constant(LONG, 1))
        onward = b.cbranch(b.icmp_signed("<", following, turns), loop, after)
        onward.set_metadata("llvm.loop", self.not_unrolled())
        turn.add_incoming(ir.Constant(LONG, 0), before)
        turn.add_incoming(following, loop)
        b.position_at_end(after)
        for i in range(count):
            self.move("tilestored64", i, kept, i)
        b.ret_void()

    def turn(self, inputs: list[ir.Value], weights: list[ir.Value]) -> None:
        """All products of 32 channels, those of a sum some products apart."""
        first = self.high * self.across
        held: dict[int, tuple[int, int]] = {}

        def fetched(register: int, place: ir.Value, part: int) -> int:
            if held.get(register) != (register, part):
                self.move("tileloadd64", register, place, part)
                held[register] = (register, part)
            return register

        for one, other in ORDER:
            for i, x in enumerate(inputs):
                at = fetched(first + i, x, one)
                for j, w in enumerate(weights):
                    to = fetched(first + self.high + j, w, other)
                    operate(self.builder, "tdpbf16ps", i * self.across + j, at, to)

    def move(self, how: str, register: int, place: ir.Value, far: int) -> None:
        """A register from memory, or into it; far: registers from a place on."""
        b = self.builder
        at = b.bitcast(b.gep(place, [ir.Constant(LONG, far * REGISTER)]), POINTER)
        operate(b, how, register, at, ir.Constant(LONG, ROW))


def name_of(shape: Shape) -> str:
    """What a tile's function is called in LLVM's module."""
    return f"netdsl.thirds{shape.pixels}x{shape.blocks}"


def tile_function(module: ir.Module, shape: Shape) -> ir.Function:
    """The function of one tile in this module, written when first asked for."""
    name = name_of(shape)
    return module.globals.get(name) or Writer(module, shape, name).function


@intrinsic
def run_thirds(
    typing: Any,
    high: Any,
    across: Any,
    arena: Any,
    params: Any,
    t: Any,
    x: Any,
    x_step: Any,
    w: Any,
    w_step: Any,
    turns: Any,
    sums: Any,
    again: Any,
) -> Any:
    """Runs the tile of so many sixteens of places by so many blocks of filters.

    x, w: where its inputs lie in the arena and its weights in params, [32 channels][part][row], and
    the floats from one sixteen or block to the next; turns: how many 32 channels; sums: where in
    the arena they go, [sixteen][block][16 places][16 filters]; again: whether
    they are added to what is there.
    """

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        high, across, *rest = args
        after = builder.append_basic_block("summed")
        number = builder.add(builder.mul(high, ir.Constant(LONG, 2)), across)
        chosen = builder.switch(number, after)
        for shape in THIRDS:
            way = builder.append_basic_block()
            chosen.add_case(ir.Constant(LONG, 2 * shape.pixels + shape.blocks), way)
            with builder.goto_block(way):
                builder.call(tile_function(builder.module, shape), rest)
                builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 2, FLOATS, FLOATS, INTS, *[types.int64] * 7), lower
