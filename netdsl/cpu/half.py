"""Floats rounded to bfloat16, their upper half, two in the place of one; or to bytes, four."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from netdsl.cpu.intrinsics import INT, INTS, WIDTH, VectorType, lanes, vector
from netdsl.cpu.micro import dots


class BFloat(ir.Type):
    """LLVM's type of bfloat16."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


SHORT = ir.IntType(16)
FEW, HALVES = ir.VectorType(SHORT, WIDTH), ir.VectorType(SHORT, 2 * WIDTH)
HALVES_OF_FLOATS = ir.VectorType(BFloat(), WIDTH)
POSITIVE_NAN = 0x7FC0

halves = VectorType("halves", types.int16, HALVES)
"""Numba's type of 32 numbers in bfloat16."""


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
    """Writes 16 floats, rounded to bfloat16, to the place of 8 from p[i] on; every NaN positive,
    so that comparing bits finds it (half_pool.py)."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        place = builder.bitcast(builder.gep(args[0], [args[1]]), FEW.as_pointer())
        if dots():  # for which LLVM has one instruction, but no short way without it
            value = builder.bitcast(builder.fptrunc(args[2], HALVES_OF_FLOATS), FEW)
        else:
            value = builder.trunc(half_bits(builder, args[2]), FEW)
        broken = builder.fcmp_unordered("uno", args[2], args[2])
        value = builder.select(broken, ir.Constant(FEW, [POSITIVE_NAN] * WIDTH), value)
        builder.store(value, place).align = 4
        return context.get_dummy_value()

    return types.void(p, types.int64, lanes), lower


@vector
def store_woven(typing: Any, p: Any, i: Any, a: Any, b: Any) -> Any:
    """Writes the lanes of two vectors in turn to 32 floats from p[i] on."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        both = ir.VectorType(ir.FloatType(), 2 * WIDTH)
        place = builder.bitcast(builder.gep(args[0], [args[1]]), both.as_pointer())
        order = [lane for i in range(WIDTH) for lane in (i, WIDTH + i)]
        mask = ir.Constant(ir.VectorType(ir.IntType(32), 2 * WIDTH), order)
        builder.store(builder.shuffle_vector(args[2], args[3], mask), place).align = 4
        return context.get_dummy_value()

    return types.void(p, types.int64, lanes, lanes), lower


@vector
def load_halves(typing: Any, p: Any, i: Any) -> Any:
    """32 numbers in bfloat16, in the place of 16 floats from p[i] on, as whole numbers of the same
    order: where the sign is set, all other bits are turned."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        place = builder.bitcast(builder.gep(args[0], [args[1]]), HALVES.as_pointer())
        value = builder.load(place)
        value.align = 4
        return in_order(builder, value)

    return halves(p, types.int64), lower


@vector
def store_halves(typing: Any, p: Any, i: Any, v: Any) -> Any:
    """Writes what `load_halves` gives."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        place = builder.bitcast(builder.gep(args[0], [args[1]]), HALVES.as_pointer())
        builder.store(in_order(builder, args[2]), place).align = 4
        return context.get_dummy_value()

    return types.void(p, types.int64, halves), lower


@vector
def larger(typing: Any, a: Any, b: Any) -> Any:
    """The larger of both in each of 32 lanes."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.select(builder.icmp_signed(">", *args), *args)

    return halves(halves, halves), lower


@vector
def least_half(typing: Any) -> Any:
    """The least whole number in 32 lanes."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return ir.Constant(HALVES, [-(1 << 15)] * 2 * WIDTH)

    return halves(), lower


def in_order(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """The bits of bfloat16 as whole numbers of the same order, and back."""
    sign = builder.ashr(value, ir.Constant(HALVES, [15] * 2 * WIDTH))
    turned = builder.and_(sign, ir.Constant(HALVES, [0x7FFF] * 2 * WIDTH))
    return builder.xor(value, turned)


@vector
def store_bytes(typing: Any, p: Any, i: Any, v: Any) -> Any:
    """Writes 16 whole numbers from -128 to 127 as bytes to the place of 4 floats from p[i] on."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        few = ir.VectorType(ir.IntType(8), WIDTH)
        place = builder.bitcast(builder.gep(args[0], [args[1]]), few.as_pointer())
        builder.store(builder.fptosi(args[2], few), place).align = 4
        return context.get_dummy_value()

    return types.void(p, types.int64, lanes), lower
