"""Floats written in 28 bits; `micro/tight.py` says how they lie and reads them back."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from netdsl.cpu.intrinsics import INT, INTS, WIDTH, vector
from netdsl.cpu.micro.tight import BETWEEN, EIGHT, SEVEN, each
from netdsl.cpu.tight import RANGE

SIGN, MAGNITUDE = 1 << 31, (1 << 31) - 1
DIGITS = 23
"""Bits of a float below its exponent."""


def _row(builder: ir.IRBuilder, pointer: ir.Value, at: ir.Value) -> ir.Value:
    """Pointer to a row of 16 numbers."""
    return builder.bitcast(builder.gep(pointer, [at]), INTS.as_pointer())


def _fits(builder: ir.IRBuilder, size: ir.Value, base: ir.Value) -> ir.Value:
    """Which weights of a size, as bits, are among the 15 exponents after the base."""
    above = builder.sub(size, builder.add(base, each(1 << DIGITS)))
    return builder.icmp_unsigned("<", above, each(RANGE << DIGITS))


def _spread(builder: ir.IRBuilder, base: ir.Value) -> ir.Value:
    """The base exponent where floats have theirs, in all lanes."""
    bits = builder.shl(builder.trunc(base, INT), ir.Constant(INT, DIGITS))
    first = builder.insert_element(ir.Constant(INTS, ir.Undefined), bits, ir.Constant(INT, 0))
    return builder.shuffle_vector(first, first, ir.Constant(INTS, [0] * WIDTH))


def _misfits(builder: ir.IRBuilder, row: ir.Value, base: ir.Value) -> ir.Value:
    """Which weights of a row have another exponent, and are no zeros."""
    size = builder.and_(row, each(MAGNITUDE))
    some = builder.icmp_unsigned("!=", size, each(0))
    return builder.and_(builder.not_(_fits(builder, size, base)), some)


def _bits(builder: ir.IRBuilder, some: ir.Value) -> ir.Value:
    """Whether, for each lane, as the bits of a number."""
    return builder.zext(builder.bitcast(some, ir.IntType(WIDTH)), ir.IntType(64))


@vector
def misfits(typing: Any, p: Any, i: Any, base: Any) -> Any:
    """Those of 16 floats from p[i] on that have an exponent of their own, as bits of a number."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        row = builder.load(_row(builder, args[0], args[1]))
        row.align = 4
        return _bits(builder, _misfits(builder, row, _spread(builder, args[2])))

    return types.int64(p, types.int64, types.int64), lower


@vector
def tighten(typing: Any, p: Any, i: Any, q: Any, j: Any, base: Any) -> Any:
    """Writes eight rows of floats, from p[i] on, into seven from q[j] on, zeros for misfits; gives
    a number that is 0 where there are none."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        b, (source, i, target, j, base) = builder, args
        base, found, codes = _spread(b, base), None, []
        for k in range(EIGHT):
            row = b.load(_row(b, source, b.add(i, i.type(k * WIDTH))))
            row.align = 4
            size = b.and_(row, each(MAGNITUDE))
            code = b.select(_fits(b, size, base), b.sub(size, base), each(0))
            codes.append(b.or_(code, b.and_(row, each(SIGN))))
            off = _misfits(b, row, base)
            found = off if found is None else b.or_(found, off)
        last = b.or_(b.shl(codes[-1], each(4)), b.lshr(codes[-1], each(28)))
        for k in range(SEVEN):
            part = b.and_(b.shl(last, each(4 * (SEVEN - 1 - k))), each(BETWEEN))
            place = _row(b, target, b.add(j, j.type(k * WIDTH)))
            b.store(b.or_(codes[k], part), place).align = 4
        return _bits(b, found)

    return types.int64(p, types.int64, q, types.int64, types.int64), lower
