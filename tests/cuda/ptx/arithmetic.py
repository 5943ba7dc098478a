"""What the instructions of a single thread compute, on arrays of an element a thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ptx.values import Unknown, Values, exact_sum, fused, rounded, without_subnormals

Function = Callable[..., Values]


class Computed(NamedTuple):
    """A function of operands of these types, and the type of what it gives. divides: whole numbers
    by its second operand, which then must not be zero."""

    function: Function
    result: str
    operands: tuple[str, ...]
    divides: bool = False


def computed(op: tuple[str, ...]) -> Computed:
    """What an instruction computes. Raises Unknown."""
    word, *how = op
    makers = {"setp": compared, "cvt": converted, "selp": selected, "mul": product, "mad": product}
    if word in makers:
        return makers[word](word, tuple(how))
    kind = how[-1] if how else ""
    table: dict[str, Any] = WORDS.get(f"{word}.{kind}") or {}
    function = table.get(".".join(how[:-1]))
    if function is None:
        raise Unknown(".".join(op))
    count = getattr(function, "nin", None) or function.__code__.co_argcount
    kinds = [kind] * count
    if word in ("shl", "shr"):
        kinds[1] = "u32"
    if word == "bfi":
        kinds[2:] = ["u32", "u32"]
    return Computed(function, kind, tuple(kinds), word in ("div", "rem") and kind != "f32")


def shifted_left(a: Values, by: Values) -> Values:
    bits = 8 * a.dtype.itemsize
    return np.where(by < bits, a << np.minimum(by, bits - 1).astype(a.dtype), a.dtype.type(0))


def shifted_right(a: Values, by: Values) -> Values:
    bits = 8 * a.dtype.itemsize
    found = a >> np.minimum(by, bits - 1).astype(a.dtype)
    if a.dtype.kind == "i":
        return found
    return np.where(by < bits, found, a.dtype.type(0))


def inserted(a: Values, b: Values, place: Values, length: Values) -> Values:
    """b with the low `length` bits of a from bit `place` on."""
    kind = np.result_type(a, b).type
    bits = 8 * np.dtype(kind).itemsize
    place, length = (np.minimum(x & np.uint32(0xFF), np.uint32(bits)) for x in (place, length))
    ones = np.where(length >= bits, ~kind(0), shifted_left(kind(1), length) - kind(1))
    mask = shifted_left(ones, place)
    return (b & ~mask) | (shifted_left(a, place) & mask)


def quotient(a: Values, b: Values) -> Values:
    """Towards zero."""
    found = np.floor_divide(a, b)
    return found + ((found < 0) & (found * b != a)).astype(found.dtype)


def remainder(a: Values, b: Values) -> Values:
    return a - quotient(a, b) * b


def to_zero(a: Values, b: Values) -> Values:
    return rounded(*exact_sum(a.astype(np.float64), np.float64(b)), "rz")


def fused_down(a: Values, b: Values, c: Values) -> Values:
    """a b + c, rounded to what lies below. Products of float32 are exact in float64."""
    product = np.asarray(a, np.float64) * np.asarray(b, np.float64)
    return rounded(*exact_sum(product, np.asarray(c, np.float64)), "rm")


def power(x: Values) -> Values:
    """2 to the x; the card's own is within 2 units of the last place."""
    return np.exp2(x.astype(np.float64)).astype(np.float32)


def power_flushed(x: Values) -> Values:
    return without_subnormals(power(without_subnormals(x)))


def inverse(x: Values) -> Values:
    return np.float32(1) / x


def inverse_flushed(x: Values) -> Values:
    return without_subnormals(inverse(without_subnormals(x)))


def square_root(x: Values) -> Values:
    return np.sqrt(x)


def with_sign(a: Values, b: Values) -> Values:
    """b with the sign of a."""
    return np.copysign(b, a)


def negated(a: Values) -> Values:
    return np.negative(a)


def same(a: Values) -> Values:
    return a


def bf16_values(words: Values) -> tuple[Values, Values]:
    """The two values of each word, the lower half first, as float32."""
    low, high = words << np.uint32(16), words & np.uint32(0xFFFF0000)
    return low.view(np.float32), high.view(np.float32)


