"""The generator of matrix tiles: sums in AMX's registers, each 16 rows of 64 bytes.

    C[pixel][filter] += sum over 16 pairs p of A[pixel][p] . B[p][filter]        (tdpbf16ps)

A holds 32 channels of 16 pixels in bfloat16, B the weights of these channels for 16 filters, C the
sums in single precision. A tile is some As by some Bs; its sums go to scratch, where what comes
after sums is done (cpu/matrix.py). The registers' size is set once for many tiles (`configure`).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from netdsl.cpu.compiler import FLOATS, INTS
from netdsl.cpu.micro import vectors
from netdsl.cpu.micro.fields import TABLE, W_BLOCK, X_STEP
from netdsl.cpu.micro.registers import registers
from netdsl.cpu.micro.shapes import MATRICES, Kind, Tile
from netdsl.cpu.micro.vectors import LONG

BYTE = ir.IntType(8)
POINTER = BYTE.as_pointer()
ROW = 64
"""Bytes of a register's row."""
WEIGHTS = 16 * Kind.MATRIX.rows
"""Floats of a tap's weights for 16 filters, and of a register."""


def operate(builder: ir.IRBuilder, name: str, *args: Any) -> None:
    """One of AMX's instructions; whole numbers are registers."""
    values = [ir.Constant(BYTE, a) if isinstance(a, int) else a for a in args]
    kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), values)


class Writer(vectors.Writer):
    """Writes one tile's function: (arena, params, t, scratch, w, first, end, x of each A up to
    four). It adds up the taps from `first` to `end`, to what is in scratch where `first` is not 0.
    """

    def __init__(self, module: ir.Module, tile: Tile, name: str) -> None:
        super().__init__(module, name, 8)
        self.high, self.across = tile.shape
        self.registers = registers(tile.shape)
        self.scratch, self.w, self.first, self.end, *xs = self.places
        self.xs = [self.builder.gep(self.arena, [x]) for x in xs[: self.high]]
        self.write()

    def write(self) -> None:
        """Zeros or what there is, loop over the taps, store."""
        b, row = self.builder, ir.Constant(LONG, ROW)
        out, sums = b.gep(self.arena, [self.scratch]), range(self.high * self.across)
        places = [b.bitcast(b.gep(out, [ir.Constant(LONG, i * WEIGHTS)]), POINTER) for i in sums]
        with b.if_else(b.icmp_signed("==", self.first, ir.Constant(LONG, 0))) as (anew, again):
            with anew:
                for i in sums:
                    operate(b, "tilezero", i)
            with again:
                for i in sums:
                    operate(b, "tileloadd64", i, places[i], row)
        self.loop()
        for i in sums:
            operate(b, "tilestored64", i, places[i], row)
        b.ret_void()

    def loop(self) -> None:
        """Adds up the taps, one at least."""
        b = self.builder
        table = b.gep(self.t, [self.field(TABLE)])
        step, apart = self.times(self.field(X_STEP), 4), self.field(W_BLOCK)
        weights = b.gep(self.params, [self.w])
        before, loop, after = b.block, b.append_basic_block(), b.append_basic_block()
        b.branch(loop)
        b.position_at_end(loop)
        turn = b.phi(LONG)
        offset = b.load(b.gep(table, [turn]))
        here = b.gep(weights, [self.times(turn, WEIGHTS)])
        following = b.add(turn, ir.Constant(LONG, 1))
        # Weights lie in one run, which the CPU brings in by itself; rows of inputs do not. Past the
        # last tap this asks for some place or other, which does no harm.
        self.ask(b.load(b.gep(table, [following])), step)
        self.turn(
            [(b.gep(x, [offset]), step) for x in self.xs],
            [
                (b.gep(here, [self.times(apart, j)]), ir.Constant(LONG, ROW))
                for j in range(self.across)
            ],
        )
        again = b.cbranch(b.icmp_signed("<", following, self.end), loop, after)
        again.set_metadata("llvm.loop", self.not_unrolled())
        turn.add_incoming(self.first, before)
        turn.add_incoming(following, loop)
        b.position_at_end(after)

    def turn(self, inputs: list[Any], weights: list[Any]) -> None:
        """All products of a tap. Each of both sides is a place and the bytes from row to row; the
        fewer stay in registers while the others pass by."""
        x_at, w_at = self.registers
        by_input = len(inputs) <= len(weights)
        few, many = (inputs, weights) if by_input else (weights, inputs)
        stay, turns = (x_at, w_at) if by_input else (w_at, x_at)
        for register, one in zip(stay, few, strict=True):
            self.fetch(register, one)
        for j, other in enumerate(many):
            passing = turns[j % len(turns)]
            self.fetch(passing, other)
            for i, held in enumerate(stay):
                if by_input:
                    self.product(i * len(weights) + j, held, passing)
                else:
                    self.product(j * len(weights) + i, passing, held)

    def product(self, sums: int, inputs: int, weights: int) -> None:
        operate(self.builder, "tdpbf16ps", sums, inputs, weights)

    def ask(self, offset: ir.Value, step: ir.Value) -> None:
        """Asks for the rows of a tap's inputs, into the first cache."""
        b = self.builder
        for x in self.xs:
            at = b.bitcast(b.gep(x, [offset]), POINTER)
            for _ in range(16):
                vectors.ask(b, at, vectors.FIRST_LEVEL)
                at = b.gep(at, [step])

    def fetch(self, register: int, source: tuple[ir.Value, ir.Value]) -> None:
        place, step = source
        operate(self.builder, "tileloadd64", register, self.builder.bitcast(place, POINTER), step)


def name_of(tile: Tile) -> str:
    """What a tile's function is called in LLVM's module."""
    return f"netdsl.matrix{tile.shape.pixels}x{tile.shape.blocks}"


def tile_function(module: ir.Module, tile: Tile) -> ir.Function:
    """The function of one tile in this module, written when first asked for."""
    name = name_of(tile)
    return module.globals.get(name) or Writer(module, tile, name).function


@intrinsic
def run_matrix(
    typing: Any,
    number: Any,
    arena: Any,
    params: Any,
    t: Any,
    scratch: Any,
    w: Any,
    first: Any,
    end: Any,
    x0: Any,
    x1: Any,
    x2: Any,
    x3: Any,
) -> Any:
    """Runs a tile by its number among `MATRICES`; x0 to x3: where its As start, as many as it has.

    t: its part of the descriptor. scratch: where in the arena its sums go, [A][B][16 pixels][16
    filters]; w: the first block's weights in params; first, end: the taps that are added up.
    """

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        wanted, *rest = args
        functions = enumerate(tile_function(builder.module, tile) for tile in MATRICES)
        vectors.call_one(builder, wanted, functions, rest)
        return context.get_dummy_value()

    return types.void(types.int64, FLOATS, FLOATS, INTS, *[types.int64] * 8), lower


@intrinsic
def configure(typing: Any, params: Any, at: Any) -> Any:
    """Sets the registers' sizes to what 64 bytes say (cpu/matrix.py)."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        place = builder.bitcast(builder.gep(args[0], [args[1]]), POINTER)
        operate(builder, "ldtilecfg", place)
        return context.get_dummy_value()

    return types.void(FLOATS, types.int64), lower


@intrinsic
def release(typing: Any) -> Any:
    """Gives the registers back, so that the system need not keep them for this thread."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        operate(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), lower
