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
from netdsl.cpu.micro.shapes import FORMINGS, THIRDS, Forming, Shape
from netdsl.cpu.micro.vectors import LANES, LONG

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


Row = tuple[ir.Value, ir.Value, ir.Value]
"""Where two blocks of channels of a place are, and where their parts go."""

HALVES = ir.VectorType(ir.IntType(16), 2 * WIDTH)


def _keep(builder: ir.IRBuilder, place: ir.Value, parts: list[ir.Value]) -> None:
    """Writes a row of each of three registers that follow each other."""
    for i, part in enumerate(parts):
        far = builder.gep(place, [ir.Constant(LONG, i * REGISTER)])
        builder.store(part, builder.bitcast(far, part.type.as_pointer())).align = 4


def places(builder: ir.IRBuilder, first: ir.Value, second: ir.Value) -> list[ir.Value]:
    """A row of each of three registers: the parts of 32 channels of a place."""
    upper = [ir.Constant(ir.IntType(32), 2 * lane + 1) for lane in range(2 * WIDTH)]
    mask = ir.Constant(ir.VectorType(ir.IntType(32), 2 * WIDTH), upper)
    pairs = zip(split(builder, first), split(builder, second), strict=True)
    return [
        builder.shuffle_vector(*(builder.bitcast(one, HALVES) for one in pair), mask)
        for pair in pairs
    ]


