"""Sixteen floats as one value: the vectors that kernels are written in.

`load(p, i)` reads 16 consecutive floats, arithmetic works on all of them at once, `store` writes
them. LLVM splits the vector to what the CPU has (one AVX-512 register, two of AVX2, four of
NEON), so the same kernel serves all. `Wide` is the same in double precision, for sums.

Numba is needed here; kernels take the functions from `lanes.py`, which names them without it. No
function here assumes that numbers are finite: NaN and infinities behave as IEEE 754 says.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.extending import (
    intrinsic,
    lower_builtin,
    models,
    register_model,
    type_callable,
)

from netdsl.cpu.host import features

WIDTH = 16
"""Floats in a vector, and channels in a block."""

FLOAT, DOUBLE, INT, LONG = ir.FloatType(), ir.DoubleType(), ir.IntType(32), ir.IntType(64)
FLOATS, DOUBLES = ir.VectorType(FLOAT, WIDTH), ir.VectorType(DOUBLE, WIDTH)
INTS = ir.VectorType(INT, WIDTH)
LEAST, INFINITY = 0x00800000, 0x7F800000
"""The bits of the least normal number in single precision, and of infinity."""
LANES = ir.Constant(INTS, list(range(WIDTH)))


class VectorType(types.Type):
    """Numba's type of a vector of 16."""

    def __init__(self, name: str, element: types.Type, ir_type: ir.Type) -> None:
        super().__init__(name=name)
        self.element = element
        self.ir_type = ir_type


lanes = VectorType("lanes", types.float32, FLOATS)
wide = VectorType("wide", types.float64, DOUBLES)


@register_model(VectorType)
class VectorModel(models.PrimitiveModel):
    """A vector lives in registers as itself."""

    def __init__(self, manager: Any, vector: VectorType) -> None:
        super().__init__(manager, vector, vector.ir_type)


def spread(builder: ir.IRBuilder, value: ir.Value, vector: ir.Type) -> ir.Value:
    """One number in all lanes."""
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(INT, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(INTS, [0] * WIDTH))


def vector(function: Callable[..., Any]) -> Any:
    """An intrinsic, which type checkers take for what it is to kernels: any function."""
    return intrinsic(function)


def llvm(builder: ir.IRBuilder, name: str, vector: ir.Type, args: Any) -> ir.Value:
    """Calls one of LLVM's intrinsics that takes and gives vectors of one type."""
    full = f"{name}.v{WIDTH}{'f32' if vector.element == FLOAT else 'f64'}"
    kind = ir.FunctionType(vector, [vector] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, full), args)


def _as_vector(
    context: Any, builder: ir.IRBuilder, value: ir.Value, given: types.Type, vector: VectorType
) -> ir.Value:
    if isinstance(given, VectorType):
        return value
    return spread(builder, context.cast(builder, value, given, vector.element), vector.ir_type)


def _arithmetic(op: Any, name: str) -> None:
    """Teaches Numba an operator on two vectors, or on a vector and a number."""

    @type_callable(op)
    def typed(context: Any) -> Any:
        def typer(a: types.Type, b: types.Type) -> types.Type | None:
            vectors = [t for t in (a, b) if isinstance(t, VectorType)]
            if not vectors or any(v != vectors[0] for v in vectors):
                return None
            number = all(isinstance(t, (VectorType, types.Number)) for t in (a, b))
            return vectors[0] if number else None

        return typer

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        a, b = (
            _as_vector(context, builder, value, given, sig.return_type)
            for value, given in zip(args, sig.args, strict=True)
        )
        return getattr(builder, name)(a, b)

    lower_builtin(op, VectorType, VectorType)(lower)
    lower_builtin(op, VectorType, types.Number)(lower)
    lower_builtin(op, types.Number, VectorType)(lower)


for _op, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_op, _name)
    _arithmetic(getattr(operator, f"i{_op.__name__}"), _name)


def _place(builder: ir.IRBuilder, pointer: ir.Value, index: ir.Value) -> ir.Value:
    return builder.bitcast(builder.gep(pointer, [index]), FLOATS.as_pointer())


@vector
def load(typing: Any, p: Any, i: Any) -> Any:
    """16 floats from p[i] on."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        found = builder.load(_place(builder, args[0], args[1]))
        found.align = 4
        return found

    return lanes(p, types.int64), lower


@vector
def store(typing: Any, p: Any, i: Any, v: Any) -> Any:
    """Writes 16 floats to p[i] and on."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        builder.store(args[2], _place(builder, args[0], args[1])).align = 4
        return context.get_dummy_value()

    return types.void(p, types.int64, lanes), lower


