"""Tiles for products of matrices: sums alone, and some of the weights that come next.

A panel of weights, all that a tile takes, is read once for every few pixels of a row. The first
tile of a row would wait for the memory that it comes from, and the memory for the others. So each
turn of a tile's loop asks for a few cache lines of the next row's panel; that takes a sixth off
layers whose weights come from memory, or more.
"""

from __future__ import annotations

from llvmlite import ir
from numba.extending import intrinsic

from netdsl.cpu.micro.fields import LINES, X_STEP, Y_STEP
from netdsl.cpu.micro.shapes import Kind, Tile
from netdsl.cpu.micro.tile import Writer, runner
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
        self.store(self.reduce(self.grid(ir.Constant(self.type, [0.0] * LANES))))
        self.builder.ret_void()

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