@vector
def store_places(typing: Any, p: Any, i: Any, a: Any, b: Any) -> Any:
    """Writes the parts of 32 channels of a place from p[i] on: a row of each of three registers."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        _keep(builder, builder.gep(args[0], [args[1]]), places(builder, *args[2:]))
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
    """Writes one tile's function: (arena, params, t, x, x_step, w, w_step, turns, sums, along,
    down, again), and for one that forms parts of other inputs (low, up, target)."""

    def __init__(
        self, module: ir.Module, shape: Shape, name: str, forming: Forming | None = None
    ) -> None:
        super().__init__(module, name, 9 if forming is None else 12)
        (self.high, self.across), self.forming = shape, forming
        self.write()

    def write(self) -> None:
        """Zeros or sums from before, a loop over 32 channels at a time, one turn at least, and the
        sums stored."""
        b = self.builder
        x, x_step, w, w_step, turns, sums, along, down, again, *self.formed = self.places
        count = self.high * self.across
        first = b.gep(self.arena, [sums])
        kept = [
            b.gep(first, [b.add(self.times(along, i), self.times(down, j))])
            for i in range(self.high)
            for j in range(self.across)
        ]
        with b.if_else(b.icmp_signed("==", again, ir.Constant(LONG, 0))) as (fresh, later):
            with fresh:
                for i in range(count):
                    operate(b, "tilezero", i)
            with later:
                for i, place in enumerate(kept):
                    self.move("tileloadd64", i, place, 0)
        inputs, weights = b.gep(self.arena, [x]), b.gep(self.params, [w])
        before, loop, after = b.block, b.append_basic_block(), b.append_basic_block()
        b.branch(loop)
        b.position_at_end(loop)
        turn = b.phi(LONG)
        far = self.times(turn, 3 * REGISTER)
        rows = self.form(turn)
        self.turn(
            [b.gep(inputs, [b.add(far, self.times(x_step, i))]) for i in range(self.high)],
            [b.gep(weights, [b.add(far, self.times(w_step, j))]) for j in range(self.across)],
            rows,
        )
        following = b.add(turn, ir.Constant(LONG, 1))
        onward = b.cbranch(b.icmp_signed("<", following, turns), loop, after)
        onward.set_metadata("llvm.loop", self.not_unrolled())
        turn.add_incoming(ir.Constant(LONG, 0), before)
        turn.add_incoming(following, loop)
        b.position_at_end(after)
        for i, place in enumerate(kept):
            self.move("tilestored64", i, place, 0)
        b.ret_void()

    def turn(self, inputs: list[ir.Value], weights: list[ir.Value], rows: list[Row]) -> None:
        """All products of 32 channels, those of a sum some products apart. Rows are formed between
        them, for a core does not look so far ahead that it would form them meanwhile by itself."""
        first = self.high * self.across
        count, done = len(ORDER) * first, 0
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
                    before, done = done, done + len(rows)
                    for row in rows[before // count : done // count]:
                        self.write_row(*row)

    def form(self, turn: ir.Value) -> list[Row]:
        """Where each row that a turn forms has its two blocks of channels, and where it goes."""
        if self.forming is None:
            return []
        b, (low, up, target) = self.builder, self.formed
        begin = self.times(turn, LANES * self.forming.rows)
        source, made = (b.gep(self.arena, [b.add(at, begin)]) for at in (low, target))
        found = []
        for i in range(self.forming.turns):
            first = b.gep(source, [self.times(up, 2 * i)])
            for row in range(self.forming.rows):
                at = b.gep(first, [ir.Constant(LONG, LANES * row)])
                to = b.gep(made, [ir.Constant(LONG, 3 * REGISTER * i + LANES * row)])
                found.append((at, b.gep(at, [up]), to))
        return found

    def write_row(self, first: ir.Value, second: ir.Value, target: ir.Value) -> None:
        values = [self.load(self.vector(place)) for place in (first, second)]
        _keep(self.builder, target, places(self.builder, *values))

    def move(self, how: str, register: int, place: ir.Value, far: int) -> None:
        """A register from memory, or into it; far: registers from a place on."""
        b = self.builder
        at = b.bitcast(b.gep(place, [ir.Constant(LONG, far * REGISTER)]), POINTER)
        operate(b, how, register, at, ir.Constant(LONG, ROW))


def name_of(shape: Shape, forming: Forming | None = None) -> str:
    """What a tile's function is called in LLVM's module."""
    more = f"forming{forming.rows}x{forming.turns}" if forming else ""
    return f"netdsl.thirds{shape.pixels}x{shape.blocks}{more}"


def tile_function(module: ir.Module, shape: Shape, forming: Forming | None = None) -> ir.Function:
    """The function of one tile in this module, written when first asked for."""
    name = name_of(shape, forming)
    return module.globals.get(name) or Writer(module, shape, name, forming).function


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
    along: Any,
    down: Any,
    again: Any,
) -> Any:
    """Runs the tile of so many sixteens of places by so many blocks of filters.

    x, w: where its inputs lie in the arena and its weights in params, [32 channels][part][row], and
    the floats from one sixteen or block to the next; turns: how many 32 channels; sums: where in
    the arena they go, of 16 places by 16 filters each; along, down: floats from one sixteen's to
    the next's, and from one block's; again: whether they are added to what is there.
    """

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        high, across, *rest = args
        number = builder.add(builder.mul(high, ir.Constant(LONG, 2)), across)
        functions = (
            (2 * shape.pixels + shape.blocks, tile_function(builder.module, shape))
            for shape in THIRDS
        )
        vectors.call_one(builder, number, functions, rest)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 2, FLOATS, FLOATS, INTS, *[types.int64] * 9), lower


@intrinsic
def run_thirds_forming(
    typing: Any,
    number: Any,
    arena: Any,
    params: Any,
    t: Any,
    x: Any,
    x_step: Any,
    w: Any,
    w_step: Any,
    turns: Any,
    sums: Any,
    along: Any,
    down: Any,
    again: Any,
    low: Any,
    up: Any,
    target: Any,
) -> Any:
    """The same of two sixteens by two blocks, which also forms the parts of other inputs, as many
    as `FORMINGS` says by this number.

    low: where the first of their turns has its first block of channels; up: floats to its second,
    and from there to the next turn's first; target: where the parts go.
    """

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        number, *rest = args
        module, shape = builder.module, Shape(2, 2)
        functions = enumerate(tile_function(module, shape, forming) for forming in FORMINGS)
        vectors.call_one(builder, number, functions, rest)
        return context.get_dummy_value()

    return types.void(types.int64, FLOATS, FLOATS, INTS, *[types.int64] * 12), lower