def _moved(count: int, p: Any) -> Any:
    """A copy of so many floats within p, to one place from another."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        some = ir.VectorType(ir.FloatType(), count).as_pointer()
        target, source = (builder.bitcast(builder.gep(args[0], [i]), some) for i in args[1:])
        found = builder.load(source)
        found.align = 4
        builder.store(found, target).align = 4
        return context.get_dummy_value()

    return types.void(p, types.int64, types.int64), lower


@vector
def move2(typing: Any, p: Any, i: Any, j: Any) -> Any:
    """Writes the 2 floats from p[j] on to p[i] and on."""
    return _moved(2, p)


@vector
def move4(typing: Any, p: Any, i: Any, j: Any) -> Any:
    """Writes the 4 floats from p[j] on to p[i] and on."""
    return _moved(4, p)


@vector
def splat(typing: Any, x: Any) -> Any:
    """One number in all lanes."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return spread(builder, args[0], FLOATS)

    return lanes(types.float32), lower


@vector
def first(typing: Any, v: Any) -> Any:
    """The number in lane 0."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.extract_element(args[0], ir.Constant(INT, 0))

    return v.element(v), lower


@vector
def where_less(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """`yes` in the lanes where a < b, `no` elsewhere (and so where either is NaN)."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        a, b, yes, no = (
            _as_vector(context, builder, value, given, lanes)
            for value, given in zip(args, sig.args, strict=True)
        )
        return builder.select(builder.fcmp_ordered("<", a, b), yes, no)

    return lanes(a, b, yes, no), lower


@vector
def maximum(typing: Any, a: Any, b: Any) -> Any:
    """The larger in each lane; NaN where either is NaN."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        a, b = args
        larger = builder.select(builder.fcmp_ordered(">", a, b), a, b)
        return builder.select(builder.fcmp_unordered("uno", a, a), a, larger)

    return lanes(lanes, lanes), lower


@vector
def maximum3(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """The largest of three in each lane; NaN where any is NaN."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        def larger(x: ir.Value, y: ir.Value) -> ir.Value:
            return builder.select(builder.fcmp_ordered(">", x, y), x, y)

        # A NaN in `a` comes through both comparisons; one more tells whether another is.
        a, b, c = args
        result = larger(c, larger(b, a))
        broken = builder.fcmp_unordered("uno", b, c)
        return builder.select(broken, ir.Constant(FLOATS, [float("nan")] * WIDTH), result)

    return lanes(lanes, lanes, lanes), lower


@vector
def sqrt(typing: Any, v: Any) -> Any:
    """The square root of each lane."""
    return v(v), _unary("llvm.sqrt")


@vector
def root_estimate(typing: Any, v: Any) -> Any:
    """About one divided by the square root of each lane, within 2^-11, where `estimable` holds."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        there = features()
        if "avx512f" in there:
            kind = ir.FunctionType(FLOATS, [FLOATS, FLOATS, ir.IntType(16)])
            name = "llvm.x86.avx512.rsqrt14.ps.512"
            given = [args[0], ir.Constant(FLOATS, None), ir.Constant(ir.IntType(16), -1)]
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), given)
        if "avx" in there:
            half = ir.VectorType(FLOAT, WIDTH // 2)
            kind = ir.FunctionType(half, [half])
            name = "llvm.x86.avx.rsqrt.ps.256"
            function = cgutils.get_or_insert_function(builder.module, kind, name)
            parts = [_some(builder, args[0], range(i, i + 8)) for i in (0, 8)]
            order = ir.Constant(INTS, list(range(WIDTH)))
            return builder.shuffle_vector(*(builder.call(function, [p]) for p in parts), order)
        one = ir.Constant(FLOATS, [1.0] * WIDTH)
        return builder.fdiv(one, llvm(builder, "llvm.sqrt", FLOATS, args))

    return lanes(lanes), lower


def _some(builder: ir.IRBuilder, v: ir.Value, order: range) -> ir.Value:
    """These lanes of a vector."""
    kind = ir.VectorType(INT, len(order))
    return builder.shuffle_vector(
        v, ir.Constant(v.type, ir.Undefined), ir.Constant(kind, list(order))
    )


@vector
def sum_of_five(typing: Any, before: Any, v: Any, after: Any) -> Any:
    """Each lane with two on either side, where other vectors go on before the first and behind the
    last."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        before, v, after = args
        result = v
        for a, b, first in ((before, v, 14), (before, v, 15), (v, after, 1), (v, after, 2)):
            order = ir.Constant(INTS, list(range(first, first + WIDTH)))
            result = builder.fadd(result, builder.shuffle_vector(a, b, order))
        return result

    return v(before, v, after), lower


