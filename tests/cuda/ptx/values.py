"""Operands of instructions as arrays of an element a thread, and how results are rounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.ir
import numpy as np
from numba import float32, vectorize
from numba.core.extending import intrinsic
from numpy.typing import NDArray

from ptx.text import Operand, Text

Values = NDArray[Any]
Registers = list[Any]
"""Of every register what its threads hold."""
Read = Callable[[Registers], Values]
"""What an operand gives, an element a thread, or one for all."""

TYPES: dict[str, Any] = {
    "pred": np.bool_,
    "b32": np.uint32,
    "bf16x2": np.uint32,
    "u32": np.uint32,
    "s32": np.int32,
    "f32": np.float32,
    "b64": np.uint64,
    "u64": np.uint64,
    "s64": np.int64,
}
"""As instructions name them. Registers of words are kept unsigned."""

POISON: dict[str, Any] = {"pred": False, "f32": np.nan, "b32": 0xDEADBEEF, "b64": 0xDEADBEEF << 32}
"""What a register holds before it is written."""


SPECIAL = tuple(f"%{name}.{axis}" for name in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz")
"""Registers that every thread finds filled: where it is, and of how many."""


class Unknown(Exception):  # noqa: N818 - no error of the kernel's
    """An instruction, or a way to write one, that is not known here."""


class Names:
    """The registers of a kernel by number, and what else an operand may name."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.numbers: dict[str, int] = {}
        self.types: list[str] = []
        self.symbols: dict[str, int] = {}
        self._targets: set[int] = set()

    def register(self, name: str) -> int | None:
        """Its number; None for what is no register."""
        kind = "u32" if name in SPECIAL else self.text.type_of(name)
        if kind is None:
            return None
        if name not in self.numbers:
            self.numbers[name] = len(self.types)
            self.types.append(stored(kind))
        return self.numbers[name]

    def takes(self, operand: str, kind: str) -> bool:
        """Whether it is a register for results of this type."""
        number = self.register(operand)
        return number is not None and fits(self.types[number], kind)

    def written(self, operand: Operand, kind: str) -> int:
        """The number of a register that takes a result of this type. Raises Unknown."""
        number = self.register(operand) if isinstance(operand, str) else None
        if number is None or not fits(self.types[number], kind):
            raise Unknown(f"{operand} takes no {kind}")
        self._targets.add(number)
        return number

    def unwritten(self) -> list[str]:
        """Registers that no instruction writes."""
        return [n for n, i in self.numbers.items() if i not in self._targets and n not in SPECIAL]

    def read(self, operand: Operand, kind: str, *, narrowed: bool = False) -> Read:
        """What gives an operand's values in this type. narrowed: if a register may be twice as
        wide, of which it is the lower half. Raises Unknown."""
        if not isinstance(operand, str):
            raise Unknown(f"{operand} as a {kind}")
        if kind == "pred" and operand.startswith("!"):
            inner = self.read(operand[1:], kind)
            return lambda registers: ~inner(registers)
        number = self.register(operand)
        if number is None:
            value = self.constant(operand, kind)
            return lambda registers: value
        if narrowed and kind[1:] == "32" and self.types[number] == "b64":
            low = TYPES[kind]
            return lambda registers: registers[number].astype(low)
        if not fits(self.types[number], kind):
            raise Unknown(f"{operand} is no {kind}")
        if TYPES[self.types[number]] is TYPES[kind]:
            return lambda registers: registers[number]
        as_type = TYPES[kind]
        return lambda registers: registers[number].view(as_type)

    def constant(self, written: str, kind: str) -> Any:
        """A number as it stands in the text, or where a symbol lies."""
        as_type = TYPES[kind]
        if written in self.symbols:
            return as_type(self.symbols[written])
        if written.startswith("0f"):
            value = np.uint32(int(written[2:], 16))
            return value.view(np.float32) if kind == "f32" else as_type(value)
        try:
            whole = int(written.rstrip("U"), 0)
        except ValueError:
            raise Unknown(f"{written} as a {kind}") from None
        if kind == "pred":
            return np.bool_(whole)
        if kind == "f32":
            raise Unknown(f"{written} as a {kind}")
        bits = 8 * np.dtype(as_type).itemsize
        return np.array(whole % 2**bits, f"u{bits // 8}").view(as_type)[()]


def stored(kind: str) -> str:
    """The type that a register of this declared type is kept in. Raises Unknown."""
    if kind in ("pred", "f32"):
        return kind
    if kind in ("b32", "u32", "s32", "b64", "u64", "s64"):
        return f"b{kind[1:]}"
    raise Unknown(f"registers of {kind}")


def fits(held: str, kind: str) -> bool:
    """Whether a register of one type may be named where an instruction takes another: PTX wants
    sizes equal, and floats apart from words but where there are only bits."""
    if kind not in TYPES or "pred" in (held, kind):
        return held == kind
    same = np.dtype(TYPES[held]).itemsize == np.dtype(TYPES[kind]).itemsize
    return same and (held == kind or held[0] == "b" or kind[0] == "b")


@intrinsic  # type: ignore[misc]
def _fused(typing: Any, a: Any, b: Any, c: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
        kind = llvmlite.ir.FunctionType(llvmlite.ir.FloatType(), [llvmlite.ir.FloatType()] * 3)
        called = builder.module.declare_intrinsic("llvm.fma", [llvmlite.ir.FloatType()], kind)
        return builder.call(called, args)

    return float32(float32, float32, float32), code


@vectorize(["float32(float32, float32, float32)"])  # type: ignore[misc]
def fused(a: Any, b: Any, c: Any) -> Any:
    """a b + c, rounded once."""
    return _fused(a, b, c)


def exact_sum(a: Values, b: Values) -> tuple[Values, Values]:
    """The sum of float64 as what float64 has of it and what is left."""
    whole = a + b
    part = whole - a
    return whole, (a - (whole - part)) + (b - part)


def rounded(whole: Values, left: Values, how: str) -> Values:
    """The float32 next to whole + left, float64 with `left` far smaller: below it ("rm"), above
    it ("rp"), towards zero ("rz")."""
    near = whole.astype(np.float32)
    over = (near.astype(np.float64) - whole) - left
    down = (how == "rm") | ((how == "rz") & (whole > 0))
    low = np.where(over > 0, np.nextafter(near, np.float32(-np.inf)), near)
    high = np.where(over < 0, np.nextafter(near, np.float32(np.inf)), near)
    return np.where(down, low, high)


def without_subnormals(values: Values) -> Values:
    """Zeros of the same sign where values are subnormal, as `.ftz` has them."""
    tiny = np.abs(values) < np.float32(2.0**-126)
    return np.where(tiny, np.copysign(np.float32(0), values), values)
