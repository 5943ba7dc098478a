"""Tiles of direct sums that ask, turn by turn, for something that is read much later.

Strassen's sums of inputs are made for a group of tiles at a time, a load and a store for each
number, with nothing to hide the memory behind. So the tiles of the group before ask for those
inputs, a cache line each turn of their loops.
"""

from __future__ import annotations

from llvmlite import ir
from numba.extending import intrinsic

from netdsl.cpu.micro.shapes import Kind, Tile
from netdsl.cpu.micro.tile import Writer, name_of, runner
from netdsl.cpu.micro.vectors import LANES, SECOND_LEVEL, ask


class Asking(Writer):
    """Writes the function of such a tile: the sums have no biases, and in their place it takes
    where in the arena the first of the lines lies."""

    def begin(self, turn: ir.Value, across: ir.Value) -> None:
        b = self.builder
        ask(b, b.gep(self.arena, [b.add(self.bias, self.times(turn, LANES))]), SECOND_LEVEL)


def asking_function(module: ir.Module, tile: Tile) -> ir.Function:
    """The function of one tile in this module, written when first asked for."""
    name = name_of(tile)
    return module.globals.get(name) or Asking(module, tile, name).function


run_asking = intrinsic(runner(asking_function, Kind.ASKING))
"""run_asking(number, arena, params, t, x, w, y, next, residual) runs such a tile by its number, as
`run_tile` does, and asks for a line of the arena each turn, from `next` on."""
