"""Convolutions on tensor cores, in Numba's simulator: right to the last bit that their precision
keeps, and bugs planted in the pipeline show."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from netdsl.cuda.device import Card, too_old
from netdsl.cuda.mixed import LONG, share_out
from netdsl.cuda.tensor import HALF, LARGE, SMALL, WarpTile

SCRIPT = Path(__file__).parent / "simulated_mixed.py"

Case = tuple[str, int, str, int]

CHOSEN: list[Case] = [
    ("input 3x5x4; conv3x3s2p1(5) -> relu", 2, "tf32", 3),
    ("input 2x7; conv3p1d2(3, bias=no, pad_end=2) -> leaky(0.2)", 3, "bf16", 4),
    ("input 5x2x3x3; conv2p1(7)", 1, "tf32", 4),
    ("input 3x9x11; conv2x2(17)", 1, "tf32", 5),
    ("input 9x9x11; conv1x1(18)", 1, "bf16", 5),
    ("input 3x10x10; conv3x3p1(5)", 1, "bf16", 5),
    ("input 150x3; conv3p1(2)", 1, "tf32", 5),
    ("input 3x10x10; conv1x1(5)", 1, "tf32", 5),
    ("input 80x2x2; conv3x3p1(3)", 1, "tf32", 5),
    ("input 160x2x2; conv3x3p1(3)", 1, "bf16", 5),
    ("input 3x4x4; tconv2x2s2(3)", 2, "bf16", 5),
    ("input 32x3x3; conv1x1g2(32)", 2, "tf32", 7),
    ("input 48x5; conv3p1g3(51) -> relu", 2, "bf16", 7),
    ("input 64x2x2; conv3x3p1g2(32)", 1, "tf32", 7),
    ("input 32x2x2; tconv2x2s2g2(32)", 1, "bf16", 7),
    ("input 9x2x3; tconv1x1s2(5)", 2, "bf16", 7),
    ("input 5x3; tconv1s3(4)", 2, "tf32", 7),
    # Tiles of more positions than a block has threads, the last of them without.
    ("input 3x21x31; conv2x2(5) -> relu6", 1, "tf32", 5),
    ("input 5x24x25; conv1x1(11) -> hswish", 1, "bf16", 5),
    ("input 3x10x19; conv1x1(50) -> leaky(0.3)", 1, "tf32", 5),
    ("input 9x11x17; conv1x1(61)", 1, "bf16", 5),
    ("input 3x3x2; fc(5) -> relu", 9, "bf16", 6),
    # Of few samples in bfloat16: inputs of whole fours and of others, filters past the last.
    ("input 12; fc(4) -> relu", 3, "bf16", 6),
    ("input 19; fc(5)", 6, "bf16", 6),
    ("input 80; fc(6)", 1, "bf16", 6),
    ("input 11; fc(4)", 9, "tf32", 6),
]

# Of sums in float32: a hundred terms or so, each half of the last of 24 bits off.
TOLERANCE = 100 * 2.0**-24


def simulate(mode: str, given: object) -> Any:
    """What the script prints, run with these cases."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), mode],
        input=json.dumps(given),
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def agree(cases: list[Case]) -> list[float]:
    """Asserts it; gives how much of what rounding may do it did."""
    found = simulate("agree", cases)
    assert len(found) == len(cases)
    for case, (apart, share) in zip(cases, found, strict=True):
        assert apart <= TOLERANCE, case
        assert share <= 1, case
    return [share for _, share in found]


def test_factors_are_rounded_and_sums_are_not() -> None:
    assert min(agree(CHOSEN)) > 1e-2