@vector
def estimable(typing: Any, v: Any) -> Any:
    """Whether roots can be estimated: the CPU does, and all lanes are normal numbers above 0."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        if "avx" not in features():
            return ir.Constant(ir.IntType(1), 0)
        # As whole numbers, which leaves units for floats to others.
        bits = builder.sub(builder.bitcast(args[0], INTS), ir.Constant(INTS, [LEAST] * WIDTH))
        inside = builder.icmp_unsigned("<", bits, ir.Constant(INTS, [INFINITY - LEAST] * WIDTH))
        kind = ir.IntType(WIDTH)
        return builder.icmp_signed("==", builder.bitcast(inside, kind), ir.Constant(kind, -1))

    return types.boolean(lanes), lower


@vector
def nearest(typing: Any, v: Any) -> Any:
    """Each lane rounded to a whole number, to an even one where two are as near."""
    return v(v), _unary("llvm.rint")


@vector
def magnitude(typing: Any, v: Any) -> Any:
    """Each lane without its sign."""
    return v(v), _unary("llvm.fabs")


def _unary(name: str) -> Any:
    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return llvm(builder, name, sig.return_type.ir_type, args)

    return lower


@vector
def power(typing: Any, v: Any, exponent: Any) -> Any:
    """Each lane to the power of one number: a library call a lane, so slow."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return llvm(builder, "llvm.pow", FLOATS, [args[0], spread(builder, args[1], FLOATS)])

    return lanes(lanes, types.float32), lower


@vector
def muladd(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c, in one rounding where the CPU can."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        vector = sig.return_type
        values = [
            _as_vector(context, builder, value, given, vector)
            for value, given in zip(args, sig.args, strict=True)
        ]
        return llvm(builder, "llvm.fmuladd", vector.ir_type, values)

    return next(t for t in (a, b, c) if isinstance(t, VectorType))(a, b, c), lower


@vector
def with_sign(typing: Any, v: Any, signs: Any) -> Any:
    """Each lane of v with the sign of the other's."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return llvm(builder, "llvm.copysign", FLOATS, args)

    return lanes(lanes, lanes), lower


@vector
def scale_by_power(typing: Any, v: Any, shifted: Any) -> Any:
    """v times 2^n, where `shifted` is n + 1.5 x 2^23: n then stands in its lowest bits.

    In two factors, so that n may go from -252 to 254 and the product still rounds, vanishes or
    overflows as it should.
    """

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        def each(n: int) -> ir.Constant:
            return ir.Constant(INTS, [n] * WIDTH)

        n = builder.sub(builder.bitcast(args[1], INTS), each(0x4B400000))
        half = builder.ashr(n, each(1))
        result = args[0]
        for part in (half, builder.sub(n, half)):
            bits = builder.shl(builder.add(part, each(127)), each(23))
            result = builder.fmul(result, builder.bitcast(bits, FLOATS))
        return result

    return lanes(lanes, lanes), lower


@vector
def within(typing: Any, v: Any, start: Any, end: Any, other: Any) -> Any:
    """v in the lanes from start to end (excluded), `other` (a vector or number) elsewhere."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        low, high = (spread(builder, builder.trunc(bound, INT), INTS) for bound in args[1:3])
        inside = builder.and_(
            builder.icmp_signed(">=", LANES, low), builder.icmp_signed("<", LANES, high)
        )
        return builder.select(inside, args[0], _as_vector(context, builder, args[3], other, v))

    return v(v, types.int64, types.int64, other), lower


@njit(forceinline=True)
def keep(v, start, end):  # type: ignore[no-untyped-def]
    """v in the lanes from start to end (excluded), 0 elsewhere."""
    return within(v, start, end, 0.0)


@vector
def widen(typing: Any, v: Any) -> Any:
    """The lanes in double precision."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.fpext(args[0], DOUBLES)

    return wide(lanes), lower


@vector
def narrow(typing: Any, v: Any) -> Any:
    """The lanes rounded to single precision."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.fptrunc(args[0], FLOATS)

    return lanes(wide), lower


@vector
def wide_splat(typing: Any, x: Any) -> Any:
    """One double in all lanes."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return spread(builder, args[0], DOUBLES)

    return wide(types.float64), lower


@vector
def store_wide(typing: Any, p: Any, i: Any, v: Any) -> Any:
    """Writes 16 doubles to the place of 32 floats from p[i] on."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        place = builder.bitcast(builder.gep(args[0], [args[1]]), DOUBLES.as_pointer())
        builder.store(args[2], place).align = 4
        return context.get_dummy_value()

    return types.void(p, types.int64, wide), lower


def _across(builder: ir.IRBuilder, vector: ir.Value, step: Any) -> ir.Value:
    """Lane 0 of the vector folded in halves by `step`."""
    half = WIDTH // 2
    while half:
        order = [i + half if i < half else i for i in range(WIDTH)]
        moved = builder.shuffle_vector(
            vector, ir.Constant(vector.type, ir.Undefined), ir.Constant(INTS, order)
        )
        vector = step(vector, moved)
        half //= 2
    return builder.extract_element(vector, ir.Constant(INT, 0))


@vector
def total(typing: Any, v: Any) -> Any:
    """The sum of the lanes, in pairs."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return _across(builder, args[0], builder.fadd)

    return v.element(v), lower


@vector
def largest(typing: Any, v: Any) -> Any:
    """The largest lane; NaN may be passed over."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        def step(a: ir.Value, b: ir.Value) -> ir.Value:
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)

        return _across(builder, args[0], step)

    return types.float32(lanes), lower
