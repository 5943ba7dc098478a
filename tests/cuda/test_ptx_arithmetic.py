"""Instructions of one thread against their definitions, by Python's whole numbers and fractions."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from ptx.text import parsed
from ptx.values import Unknown
from snippets import run

M32, M64 = 2**32 - 1, 2**64 - 1
EDGES = [0, 1, 2, 31, 32, 33, 255, 0x7FFFFFFF, 0x80000000, 0x80000001, M32 - 1, M32]
FLOATS = [0.0, -0.0, 1.0, -1.5, 0.1, 2.5, 3.5, 1e-40, 3e38, -3e38, 7.9e-31, 16777217.0, 88.7]
FLOATS += [math.inf, -math.inf, math.nan]

random = np.random.default_rng(0)


def words() -> list[tuple[int, int, int]]:
    """Three words for each of some threads."""
    edges = [(a, b, c) for a in EDGES for b in EDGES for c in (0, 5, 33, M32)]
    return edges + [tuple(map(int, row)) for row in random.integers(0, 2**32, (300, 3))]


def floats() -> list[tuple[int, int, int]]:
    edges = [(a, b, c) for a in FLOATS for b in FLOATS for c in (0.0, -1.0, 3.1, math.inf)]
    normal = random.normal(size=(300, 3)) * 10.0 ** random.integers(-12, 12, (300, 3))
    return [tuple(map(bits, row)) for row in [*edges, *normal.tolist()]]


def bits(x: float) -> int:
    """Of the float32 next to x."""
    return int(np.float32(x).view(np.uint32))


def real(word: int) -> float:
    found: float = struct.unpack("<f", struct.pack("<I", word))[0]
    return found


def signed(word: int, size: int = 32) -> int:
    return word - (word >> (size - 1) << size)


def nearest(x: Fraction, how: str = "rn") -> int:
    """The float32 next to x: half to even, or the one below, or the one towards zero."""
    if x == 0:
        return 0
    size = abs(x)
    power = size.numerator.bit_length() - size.denominator.bit_length()
    if Fraction(2) ** power > size:
        power -= 1
    unit = Fraction(2) ** max(power - 23, -149)
    whole, left = divmod(size, unit)
    down = how == "rz" or (how == "rm" and x > 0)
    up = left > 0 and how == "rm" and x < 0
    if not down:
        up = up or (how == "rn" and (2 * left > unit or (2 * left == unit and whole % 2 == 1)))
    size = (whole + up) * unit
    if size >= Fraction(2) ** 128:
        return bits(math.copysign(3.4028234663852886e38 if how != "rn" and down else math.inf, x))
    return bits(math.copysign(float(size), x))


def fused(how: str) -> Callable[..., int | None]:
    def wanted(a: int, b: int, c: int) -> int | None:
        x, y, z = map(real, (a, b, c))
        if not all(map(math.isfinite, (x, y, z))):
            return None
        exact = Fraction(x) * Fraction(y) + Fraction(z)
        return nearest(exact, how) if exact else None

    return wanted


def binary(operation: Callable[[Fraction, Fraction], Fraction], how: str = "rn") -> Any:
    def wanted(a: int, b: int, c: int) -> int | None:
        x, y = real(a), real(b)
        if not (math.isfinite(x) and math.isfinite(y)) or (y == 0 and operation is divided):
            return None
        exact = operation(Fraction(x), Fraction(y))
        return nearest(exact, how) if exact else None

    return wanted


def divided(x: Fraction, y: Fraction) -> Fraction:
    return x / y


def inserted(a: int, b: int, c: int) -> int:
    place, length = c % 256, (a >> 3) % 256
    mask = ((1 << min(length, 32)) - 1) << place & M32
    return b & ~mask & M32 | (a << place & mask)


def towards_zero(a: int, b: int) -> int:
    found = abs(a) // abs(b)
    return found if (a < 0) == (b < 0) else -found


def halves(a: float, b: float) -> int:
    """Two bfloat16, half to even, the first in the lower half."""

    def half(x: float) -> int:
        if math.isnan(x):
            return 0x7FFF
        low = bits(x) & 0xFFFF
        high = bits(x) >> 16
        return high + (low > 0x8000 or (low == 0x8000 and high % 2 == 1))

    return half(a) | half(b) << 16


def largest(x: float, y: float) -> float:
    return math.nan if math.isnan(x) or math.isnan(y) else max(x, y)


def largest_halves(a: int, b: int, c: int) -> int | None:
    """Of two zeros either is the larger."""
    a0, b0 = (real(x << 16 & M32) for x in (a, b))
    a1, b1 = (real(x >> 16 << 16) for x in (a, b))
    if a0 == b0 == 0 or a1 == b1 == 0:
        return None
    return halves(largest(a0, b0), largest(a1, b1))


def larger(a: int, b: int, c: int) -> int | None:
    """The other where one is NaN."""
    x, y = real(a), real(b)
    if x == y == 0:
        return None
    return b if math.isnan(x) else a if math.isnan(y) or x > y else b


def larger_or_nan(a: int, b: int, c: int) -> int | None:
    x, y = real(a), real(b)
    return None if x == y == 0 else bits(largest(x, y))


def clamped(a: int, b: int, c: int) -> int:
    x = real(a)
    if math.isnan(x):
        return 0
    return int(max(-(2.0**31), min(2.0**31 - 1, x)))


WHOLE: dict[str, Callable[[int, int, int], int | None]] = {
    "add.s32 %r10, %r5, %r6": lambda a, b, c: a + b,
    "sub.s32 %r10, %r5, %r6": lambda a, b, c: a - b,
    "mul.lo.s32 %r10, %r5, %r6": lambda a, b, c: a * b,
    "mul.hi.u32 %r10, %r5, %r6": lambda a, b, c: a * b >> 32,
    "mul.hi.s32 %r10, %r5, %r6": lambda a, b, c: signed(a) * signed(b) >> 32,
    "mad.lo.s32 %r10, %r5, %r6, %r7": lambda a, b, c: a * b + c,
    "mad.lo.s32 %r10, %r5, -768, %r7": lambda a, b, c: a * -768 + c,
    "max.s32 %r10, %r5, %r6": lambda a, b, c: max(signed(a), signed(b)),
    "min.s32 %r10, %r5, -3": lambda a, b, c: min(signed(a), -3),
    "max.u32 %r10, %r5, %r6": lambda a, b, c: max(a, b),
    "neg.s32 %r10, %r5": lambda a, b, c: -a,
    "not.b32 %r10, %r5": lambda a, b, c: ~a,
    "and.b32 %r10, %r5, -16": lambda a, b, c: a & -16,
    "or.b32 %r10, %r5, %r6": lambda a, b, c: a | b,
    "xor.b32 %r10, %r5, %r6": lambda a, b, c: a ^ b,
    "shl.b32 %r10, %r5, %r6": lambda a, b, c: a << b if b < 32 else 0,
    "shr.u32 %r10, %r5, %r6": lambda a, b, c: a >> b if b < 32 else 0,
    "shr.s32 %r10, %r5, %r6": lambda a, b, c: signed(a) >> min(b, 31),
    "div.u32 %r10, %r5, %r6": lambda a, b, c: a // b,
    "rem.u32 %r10, %r5, %r6": lambda a, b, c: a % b,
    "div.s32 %r10, %r5, %r6": lambda a, b, c: towards_zero(signed(a), signed(b)),
    "shr.u32 %r8, %r5, 3; bfi.b32 %r10, %r5, %r6, %r7, %r8": inserted,
    "mul.wide.u32 %rd9, %r5, %r6; shr.u64 %rd9, %rd9, 7; cvt.u32.u64 %r10, %rd9": lambda a, b, c: (
        a * b >> 7
    ),
    "mul.wide.s32 %rd9, %r5, %r6; shr.s64 %rd9, %rd9, 9; cvt.u32.u64 %r10, %rd9": lambda a, b, c: (
        signed(a) * signed(b) >> 9
    ),
    "mul.wide.u32 %rd9, %r5, 4; and.b64 %rd9, %rd9, 17179869180; shr.u64 %rd9, %rd9, 3; "
    "cvt.u32.u64 %r10, %rd9": lambda a, b, c: (a * 4 & 17179869180) >> 3,
    "cvt.s64.s32 %rd9, %r5; shl.b64 %rd9, %rd9, 4; shr.s64 %rd9, %rd9, 24; cvt.u32.u64 %r10, "
    "%rd9": lambda a, b, c: signed(a) << 4 >> 24,
    "cvt.u64.u32 %rd9, %r5; add.s64 %rd9, %rd9, -1; shr.u64 %rd9, %rd9, 8; cvt.u32.u64 %r10, "
    "%rd9": lambda a, b, c: (a - 1 & M64) >> 8,
    "cvt.s64.s32 %rd9, %r5; cvt.s64.s32 %rd9, %rd9; shr.u64 %rd9, %rd9, 20; cvt.u32.u64 %r10, "
    "%rd9": lambda a, b, c: (signed(a) & M64) >> 20,
    "setp.lt.s32 %p1, %r5, %r6; selp.b32 %r10, %r7, 9, %p1": lambda a, b, c: (
        c if signed(a) < signed(b) else 9
    ),
    "setp.lt.u32 %p1, %r5, %r6; setp.gt.and.s32 %p2, %r7, 3, %p1; selp.u32 %r10, 1, 0, "
    "%p2": lambda a, b, c: a < b and signed(c) > 3,
    "setp.ne.s32 %p1, %r5, 0; setp.eq.or.s32 %p2, %r7, 5, !%p1; selp.u32 %r10, 1, 0, "
    "%p2": lambda a, b, c: c == 5 or a == 0,
    "setp.ge.s32 %p1, %r5, %r6; setp.le.s32 %p2, %r5, %r7; xor.pred %p3, %p1, %p2; not.pred %p3, "
    "%p3; selp.u32 %r10, 1, 0, %p3": lambda a, b, c: (
        (signed(a) >= signed(b)) == (signed(a) <= signed(c))
    ),
    "mov.u32 %r10, 4; setp.gt.s32 %p1, %r5, %r6; @!%p1 mov.u32 %r10, %r7": lambda a, b, c: (
        4 if signed(a) > signed(b) else c
    ),
    "max.NaN.bf16x2 %r10, %r5, %r6": largest_halves,
}

REAL: dict[str, Callable[[int, int, int], int | None]] = {
    "add.f32 %f10, %f5, %f6": binary(lambda x, y: x + y),
    "add.rz.f32 %f10, %f5, %f6": binary(lambda x, y: x + y, "rz"),
    "sub.f32 %f10, %f5, %f6": binary(lambda x, y: x - y),
    "mul.f32 %f10, %f5, %f6": binary(lambda x, y: x * y),
    "div.rn.f32 %f10, %f5, %f6": binary(divided),
    "fma.rn.f32 %f10, %f5, %f6, %f7": fused("rn"),
    "fma.rm.f32 %f10, %f5, %f6, %f7": fused("rm"),
    "neg.f32 %f10, %f5": lambda a, b, c: a ^ 0x80000000,
    "abs.f32 %f10, %f5": lambda a, b, c: a & 0x7FFFFFFF,
    "copysign.f32 %f10, %f5, %f6": lambda a, b, c: a & 0x80000000 | b & 0x7FFFFFFF,
    "mov.f32 %f10, 0f40490FDB": lambda a, b, c: 0x40490FDB,
    "mov.b32 %r9, %f5; mov.b32 %f10, %r9": lambda a, b, c: a,
    "max.f32 %f10, %f5, %f6": larger,
    "max.NaN.f32 %f10, %f5, %f6": larger_or_nan,
    "cvt.rzi.s32.f32 %r9, %f5; mov.b32 %f10, %r9": clamped,
    "cvt.rn.f32.s32 %f10, %r5": lambda a, b, c: nearest(Fraction(signed(a))),
    "cvt.sat.f32.f32 %f10, %f5": lambda a, b, c: (
        bits(min(max(real(a), 0.0), 1.0)) if not math.isnan(real(a)) and real(a) else 0
    ),
    "cvt.rni.f32.f32 %f10, %f5": lambda a, b, c: (
        bits(round(real(a))) if math.isfinite(real(a)) and abs(real(a)) >= 1 else None
    ),
    "cvt.rmi.f32.f32 %f10, %f5": lambda a, b, c: (
        bits(math.floor(real(a))) if math.isfinite(real(a)) and abs(real(a)) >= 1 else None
    ),
    "cvt.rna.tf32.f32 %r9, %f5; mov.b32 %f10, %r9": lambda a, b, c: (
        (a + 0x1000) & 0xFFFFE000 if math.isfinite(real(a)) else None
    ),
    "cvt.rn.bf16x2.f32 %r9, %f6, %f5; mov.b32 %f10, %r9": lambda a, b, c: halves(real(a), real(b)),
    "setp.lt.f32 %p1, %f5, %f6; selp.f32 %f10, %f7, 0f3F800000, %p1": lambda a, b, c: (
        c if real(a) < real(b) else 0x3F800000
    ),
    "setp.geu.f32 %p1, %f5, %f6; selp.f32 %f10, %f7, 0f00000000, %p1": lambda a, b, c: (
        0 if real(a) < real(b) else c
    ),
    "setp.neu.f32 %p1, %f5, %f6; selp.f32 %f10, %f7, 0f00000000, %p1": lambda a, b, c: (
        c if real(a) != real(b) else 0
    ),
    "setp.nan.f32 %p1, %f5, %f6; selp.f32 %f10, %f7, 0f00000000, %p1": lambda a, b, c: (
        c if math.isnan(real(a)) or math.isnan(real(b)) else 0
    ),
}

LOAD = """
    mul.wide.u32 %rd6, %r4, 12; add.s64 %rd6, %rd2, %rd6;
    ld.global.u32 %r5, [%rd6]; ld.global.u32 %r6, [%rd6+4]; ld.global.u32 %r7, [%rd6+8];
    mov.b32 %f5, %r5; mov.b32 %f6, %r6; mov.b32 %f7, %r7;
