"""The micro-kernels: LLVM vector code that keeps a tile of outputs in registers.

`run_tile` and `run_product` run one of them; `tiles` says which the CPU has registers for.
docs/kernels.md explains the generator with a picture.
"""

from netdsl.cpu.micro.shapes import Kind, Shape, Tile, code, tiles
from netdsl.cpu.micro.tile import run_product, run_tile, turns

__all__ = ["Kind", "Shape", "Tile", "code", "run_product", "run_tile", "tiles", "turns"]
