"""The vectors that kernels are written in, by name: `intrinsics.py` says what each does."""

from __future__ import annotations

from typing import Any

from netdsl.cpu.late import late


def _vector(name: str) -> Any:
    return late("netdsl.cpu.intrinsics", name)


estimable = _vector("estimable")
first = _vector("first")
keep = _vector("keep")
largest = _vector("largest")
load = _vector("load")
magnitude = _vector("magnitude")
maximum = _vector("maximum")
maximum3 = _vector("maximum3")
move2 = _vector("move2")
move4 = _vector("move4")
muladd = _vector("muladd")
narrow = _vector("narrow")
nearest = _vector("nearest")
power = _vector("power")
root_estimate = _vector("root_estimate")
scale_by_power = _vector("scale_by_power")
splat = _vector("splat")
sqrt = _vector("sqrt")
store = _vector("store")
store_wide = _vector("store_wide")
sum_of_five = _vector("sum_of_five")
total = _vector("total")
where_less = _vector("where_less")
wide_splat = _vector("wide_splat")
widen = _vector("widen")
with_sign = _vector("with_sign")
within = _vector("within")

halved = late("netdsl.cpu.half", "halved")
larger = late("netdsl.cpu.half", "larger")
least_half = late("netdsl.cpu.half", "least_half")
load_halves = late("netdsl.cpu.half", "load_halves")
paired = late("netdsl.cpu.half", "paired")
store_bytes = late("netdsl.cpu.half", "store_bytes")
store_half = late("netdsl.cpu.half", "store_half")
store_halves = late("netdsl.cpu.half", "store_halves")
store_woven = late("netdsl.cpu.half", "store_woven")

misfits = late("netdsl.cpu.tight_bits", "misfits")
tighten = late("netdsl.cpu.tight_bits", "tighten")