"""


def results(code: str, given: list[tuple[int, int, int]]) -> list[int]:
    """What a thread for each triple of words gets."""
    count = -(-len(given) // 32) * 32
    rows = np.array([*given, *[(1, 1, 1)] * (count - len(given))], np.uint32)
    kind, register = ("f32", "%f10") if "%f10" in code else ("u32", "%r10")
    found = run(
        f"{LOAD}\n{code};\nst.global.{kind} [%rd4], {register};",
        rows,
        count,
        blocks=count // 32,
    )
    return [int(word) for word in found[: len(given)]]


@pytest.mark.parametrize("code", WHOLE)
def test_whole_numbers(code: str) -> None:
    divides = code.startswith(("div", "rem"))
    given, compared = [row for row in words() if row[1] or not divides], 0
    for row, found in zip(given, results(code, given), strict=True):
        wanted = WHOLE[code](*row)
        if wanted is not None:
            compared += 1
            assert found == wanted & M32, row
    assert compared > 300


@pytest.mark.parametrize("code", REAL)
def test_real_numbers(code: str) -> None:
    given, compared = floats(), 0
    for row, found in zip(given, results(code, given), strict=True):
        wanted = REAL[code](*row)
        if wanted is not None:
            compared += 1
            wanted &= M32
            nan = math.isnan(real(wanted)) and math.isnan(real(found))
            assert found == wanted or nan, [real(word) for word in row]
    assert compared > 100


@pytest.mark.parametrize(
    ("code", "function", "apart"),
    [
        ("ex2.approx.ftz.f32 %f10, %f5", lambda x: 2.0**x, 2.0**-22),
        ("rcp.approx.ftz.f32 %f10, %f5", lambda x: 1 / x, 2.0**-23),
        ("rcp.rn.f32 %f10, %f5", lambda x: 1 / x, 2.0**-24),
        ("sqrt.rn.f32 %f10, %f5", math.sqrt, 2.0**-24),
    ],
)
def test_functions(code: str, function: Callable[[float], float], apart: float) -> None:
    given = [bits(x) for x in np.concatenate([random.uniform(0.01, 60, 50), [1, 2, 4]])]
    for word, found in zip(given, results(code, [(w, 0, 0) for w in given]), strict=True):
        wanted = function(real(word))
        assert abs(real(found) - wanted) <= 1.01 * apart * wanted


def test_small_results_are_flushed_where_it_says_so() -> None:
    given = [(bits(-130.0), 0, 0), (bits(-math.inf), 0, 0)]
    assert results("ex2.approx.ftz.f32 %f10, %f5", given) == [0, 0]
    assert results("ex2.approx.f32 %f10, %f5", given) == [bits(2.0**-130), 0]
    small = [(bits(-1e-40), 0, 0)]
    assert results("rcp.approx.ftz.f32 %f10, %f5", small) == [bits(-math.inf)]


@pytest.mark.parametrize(
    "code",
    [
        "popc.b32 %r10, %r5",
        "add.sat.s32 %r10, %r5, %r6",
        "fma.rp.f32 %f10, %f5, %f6, %f7",
        "mul.wide.s32 %r10, %r5, %r6",
        "add.s32 %r10, %f5, %r6",
        "add.s64 %rd9, %rd1, %r5",
        "cvt.rn.f16.f32 %r10, %f5",
        "ld.global.b16 %r10, [%rd6]",
        "atom.global.add.u32 %r10, [%rd6], 1",
        "mov.u32 %r10, %clock",
        "shfl.sync.wild.b32 %r10, %r5, 1, 31, -1",
        "bar.sync 1",
        "mov.u32 %r10, %r39",
    ],
)
def test_what_is_not_known_is_refused(code: str) -> None:
    with pytest.raises(Unknown):
        results(f"mov.u32 %r10, 0; {code}", [(0, 0, 0)])


def test_statements_are_found_on_lines_of_any_length() -> None:
    text = parsed(
        ".visible .entry one(\n.param .u64 p0\n)\n{\n.reg .b32 %r<3>;\nmov.u32 %r1, 5; // five\n"
        "// begin inline asm\n{ .reg .pred q; setp.ne.b32 q, %r1, 0; @q mov.b32 %r2, %r1; }\n"
        "$L_1:\n.loc 1 77 3\n@!q bra $L_1;\nret;\n}\n"
    )
    ops = [".".join(each.op) for each in text.instructions]
    assert ops == ["mov.u32", "setp.ne.b32", "mov.b32", "bra", "ret"]
    assert text.labels == {"$L_1": 3}
    assert [each.guard for each in text.instructions] == ["", "", "q", "q", ""]
    assert [each.negated for each in text.instructions] == [False, False, False, True, False]
    assert [each.line for each in text.instructions] == [6, 8, 8, 11, 12]
    assert text.instructions[3].source == 77
