"""The generator of rows: depthwise convolutions along a row, in LLVM's language.

A function computes a whole row of outputs of 16 channels. It goes along the row tile by tile, some
pixels at once, and for each tile down the rows of the kernel, whose taps share their inputs: each
is loaded once. Where a register holds 8 floats, it does the lower 8 channels of all tiles first,
then the upper, so that more pixels fit. The last tile overlaps the one before if need be.

Which ways there are, and what a function reads in the descriptor, says `row_shapes.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from netdsl.cpu.compiler import FLOATS, INTS
from netdsl.cpu.micro import vectors
from netdsl.cpu.micro.row_shapes import HIGH, LOW, TABLE, TURNS, WIDTH, Row, rows
from netdsl.cpu.micro.vectors import LANES, LONG


class Writer(vectors.Writer):
    """Writes the function of a way."""

    def __init__(self, module: ir.Module, row: Row) -> None:
        super().__init__(module, name_of(row), 4, row.lanes)
        self.row = row
        self.x, self.w, self.y, self.bias = self.places
        self.turns, self.width = self.field(TURNS), self.field(WIDTH)
        self.table = self.builder.gep(self.t, [self.field(TABLE)])
        self.low, self.high = self.bound(LOW), self.bound(HIGH)
        self.loop(ir.Constant(LONG, LANES), row.lanes, self.along)
        self.builder.ret_void()

    def loop(self, end: ir.Value, step: int, body: Callable[[ir.Value], None]) -> None:
        """`body` for 0, step and so on, below `end`; at least for 0."""
        b = self.builder
        before, inside, after = b.block, b.append_basic_block(), b.append_basic_block()
        b.branch(inside)
        b.position_at_end(inside)
        at = b.phi(LONG)
        body(at)
        following = b.add(at, ir.Constant(LONG, step))
        at.add_incoming(ir.Constant(LONG, 0), before)
        at.add_incoming(following, b.block)
        again = b.cbranch(b.icmp_signed("<", following, end), inside, after)
        again.set_metadata("llvm.loop", self.not_unrolled())
        b.position_at_end(after)

    def along(self, lane: ir.Value) -> None:
        """All tiles of a row, for the channels from `lane` on."""
        b, pixels = self.builder, self.row.pixels
        bias = self.load(self.vector(self.params, self.bias, lane))
        weights = b.gep(b.gep(self.params, [self.w]), [lane])
        source, target = (b.gep(b.gep(self.arena, [at]), [lane]) for at in (self.x, self.y))
        last = b.sub(self.width, ir.Constant(LONG, pixels))

        def tile(at: ir.Value) -> None:
            first = b.select(b.icmp_signed("<", at, last), at, last)
            inputs = b.gep(source, [self.times(first, LANES * self.row.stride)])
            sums = self.down(inputs, weights, [bias] * pixels)
            outputs = b.gep(target, [self.times(first, LANES)])
            for pixel, value in enumerate(sums):
                place = self.vector(outputs, ir.Constant(LONG, pixel * LANES))
                b.store(self.clamped(value, self.low, self.high), place).align = 4

        self.loop(self.width, pixels, tile)

    def down(self, inputs: ir.Value, weights: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        """The sums over all rows of the kernel."""
        b = self.builder
        before = b.block
        phis: list[ir.Value] = []
        values: list[ir.Value] = []

        def row(turn: ir.Value) -> None:
            phis.extend(b.phi(self.type) for _ in sums)
            place = b.gep(inputs, [b.load(b.gep(self.table, [turn]))])
            taps = b.gep(weights, [self.times(turn, self.row.kernel * LANES)])
            values.extend(self.step(phis, place, taps))

        self.loop(self.turns, 1, row)
        for phi, start, end in zip(phis, sums, values, strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(end, phi.parent)
        return values

    def step(self, before: list[ir.Value], inputs: ir.Value, weights: ir.Value) -> list[ir.Value]:
        """The share of every sum that the taps of one row have, each input loaded once."""
        sums, stride = list(before), self.row.stride
        taps = [self.nth(weights, k) for k in range(self.row.kernel)]
        for j in range((len(sums) - 1) * stride + len(taps)):
            found = self.nth(inputs, j)
            for k, tap in enumerate(taps):
                pixel, apart = divmod(j - k, stride)
                if apart == 0 and 0 <= pixel < len(sums):
                    sums[pixel] = self.muladd(found, tap, sums[pixel])
        return sums

    def nth(self, first: ir.Value, n: int) -> ir.Value:
        """The vector of the n-th pixel or tap."""
        return self.load(self.vector(first, ir.Constant(LONG, n * LANES)))


def name_of(row: Row) -> str:
    """What the function of a way is called in LLVM's module."""
    return f"netdsl.row{row.pixels}of{row.kernel}by{row.stride}"


def row_function(module: ir.Module, row: Row) -> ir.Function:
    """The function of a way in this module, written when first asked for."""
    return module.globals.get(name_of(row)) or Writer(module, row).function


@intrinsic
def run_row(
    typing: Any, way: Any, arena: Any, params: Any, t: Any, x: Any, w: Any, y: Any, bias: Any
) -> Any:
    """run_row(way, arena, params, t, x, w, y, bias) computes a row, by the number of its way.

    t: its part of the descriptor. x, y: where the first output's first input, and the first output,
    lie in the arena; w, bias: the weights and biases of the 16 channels in params.
    """

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        wanted, *rest = args
        functions = enumerate(row_function(builder.module, row) for row in rows())
        vectors.call_one(builder, wanted, functions, rest)
        return context.get_dummy_value()

    return types.void(types.int64, FLOATS, FLOATS, INTS, *[types.int64] * 4), lower
