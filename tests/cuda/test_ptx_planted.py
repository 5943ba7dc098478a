"""Bugs planted in kernels show when what is compiled of them is run by the machine of ptx. Needs
numba-cuda and NVIDIA's compiler."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import test_mixed
import test_rounded
import test_simulated
from test_ptx import executed

# What no result need show: in the machine all warps go on side by side.
UNORDERED = {
    "gemm": (
        "no barrier after a slice",
        "no barrier before a column is read",
        "no barrier before the next column is written",
        "one buffer instead of two",
    ),
    "tensor": (
        "no barrier after a slice has come",
        "a slice is not waited for",
        "copies are in no group",
        "no barrier in the square",
    ),
    "rounded": ("no barrier after a slice has come", "a slice is not waited for"),
}
# What is read or written beside tensors, where it may do no harm.
BESIDE = {
    "gemm": ("positions past the last are written", "filters past the last are written"),
    "tensor": ("positions past the last are written", "channels past the last are read"),
}
OWN = {
    "a vector at an odd place": ("b_n = int32(4 *", "b_n = int32(1 + 4 *"),
    "an index beyond 32 bits": (
        "arena[uint32(base + f * line)] = total",
        "arena[uint32(base + f * line * 16777216)] = total",
    ),
    "an index that is not cut to 32 bits": (
        "arena, uint32(a_at + far)",
        "arena, a_at + far - (1 << 33)",
    ),
}
WARP = {
    "words of b exchanged": ("{$12, $13}, {$4", "{$13, $12}, {$4"),
    "words of a exchanged": ("{$8, $9, $10, $11}, ", "{$8, $10, $9, $11}, "),
    "sums exchanged": ("{$0, $1, $2, $3}, {$8", "{$0, $2, $1, $3}, {$8"),
    "matrices exchanged": ("{{$0, $1, $2, $3}}, [$4]", "{{$0, $2, $1, $3}}, [$4]"),
    "halves of a word exchanged": ("cvt.rn.bf16x2.f32 $0, $2, $1", "cvt.rn.bf16x2.f32 $0, $1, $2"),
    "zeros where something is": ("WORD(16), WORD(0))", "WORD(0), WORD(16))"),
    "fewer bytes than asked for": ("WORD(16), WORD(0))", "WORD(8), WORD(0))"),
}
BUGS = {
    "gemm": (test_simulated.BUGS, test_simulated.SHOWING),
    "tensor": (test_mixed.BUGS, test_mixed.SHOWING),
    "rounded": (test_rounded.BUGS, test_rounded.SHOWING),
}


@pytest.fixture(scope="module")
def shown() -> dict[str, dict[str, str]]:
    """How each bug shows, by where it stands and its name."""
    if find_spec("numba_cuda") is None:
        pytest.skip("numba-cuda is not installed")
    given: dict[str, list[Any]] = {"warp bug": [(3, bug) for bug in WARP.values()]}
    planted: dict[str, dict[str, Any]] = {"warp": WARP}
    for place, (bugs, cases) in BUGS.items():
        planted[place] = {name: bugs[name] for name in (*UNORDERED[place], *BESIDE.get(place, ()))}
        planted[place] |= OWN if place == "gemm" else {}
        given[f"{place} bug"] = [(3, bug, cases) for bug in planted[place].values()]
    found = executed(given)["found"]
    return {
        place: dict(zip(bugs, found[f"{place} bug"], strict=True))
        for place, bugs in planted.items()
    }


@pytest.mark.parametrize("place", BUGS)
def test_missing_barriers_and_waits_are_found(shown: dict[str, Any], place: str) -> None:
    """By the machine itself, whatever they lead to."""
    assert {name: shown[place][name] for name in UNORDERED[place]} == dict.fromkeys(
        UNORDERED[place], "Wrong"
    )


@pytest.mark.parametrize("place", BESIDE)
def test_what_is_beside_tensors_is_not_touched(shown: dict[str, Any], place: str) -> None:
    names = (*BESIDE[place], *(OWN if place == "gemm" else ()))
    assert {name: shown[place][name] for name in names} == dict.fromkeys(names, "Wrong")


@pytest.mark.parametrize("name", WARP)
def test_wrong_instructions_of_a_warp_are_found(shown: dict[str, Any], name: str) -> None:
    assert shown["warp"][name]
