"""Eight channels' weights in the place of seven: floats of 28 bits and all of their digits.

Seven rows of 16 weights have a row each, in which a weight's sign and its lowest 27 bits (4 of its
exponent, 23 of its mantissa) lie where a float has them. The four bits between, in all seven, are
the 28 of the eighth row's weight: the lowest four of it in the first row.

    row 0..6    | sign | 4 bits of row 7 | exponent, 4 bits | mantissa, 23 bits |
    row 7       | exponent, 4 bits | mantissa, 23 bits | sign |   = the four bits, row 6's first

With zeros for these four bits a weight is a float, and a tiny one: its exponent counts from that of
the smallest floats there are. So a zero is a zero, and a power of two makes all others what they
were, exactly. One `and` a row, one multiplication, and for the eighth row a shift and an `or` each.
"""

from __future__ import annotations

from llvmlite import ir

from netdsl.cpu.micro.vectors import FLOAT, INT, LANES

EIGHT, SEVEN = 8, 7
"""Channels whose weights lie together, and rows that they lie in."""

AHEAD = 16
"""Rows after the one that is read, of which one is asked for meanwhile. What is done with a row
takes so many instructions that a core by itself would not look far enough ahead."""

KEPT, BETWEEN = 0x87FFFFFF, 0x78000000
"""The bits that a row has of its own, and those that it holds of the eighth."""

FLOATS, INTS = ir.VectorType(FLOAT, LANES), ir.VectorType(INT, LANES)


def each(bits: int) -> ir.Constant:
    """A number in all lanes."""
    return ir.Constant(INTS, [bits - (bits >> 31 << 32)] * LANES)


def own(builder: ir.IRBuilder, row: ir.Value) -> ir.Value:
    """A row's own weights, but for their scale."""
    return builder.bitcast(builder.and_(row, each(KEPT)), FLOATS)


def gathered(builder: ir.IRBuilder, before: ir.Value, row: ir.Value) -> ir.Value:
    """The bits of the eighth row that the rows so far hold, this one the last."""
    return builder.or_(builder.lshr(before, each(4)), builder.and_(row, each(BETWEEN)))


def eighth(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    """Its weights from what was gathered of all, but for their scale."""
    turned = builder.or_(builder.lshr(bits, each(4)), builder.shl(bits, each(28)))
    return builder.bitcast(turned, FLOATS)
