"""Floats rounded to bfloat16, their upper half, two in the place of one; or to bytes, four."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from netdsl.cpu.intrinsics import INT, INTS, WIDTH, lanes, vector


def half_bits(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """A float, or each lane, rounded to bfloat16 (its upper 16 bits), to even where two are as
    near; as an integer of 32 bits. NaN stays NaN."""
    kind = INTS if isinstance(value.type, ir.VectorType) else INT

    def each(number: int) -> ir.Constant:
        return ir.Constant(kind, [number] * WIDTH if kind == INTS else number)

    bits = builder.bitcast(value, kind)
    upper = builder.lshr(bits, each(16))
    more = builder.add(builder.and_(upper, each(1)), each(0x7FFF))
    rounded = builder.lshr(builder.add(bits, more), each(16))
    broken = builder.fcmp_unordered("uno", value, value)
    return builder.select(broken, builder.or_(upper, each(0x40)), rounded)


@vector
def halved(typing: Any, v: Any) -> Any:
    """Each lane rounded to bfloat16, as a float."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        bits = builder.shl(half_bits(builder, args[0]), ir.Constant(INTS, [16] * WIDTH))
        return builder.bitcast(bits, args[0].type)

    return lanes(lanes), lower


@vector
def paired(typing: Any, a: Any, b: Any) -> Any:
    """Two floats, or those of two vectors lane by lane, rounded to bfloat16 and put into the place
    of one: a is the lower half."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        first, second = (half_bits(builder, value) for value in args)
        by = [16] * WIDTH if sig.return_type == lanes else 16
        bits = builder.or_(first, builder.shl(second, ir.Constant(first.type, by)))
        return builder.bitcast(bits, args[0].type)

    return a(a, a), lower


@vector
def store_half(typing: Any, p: Any, i: Any, v: Any) -> Any:
    """Writes 16 floats, rounded to bfloat16, to the place of 8 from p[i] on."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        halves = ir.VectorType(ir.IntType(16), WIDTH)
        place = builder.bitcast(builder.gep(args[0], [args[1]]), halves.as_pointer())
        builder.store(builder.trunc(half_bits(builder, args[2]), halves), place).align = 4
        return context.get_dummy_value()

    return types.void(p, types.int64, lanes), lower


@vector
def store_bytes(typing: Any, p: Any, i: Any, v: Any) -> Any:
    """Writes 16 whole numbers from -128 to 127 as bytes to the place of 4 floats from p[i] on."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        few = ir.VectorType(ir.IntType(8), WIDTH)
        place = builder.bitcast(builder.gep(args[0], [args[1]]), few.as_pointer())
        builder.store(builder.fptosi(args[2], few), place).align = 4
        return context.get_dummy_value()

    return types.void(p, types.int64, lanes), lower