def drawn(chance: random.Random) -> Case:
    """A small convolution of any rank."""
    rank = chance.choice((1, 2, 2, 3))
    kernel = [chance.randint(1, 3) for _ in range(rank)]
    dilation = [chance.choice((1, 1, 2)) for _ in range(rank)]
    size = [(k - 1) * d + chance.randint(1, 4) for k, d in zip(kernel, dilation, strict=True)]

    def spelled(values: list[int]) -> str:
        return "x".join(map(str, values))

    stride = [chance.choice((1, 1, 2)) for _ in range(rank)]
    padding = [chance.randint(0, k // 2) for k in kernel]
    word = f"conv{spelled(kernel)}s{spelled(stride)}p{spelled(padding)}d{spelled(dilation)}"
    text = f"input {chance.randint(1, 12)}x{spelled(size)}; {word}({chance.randint(1, 9)})"
    precision = chance.choice(("tf32", "bf16"))
    return text, chance.randint(1, 3), precision, chance.randrange(2**20)


def test_shapes_that_nobody_chose() -> None:
    chance = random.Random()
    agree([drawn(chance) for _ in range(5)])


def test_the_cases_meet_every_tile() -> None:
    found = simulate("kernels", CHOSEN)
    assert set(found["all"]) - set(found["met"]) == set()
    others = {"pack_planes", "pack_rows", "pack_units", "conv_finish", "dense_rows"}
    assert others <= set(found["met"])


@pytest.mark.parametrize(
    ("word", "precision", "packed"),
    [
        ("conv1g2(32)", "tf32", True),
        ("conv1g2(30)", "tf32", False),
        ("conv1g4(64)", "tf32", False),
        ("conv1g2(32)", "bf16", True),
    ],
)
def test_groups_are_large_enough_or_stay_in_float32(
    word: str, precision: str, packed: bool
) -> None:
    """32 channels: in two groups sixteen each, in four eight."""
    found = simulate("kernels", [[f"input 32x3; {word}", 1, precision, 1]])
    assert ("pack_planes" in found["met"]) == packed


def test_groups_of_channels_that_are_no_units_stay_in_float32() -> None:
    """Of bfloat16 eight channels are a unit, of TF32 four."""
    cases = [[f"input {n}x3; conv1g2(36)", 1, p, 1] for n in (36, 40) for p in ("tf32", "bf16")]
    met = [simulate("kernels", [case])["met"] for case in cases]
    expected = [36 // 2 % 4 == 0, 36 // 2 % 8 == 0, True, 40 // 2 % 8 == 0]
    assert ["pack_planes" in each for each in met] == expected


BUGS = {
    "no barrier after a slice has come": (
        "tensor",
        "                come()\n                cuda.syncthreads()\n",
        "                come()\n",
    ),
    "a slice is not waited for": ("tensor", "                come()\n", ""),
    "one slice too few is waited for, of three": ("tensor", "arrived(AHEAD - 1)", "arrived(AHEAD)"),
    "one slice too few is waited for, of six": ("tensor", "arrived(4)", "arrived(5)"),
    "copies are in no group": ("tensor", "            commit()\n", ""),
    "two stages instead of three": (
        "tensor",
        "if fill < AHEAD else int32(-AHEAD * STAGE)",
        "if fill == 0 else int32(0)",
    ),
    "a stage is multiplied twice": (
        "tensor",
        "a_read, b_read = int32(a_read + step), int32(b_read + step)",
        "a_read, b_read = int32(a_read + step * (s & 1)), int32(b_read + step * (s & 1))",
    ),
    "no barrier before positions are read": (
        "tensor",
        "        cuda.syncthreads()\n        for j in range(A_ROWS):",
        "        for j in range(A_ROWS):",
    ),
    "no barrier after positions are read": (
        "tensor",
        "        cuda.syncthreads()\n        a_to = place",
        "        a_to = place",
    ),
    "no barrier after the last slice": (
        "tensor",
        "        all_arrived()\n        cuda.syncthreads()\n",
        "        all_arrived()\n",
    ),
    "no barrier before places are read": (
        "ending",
        "        cuda.syncthreads()\n        if splits > 1:",
        "        if splits > 1:",
    ),
    "all groups have the first one's channels": (
        "tensor",
        "group * ints[uint32(at + SOURCE_GROUP)]",
        "0",
    ),
    "all groups have the first one's weights": (
        "tensor",
        "group * ints[uint32(at + WEIGHTS_GROUP)]",
        "0",
    ),
    "all groups have the first one's bias": (
        "ending",
        "int32(ints[uint32(at + BIAS)] + earlier)",
        "ints[uint32(at + BIAS)]",
    ),
    "all groups are written to the first one's place": (
        "ending",
        "write(arena, tile, sums, row, f, filters, earlier, apart)",
        "write(arena, tile, sums, row, f, filters, 0, apart)",
    ),
    "parts of groups lie on each other": (
        "ending",
        "(split * ints[uint32(at + GROUPS)] + group)",
        "(split + group)",
    ),
    "edges are not looked at": ("tensor", "(bits & crossed[i]) |", "(0 & crossed[i]) |"),
    "positions past the last are written": ("ending", "if m < positions:", "if m < 999:"),
    "filters past the last are written": (
        "ending",
        "if base >= 0 and f + 8 * j + e < filters:",
        "if base >= 0:",
    ),
    "the second half of the sums is not bent": ("ending", "if TWICE:", "if TWICE and at < 0:"),
    "the last positions of a tile are not looked for": (
        "ending",
        "            i = int32(i + THREADS)\n\n    return find",
        "            i = int32(TM)\n\n    return find",
    ),
    "the last positions of a tile have no windows": (
        "tensor",
        "            i = int32(i + THREADS)\n        cuda.syncthreads()",
        "            i = int32(TM)\n        cuda.syncthreads()",
    ),
    "the last part of a split sum is as long as the others": ("tensor", "if rest <", "if 0 >"),
    "rows of a fragment in other lanes": (
        "tensor",
        "down * WM + (lane & 15)",
        "down * WM + lane // 2",
    ),
    "units of a fragment in other lanes": ("tensor", "int32(lane >> 4))\n", "int32(lane & 1))\n"),
    "filters' rows in other lanes": ("tensor", "(lane & 7) + 8 * (lane >> 4)", "(lane & 15)"),
    "filters' units in other lanes": ("tensor", "int32((lane >> 3) & 1)", "int32(lane >> 4)"),
    "the second half is not the other units": (
        "tensor",
        "a_read ^ 8, b_read ^ 8",
        "a_read ^ 4, b_read ^ 8",
    ),
    "places are not mixed where they are read": (
        "tensor",
        "a_read = place(int32(down * WM + (lane & 15)), int32(lane >> 4))",
        "a_read = int32((down * WM + (lane & 15)) * DEEP + 4 * (lane >> 4))",
    ),
    "sums' columns are exchanged": (
        "ending",
        "k = 4 * (i * ACROSS + j) + 2 * h + e\n                            arena",
        "k = 4 * (i * ACROSS + j) + 2 * h + 1 - e\n                            arena",
    ),
    "sums' rows are exchanged": (
        "ending",
        "BASE * TM + row + 16 * i + 8 * h",
        "BASE * TM + row + 16 * i + 8 * (1 - h)",
    ),
    "biases are those of other filters": (
        "ending",
        "own = int32(f + 8 * j + e)\n                added",
        "own = int32(f + 8 * j + 1 - e)\n                added",
    ),
    "no barrier in the square": ("pack", "    cuda.syncthreads()\n    across", "    across"),
    "channels past the last are read": ("pack", "if first_c + c < channels and", "if"),
    "positions past the last are packed": (
        "pack",
        "if first_p + p < plane and first_w",
        "if first_w",
    ),
    "halves are exchanged": ("pack", "as_bf16(low, square[", "as_bf16(-low, square["),
    "channels past the unit's last are read": ("pack", "c < channels)", "c <= channels)"),
    "positions past the unit's last": ("pack", "if p >= plane:", "if p > plane:"),
    "all samples are packed in the first one's unit": (
        "pack",
        "n * ints[uint32(at + TARGET_BATCH)] + 4 * p",
        "4 * p",
    ),
    "no barrier before warps' sums are read": (
        "reduce",
        "        cuda.syncthreads()\n        i = t",
        "        i = t",
    ),
    "a warp's sums are left out": ("reduce", "for w in range(WARPS)", "for w in range(1, WARPS)"),
    "samples past the last are written": ("reduce", "if s < taken and f <", "if f <"),
    "filters past the last have biases": (
        "reduce",
        "if s < taken and f < ints[uint32(at + FILTERS)]:",
        "if s < taken:",
    ),
    "inputs past the last are read": ("reduce", "if left > 3 else", "if left > -9 else"),
    "all filters have the first one's weights": ("reduce", "begin + f * row", "begin + 0 * f"),
    "a word's second channel is past the last": (
        "pack",
        "if each == 2 and c + 1 < channels",
        "if each == 2",
    ),
}

SHOWING: list[Case] = [
    ("input 5x3x5; conv3x3p1(5)", 1, "bf16", 1),
    ("input 9x5x3; conv3x3p1(3)", 1, "tf32", 1),
    ("input 144x2x2; conv3x3p1(2)", 1, "tf32", 1),
    ("input 9; fc(3)", 9, "bf16", 1),
    ("input 19 as a; a -> fc(33) as b; a -> fc(3) as c; output c, b", 6, "bf16", 6),
    ("input 19; fc(5)", 6, "bf16", 6),
    ("input 4x3x3; conv1x1(3)", 2, "bf16", 1),
    ("input 9x70; conv3p1(3)", 1, "tf32", 1),
    ("input 3x70; conv1(36)", 1, "tf32", 1),
    ("input 64x2; conv1(2)", 1, "bf16", 1),
    ("input 140x2x2; conv3x3p1(2)", 1, "tf32", 1),
    ("input 64x2x2; conv3x3p1g2(32)", 1, "tf32", 7),
    ("input 32x2; conv1g2(32)", 1, "tf32", 7),
    ("input 3x24x25; conv1x1(5) -> leaky(0.3)", 1, "tf32", 5),
    ("input 3x30x30; conv1x1(64)", 1, "bf16", 6),
]


def test_planted_bugs_are_found() -> None:
    same = ("tensor", "ALIGNED = 128\n", "ALIGNED = 128\n\n")
    found = simulate("planted", {"bugs": [same, *BUGS.values()], "cases": SHOWING})
    assert found[0] == ""
    missed = [name for name, shown in zip(BUGS, found[1:], strict=True) if not shown]
    assert not missed


@pytest.mark.parametrize(
    ("positions", "filters", "slices", "tile"),
    [
        (64 * 56 * 56, 256, 144, LARGE),
        (64 * 224 * 224, 64, 36, HALF),
        (14 * 14, 512, 288, SMALL),
        (64, 4096, 1568, SMALL),
        (7 * 7, 32, 3, SMALL),
    ],
)
def test_every_slice_is_in_one_part_and_the_card_is_filled(
    positions: int, filters: int, slices: int, tile: WarpTile
) -> None:
    cut = share_out(positions, filters, slices, 132)
    assert cut.tile == tile
    assert (cut.splits - 1) * cut.slices < slices <= cut.splits * cut.slices
    blocks = -(-positions // tile.m) * -(-filters // tile.n) * cut.splits
    assert blocks >= 132 or cut.slices <= 2 * LONG


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_card_without_these_tensor_cores_says_so(precision: str) -> None:
    fault = too_old(Card("Tesla T4", (7, 5)), precision)
    assert fault is not None
    assert "Tesla T4" in fault.message
    assert precision in fault.message
    assert fault.help == "--precision fp32 runs on it"
    assert too_old(Card("Tesla T4", (7, 5)), "fp32") is None
    assert too_old(Card("A100", (8, 0)), precision) is None