def bf16_words(low: Values, high: Values) -> Values:
    """Two float32 as bfloat16, half to even, in one word."""

    def half(x: Values) -> Values:
        word = np.asarray(x, np.float32).view(np.uint32)
        even = (word >> np.uint32(16)) & np.uint32(1)
        found = (word + np.uint32(0x7FFF) + even) >> np.uint32(16)
        return np.where(np.isnan(x), np.uint32(0x7FFF), found)

    return half(low) | (half(high) << np.uint32(16))


def larger_pair(a: Values, b: Values) -> Values:
    """The larger of each half, NaN where either is."""
    (a0, a1), (b0, b1) = bf16_values(a), bf16_values(b)
    return bf16_words(np.maximum(a0, b0), np.maximum(a1, b1))


FLOATS = {"add": np.add, "sub": np.subtract, "mul": np.multiply}
WORDS: dict[str, dict[str, Any]] = {
    **{f"{w}.f32": {"": f, "rn": f} for w, f in FLOATS.items()},
    "fma.f32": {"rn": fused, "rm": fused_down},
    "div.f32": {"rn": np.divide},
    "rcp.f32": {"rn": inverse, "approx.ftz": inverse_flushed},
    "sqrt.f32": {"rn": square_root},
    "ex2.f32": {"approx": power, "approx.ftz": power_flushed},
    "max.f32": {"": np.fmax, "NaN": np.maximum},
    "min.f32": {"": np.fmin, "NaN": np.minimum},
    "max.bf16x2": {"NaN": larger_pair},
    "neg.f32": {"": negated},
    "abs.f32": {"": np.abs},
    "copysign.f32": {"": with_sign},
    "not.pred": {"": np.logical_not},
    "mov.pred": {"": same},
    "mov.f32": {"": same},
}
WORDS["add.f32"]["rz"] = to_zero
for _name, _function in (("and", "bitwise_and"), ("or", "bitwise_or"), ("xor", "bitwise_xor")):
    for _kind in ("pred", "b32", "b64"):
        WORDS[f"{_name}.{_kind}"] = {"": getattr(np, _function)}
for _bits in ("32", "64"):
    for _kind in (f"s{_bits}", f"u{_bits}"):
        WORDS |= {
            f"add.{_kind}": {"": np.add},
            f"sub.{_kind}": {"": np.subtract},
            f"min.{_kind}": {"": np.minimum},
            f"max.{_kind}": {"": np.maximum},
            f"div.{_kind}": {"": quotient},
            f"rem.{_kind}": {"": remainder},
            f"shr.{_kind}": {"": shifted_right},
            f"mov.{_kind}": {"": same},
        }
    WORDS |= {
        f"neg.s{_bits}": {"": negated},
        f"abs.s{_bits}": {"": np.abs},
        f"not.b{_bits}": {"": np.invert},
        f"shl.b{_bits}": {"": shifted_left},
        f"shr.b{_bits}": {"": shifted_right},
        f"bfi.b{_bits}": {"": inserted},
        f"mov.b{_bits}": {"": same},
    }

COMPARED: dict[str, Function] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


def _ordered(function: Function) -> Function:
    """Also that neither is NaN, which only `ne` must ask."""
    return lambda a, b: function(a, b) & ~(np.isnan(a) | np.isnan(b))


def _unordered(function: Function) -> Function:
    return lambda a, b: function(a, b) | np.isnan(a) | np.isnan(b)


FLOAT_COMPARED: dict[str, Function] = {
    **{word: _ordered(function) for word, function in COMPARED.items()},
    **{f"{word}u": _unordered(function) for word, function in COMPARED.items()},
    "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
    "nan": lambda a, b: np.isnan(a) | np.isnan(b),
}


def compared(word: str, how: tuple[str, ...]) -> Computed:
    """setp: a comparison, and another predicate joined to it."""
    relation, *joined, kind = how
    table = FLOAT_COMPARED if kind == "f32" else COMPARED
    if relation not in table or kind not in ("f32", *INTEGERS) or len(joined) > 1:
        raise Unknown(".".join((word, *how)))
    function = table[relation]
    if not joined:
        return Computed(function, "pred", (kind, kind))
    join = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[joined[0]]
    return Computed(lambda a, b, c: join(function(a, b), c), "pred", (kind, kind, "pred"))


