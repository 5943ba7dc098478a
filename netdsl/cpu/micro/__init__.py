"""The micro-kernels: LLVM vector code that keeps a tile of outputs in registers.

`run_tile` and `run_product` run one of them; `tiles` says which the CPU has registers for.
docs/kernels.md explains the generator with a picture.
"""

from netdsl.cpu.late import late
from netdsl.cpu.micro.shapes import (
    HALF,
    MATRICES,
    SCALED,
    SHORT,
    Kind,
    Shape,
    Tile,
    code,
    dots,
    matrices,
    quartered,
    tiles,
    twice,
)

configure = late("netdsl.cpu.micro.matrix", "configure")
form_quarters = late("netdsl.cpu.micro.quarters", "form_quarters")
release = late("netdsl.cpu.micro.matrix", "release")
run_points = late("netdsl.cpu.micro.points", "run_points")
run_matrix = late("netdsl.cpu.micro.matrix", "run_matrix")
run_product = late("netdsl.cpu.micro.product", "run_product")
run_quarters = late("netdsl.cpu.micro.quarters", "run_quarters")
run_row = late("netdsl.cpu.micro.rows", "run_row")
run_short = late("netdsl.cpu.micro.tile", "run_short")
run_thirds = late("netdsl.cpu.micro.thirds", "run_thirds")
run_thirds_forming = late("netdsl.cpu.micro.thirds", "run_thirds_forming")
run_tight = late("netdsl.cpu.micro.tile", "run_tight")
run_tile = late("netdsl.cpu.micro.tile", "run_tile")
past = late("netdsl.cpu.micro.tile", "past")
prefetch = late("netdsl.cpu.micro.tile", "prefetch")
store_filters = late("netdsl.cpu.micro.thirds", "store_filters")
store_places = late("netdsl.cpu.micro.thirds", "store_places")
transform_filter = late("netdsl.cpu.micro.sandwich", "transform_filter")
transform_cut_input = late("netdsl.cpu.micro.sandwich", "transform_cut_input")
transform_input = late("netdsl.cpu.micro.sandwich", "transform_input")
transform_cut_output = late("netdsl.cpu.micro.sandwich", "transform_cut_output")
transform_output = late("netdsl.cpu.micro.sandwich", "transform_output")

__all__ = [
    "HALF",
    "MATRICES",
    "SCALED",
    "SHORT",
    "Kind",
    "Shape",
    "Tile",
    "code",
    "configure",
    "dots",
    "form_quarters",
    "matrices",
    "past",
    "prefetch",
    "quartered",
    "release",
    "run_matrix",
    "run_points",
    "run_product",
    "run_quarters",
    "run_row",
    "run_short",
    "run_thirds",
    "run_thirds_forming",
    "run_tight",
    "run_tile",
    "store_filters",
    "store_places",
    "tiles",
    "transform_cut_input",
    "transform_cut_output",
    "transform_filter",
    "transform_input",
    "transform_output",
    "twice",
]
