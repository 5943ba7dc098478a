"""By which numbers kernels and the plans' descriptors speak of generated code.

The generators (`tile.py`, `product.py`, `sandwich.py`) need LLVM, plans do not.
"""

from __future__ import annotations

from typing import NamedTuple

from netdsl.cpu.layout import LANES
from netdsl.cpu.micro.shapes import Kind

# Of a tile, from `t` on in the descriptor: turns of the loop (`turns`); where the table starts; the
# floats from one pixel to the next in input, output and residual; those from one block of filters
# to the next in weights, output and residual; how sums start and end; the bits of the floats
# between which results are clamped.
TURNS, TABLE, X_STEP, Y_STEP, R_STEP, W_BLOCK, Y_BLOCK, R_BLOCK, START, LOW, HIGH = range(11)
TILE_FIELDS = 11
FROM_BIAS, ADD_RESIDUAL = 1, 2
"""What `START` may hold, added up; 0 starts from zero."""

RIGHT, LOWER, FURTHER = R_STEP, R_BLOCK, START
"""Of a tile that makes quarters (`quarters.py`), floats from one to the one beside it and to the
one below, and from the lines that a turn asks for to as many others, in the places of what it has
no use for."""

PART, PIECES = LOW, HIGH
"""Of a tile of a product, in the place of bounds that it has no use for: turns after which it puts
aside what it has summed up, and into how many such parts it cuts a sum (`quarters.py` alone)."""

ASKS = 2
"""Cache lines of inputs that a turn of a tile that ends quarters asks for (`points.py`)."""

OUT_RIGHT, OUT_LOWER, R_RIGHT, R_LOWER, BIAS_LOWER, STRETCH = range(TILE_FIELDS, TILE_FIELDS + 6)
"""What such a tile reads besides: the same of outputs and of the residual, floats to the biases of
the lower quarters, and from one stretch of inputs that it asks for to the next."""

LINES = 2
"""Cache lines that a turn of a product's tile asks for (`product.py`), of each block of filters:
half of those that it reads itself. So two tiles ask for all; with four lines a turn memory is asked
for more than it gives."""


def turns(kind: Kind, taps: int, spare: int = 0) -> int:
    """Turns of the loop for so many entries of the table, but for `spare` lanes at the end."""
    each = kind.unroll * kind.lanes // kind.rows
    return taps * kind.lanes // each - (spare // each if kind.lanes == LANES else 0)


class Size(NamedTuple):
    """F(m x m, r x r): outputs and taps along each axis of a tile."""

    outputs: int
    taps: int

    @property
    def inputs(self) -> int:
        """Inputs and products along each axis."""
        return self.outputs + self.taps - 1

    @property
    def pools(self) -> bool:
        """Whether tiles are whole squares of 2x2 outputs, which a pool may take the largest of."""
        return self.outputs % 2 == 0


NUMBERS = ((4, 3), (2, 3), (4, 5), (2, 5), (4, 2), (2, 2), (5, 4), (5, 3))
SIZES = tuple(Size(outputs, taps) for outputs, taps in NUMBERS)
"""What kernels are compiled for; a size's place here is its number at run time."""

CUT = (Size(4, 3),)
"""Those whose products are made by Strassen's algorithm too (`quarters.py`). F(2x2, 3x3) by it was
the fastest way of none of 98 layers."""

FORMS = tuple((size, False) for size in SIZES) + tuple((s, True) for s in SIZES if s.pools)
"""What Winograd's products are made into: outputs of a size, or those pooled."""


def output_form(size: Size, pooled: bool) -> int:
    """The number by which `transform_output` makes such outputs."""
    return FORMS.index((size, pooled))