INTEGERS = ("b32", "u32", "s32", "b64", "u64", "s64")


def selected(word: str, how: tuple[str, ...]) -> Computed:
    """selp: the first where a predicate holds, else the second."""
    (kind,) = how
    return Computed(lambda a, b, p: np.where(p, a, b), kind, (kind, kind, "pred"))


WIDER = {"u32": "u64", "s32": "s64", "b32": "b64"}


def product(word: str, how: tuple[str, ...]) -> Computed:
    """mul, mad: of integers the low half or all of a product, and a third added to it."""
    *part, kind = how
    if kind == "f32":
        return Computed(np.multiply, kind, (kind, kind)) if part in ([], ["rn"]) else _no(word, how)
    if part == ["lo"]:
        result, function = kind, np.multiply
    elif part == ["wide"] and kind in WIDER:
        result, function = WIDER[kind], _wide(np.int64 if kind == "s32" else np.uint64)
    elif part == ["hi"] and kind in WIDER:
        result, function = kind, _high(np.int64 if kind == "s32" else np.uint64)
    else:
        return _no(word, how)
    if word == "mul":
        return Computed(function, result, (kind, kind))
    return Computed(lambda a, b, c: function(a, b) + c, result, (kind, kind, result))


def _wide(kind: Any) -> Function:
    return lambda a, b: np.asarray(a).astype(kind) * np.asarray(b).astype(kind)


def _high(kind: Any) -> Function:
    return lambda a, b: (_wide(kind)(a, b) >> kind(32)).astype(np.result_type(a, b))


def _no(word: str, how: tuple[str, ...]) -> Computed:
    raise Unknown(".".join((word, *how)))


def _whole(x: Values) -> Values:
    """The int32 towards zero, the nearest there is where there is none, zero for NaN."""
    held = np.clip(np.nan_to_num(np.trunc(x.astype(np.float64))), -(2.0**31), 2.0**31 - 1)
    return held.astype(np.int32)


def _between(x: Values) -> Values:
    """Within 0 and 1; zero for NaN."""
    return np.where(x > 0, np.minimum(x, np.float32(1)), np.float32(0))


def _as_tf32(x: Values) -> Values:
    """10 bits behind the point, half away from zero."""
    word = x.view(np.uint32)
    near = (word + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(x), near, word)


def _cast(kind: Any) -> Function:
    return lambda a: a.astype(kind)


CONVERTED: dict[str, Computed] = {
    "u32.u64": Computed(_cast(np.uint32), "u32", ("u64",)),
    "s32.s64": Computed(_cast(np.int32), "s32", ("s64",)),
    "u64.u32": Computed(_cast(np.uint64), "u64", ("u32",)),
    "s64.s32": Computed(_cast(np.int64), "s64", ("s32",)),
    "rn.f32.s32": Computed(_cast(np.float32), "f32", ("s32",)),
    "rn.f32.u32": Computed(_cast(np.float32), "f32", ("u32",)),
    "rzi.s32.f32": Computed(_whole, "s32", ("f32",)),
    "sat.f32.f32": Computed(_between, "f32", ("f32",)),
    "rzi.f32.f32": Computed(np.trunc, "f32", ("f32",)),
    "rni.f32.f32": Computed(np.rint, "f32", ("f32",)),
    "rmi.f32.f32": Computed(np.floor, "f32", ("f32",)),
    "rpi.f32.f32": Computed(np.ceil, "f32", ("f32",)),
    "rna.tf32.f32": Computed(_as_tf32, "b32", ("f32",)),
    # The first operand goes to the upper half.
    "rn.bf16x2.f32": Computed(lambda a, b: bf16_words(b, a), "b32", ("f32", "f32")),
}


def converted(word: str, how: tuple[str, ...]) -> Computed:
    """cvt, the ways of it that are known."""
    return CONVERTED.get(".".join(how)) or _no(word, how)
