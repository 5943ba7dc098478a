"""Tiles for products of matrices: sums alone, and some of the weights that come next.

A panel of weights, all that a tile takes, is read once for every few pixels of a row. The first
tile of a row would wait for the memory that it comes from, and the memory for the others. So each
turn of a tile's loop asks for a few cache lines of the next row's panel; that takes a sixth off
layers whose weights come from memory, or more.
"""

from __future__ import annotations

from collections.abc import Iterator

from llvmlite import ir
from numba.extending import intrinsic

from netdsl.cpu.micro.fields import LINES, PART, TURNS, X_STEP, Y_STEP
from netdsl.cpu.micro.shapes import Kind, Tile
from netdsl.cpu.micro.tile import Values, Writer, runner
from netdsl.cpu.micro.vectors import LANES, LONG, SECOND_LEVEL, ask


class Product(Writer):
    """Writes the function of a product's tile: no biases, no residual, no clamping. In their
    places it takes where in params the lines lie that it asks for (`bias`), and how many floats
    farther each turn does (`residual`). Pixels lie side by side, so LLVM needs no register for
    where each of them does."""

    def field(self, index: int) -> ir.Value:
        if index in (X_STEP, Y_STEP):
            return ir.Constant(LONG, LANES)
        return super().field(index)

    def write(self) -> None:
        """A long sum part by part: what the first leaves in the outputs, each later one adds to, so
        that rounding errors do not grow with its length. All registers are free for a part, since
        none holds what is summed up by then."""
        b, turns, each = self.builder, self.field(TURNS), self.field(PART)
        rows = ir.Constant(LONG, self.kind.unroll * LANES)
        taps = ir.Constant(LONG, (self.kind.rows // self.kind.unroll).bit_length() - 1)
        table, asked, onward = self.table, self.bias, self.residual
        before, loop, after = b.block, b.append_basic_block(), b.append_basic_block()
        b.branch(loop)
        b.position_at_end(loop)
        done = b.phi(LONG)
        following = b.add(done, each)
        last = b.icmp_signed(">=", following, turns)
        here = b.sub(b.select(last, turns, following), done)
        self.table = b.gep(table, [b.lshr(done, taps)])
        self.bias = b.add(asked, b.mul(done, onward))
        weights = b.gep(self.params, [b.add(self.w, b.mul(done, rows))])
        sums = self.reduce(self.grid(ir.Constant(self.type, [0.0] * LANES)), here, weights)
        first = b.icmp_signed("==", done, ir.Constant(LONG, 0))
        with b.if_else(first) as (begins, goes_on):
            with begins:
                self.store(sums)
            with goes_on:
                self.store(self.with_residual(sums))
        done.add_incoming(ir.Constant(LONG, 0), before)
        done.add_incoming(following, b.block)
        b.cbranch(last, after, loop)
        b.position_at_end(after)
        b.ret_void()

    def residuals(self) -> Iterator[Values]:
        """What is added to a part of a sum: what those before have left."""
        return self.outputs()

    def begin(self, turn: ir.Value, across: ir.Value) -> None:
        b = self.builder
        self.ask_from(b.add(self.bias, b.mul(turn, self.residual)), across)

    def ask_from(self, first: ir.Value, across: ir.Value) -> None:
        """Asks for some lines of each block of filters."""
        b = self.builder
        for block in range(self.shape.blocks):
            start = b.gep(self.params, [b.add(first, self.times(across, block))])
            for line in range(LINES):
                ask(b, b.gep(start, [ir.Constant(LONG, line * LANES)]), SECOND_LEVEL)


def product_name(tile: Tile) -> str:
    """What a product's tile is called in LLVM's module."""
    return f"netdsl.product{tile.shape.pixels}x{tile.shape.blocks}"


def product_function(module: ir.Module, tile: Tile) -> ir.Function:
    """The function of one tile in this module, written when first asked for."""
    name = product_name(tile)
    return module.globals.get(name) or Product(module, tile, name).function


run_product = intrinsic(runner(product_function, Kind.BLOCKED))
"""run_product(number, arena, params, t, x, w, y, next, step) runs a tile of the blocked kind by its
number, as `run_tile` does. Of params it asks for what lies from `next` on, `step` floats farther
each turn."""
