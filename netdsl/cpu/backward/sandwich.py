"""The transforms that Winograd's weight gradient adds: of the output's gradient, and of the sums.

Forward, Y = A [(G g G') * (B d B')] A' with taps g and inputs d. As a function of g its gradient is
G' [(A' y A) * (B d B')] G, y being the gradient of Y (see cook_toom.py for the matrices).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from netdsl.cook_toom import Matrix, matrices
from netdsl.cpu.compiler import FLOATS
from netdsl.cpu.micro.fields import SIZES, Size
from netdsl.cpu.micro.sandwich import (
    FLOAT,
    LANES,
    LONG,
    at,
    function,
    inputs,
    load,
    sandwich,
    scaled,
    store,
    switched,
)


def transposed(matrix: Matrix) -> Matrix:
    """A matrix's rows as columns."""
    return tuple(zip(*matrix, strict=True))


def gradient_function(module: ir.Module, size: Size) -> ir.Function:
    """(source, row step, target, step): A' y A of a tile of the output's gradient."""
    name = f"netdsl.gradient{size.outputs}x{size.taps}"
    if name in module.globals:
        return module.globals[name]
    made = function(module, name, [FLOAT.as_pointer(), LONG, FLOAT.as_pointer(), LONG])
    source, row, target, step = made.args
    b = ir.IRBuilder(made.append_basic_block())
    n = range(size.outputs)
    grid = [
        [load(b, at(b, source, scaled(b, row, i), ir.Constant(LONG, LANES * j))) for j in n]
        for i in n
    ]
    for i, values in enumerate(sandwich(b, transposed(matrices(*size).output), grid)):
        for j, value in enumerate(values):
            store(b, value, at(b, target, scaled(b, step, i * size.inputs + j)))
    b.ret_void()
    return made


def taps_function(module: ir.Module, size: Size) -> ir.Function:
    """(source, step, target, tap step): G' m G of one channel's sums for 16 filters."""
    name = f"netdsl.taps{size.outputs}x{size.taps}"
    if name in module.globals:
        return module.globals[name]
    made = function(module, name, [FLOAT.as_pointer(), LONG, FLOAT.as_pointer(), LONG])
    source, step, target, tap = made.args
    b = ir.IRBuilder(made.append_basic_block())
    n = range(size.inputs)
    grid = [[load(b, at(b, source, scaled(b, step, i * size.inputs + j))) for j in n] for i in n]
    for i, values in enumerate(sandwich(b, transposed(matrices(*size).filter), grid)):
        for j, value in enumerate(values):
            store(b, value, at(b, target, scaled(b, tap, i * size.taps + j)))
    b.ret_void()
    return made


@intrinsic
def transform_gradient(  # type: ignore[no-untyped-def]
    typing, number, arena, source, row, target, step
):
    """A' y A from arena[source] (rows `row` floats apart) to arena[target] (`step` apart)."""

    def lower(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        number, arena, source, row, target, step = args
        ends = [b.gep(arena, [source]), row, b.gep(arena, [target]), step]
        switched(b, number, gradient_function, ends, inputs(SIZES))
        return context.get_dummy_value()

    return types.void(types.int64, FLOATS, *[types.int64] * 4), lower


@intrinsic
def transform_taps(  # type: ignore[no-untyped-def]
    typing, number, arena, source, step, target, tap
):
    """G' m G from arena[source] (`step` apart) to arena[target] (taps `tap` floats apart)."""

    def lower(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        number, arena, source, step, target, tap = args
        ends = [b.gep(arena, [source]), step, b.gep(arena, [target]), tap]
        switched(b, number, taps_function, ends, inputs(SIZES))
        return context.get_dummy_value()

    return types.void(types.int64, FLOATS, *[types.int64] * 4), lower
