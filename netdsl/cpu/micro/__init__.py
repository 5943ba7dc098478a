"""The micro-kernels: LLVM vector code that keeps a tile of outputs in registers.

`run_tile` and `run_product` run one of them; `tiles` says which the CPU has registers for.
docs/kernels.md explains the generator with a picture.
"""

from netdsl.cpu.micro.product import run_product
from netdsl.cpu.micro.shapes import HALF, SCALED, SHORT, Kind, Shape, Tile, code, dots, tiles
from netdsl.cpu.micro.tile import run_short, run_tile, turns

__all__ = [
    "HALF",
    "SCALED",
    "SHORT",
    "Kind",
    "Shape",
    "Tile",
    "code",
    "dots",
    "run_product",
    "run_short",
    "run_tile",
    "tiles",
    "turns",
]
