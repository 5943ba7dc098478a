"""Training's CUDA kernels give the CPU's gradients on tiny shapes, run in Numba's simulator."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_simulated import Cases, simulate

SCRIPT = Path(__file__).parent / "simulated_training.py"

CONVOLUTIONS: Cases = [
    ("input 2x4x5; conv3x3s2p1(5) -> relu -> conv2x2(3)", 2),
    ("input 2x7; conv3p1d2(3, bias=no, pad_end=2) -> relu -> conv1s3(2)", 3),
    ("input 2x3x4x3; conv2x3x2p1(3) -> conv1x1x1(2)", 1),
    ("input 4x3x3; conv1x1(3) -> conv3x3p1g3(6)", 2),
    ("input 18x3; conv3p1g2(16)", 1),
    ("input 4x5x4; dwconv3x3p1 -> relu -> dwconv2x2s2", 2),
    ("input 1x14x14; conv3x3(2)", 1),
    ("input 1x3; conv63p31(1)", 1),
]

FEW: Cases = [
    # By strips: each window, with strips that end past the last row, and several parts of a sum.
    ("input 2x4x5; conv1x1(2) -> dwconv3x3p1 -> relu -> dwconv3x3s2p1", 3),
    ("input 2x6x5; conv1x1(2) -> dwconv5x5p2 -> dwconv5x5s2p2", 1),
    ("input 2x5x6; conv1x1(2) -> dwconv7x7p3(bias=no) -> dwconv7x7s2p3", 1),
    ("input 3x9; conv1(3) -> dwconv3p1 -> dwconv5s2p2 -> dwconv7p3", 2),
    ("input 2x3x4x3; conv1(2) -> dwconv3p1 -> dwconv3s2p1", 1),
    ("input 1x16x5; conv1x1(2) -> dwconv3x3p1", 4),
    # Groups of few filters and of several channels.
    ("input 4x4x5; conv3x3p1g2(6) -> conv3x3s2p1g2(4) -> conv1x1g2(4)", 2),
    ("input 3x4x5; conv1x1(4) -> tconv3x3p1g2(2)", 2),
    ("input 2x3x4; conv1x1(2) -> tconv3x3s2p1g2(2) -> tconv5x5s2p1g2(2) -> relu", 1),
    # Neither.
    ("input 2x5x4; conv1x1(2) -> dwconv3x3p1d2 -> dwconv2x3p1", 1),
]

TRANSPOSED: Cases = [
    ("input 3x6; conv1(3) -> tconv3s2p1(4)", 2),
    ("input 2x3x3; conv1x1(2) -> tconv3x2s2x3p1x0(3, out_pad=1x0) -> relu", 1),
    ("input 4x2x3; conv1x1(4) -> tconv2x2d2g2(6, bias=no)", 1),
    ("input 2x2x2x2; conv1(2) -> tconv2s2(3)", 1),
    ("input 2x3; conv1(2) -> tconv1s3(2)", 1),
]

DENSE: Cases = [
    ("input 7; fc(4, bias=no) -> fc(5) -> fc(3)", 6),
    ("input 70; fc(9)", 3),
]

JOINED: Cases = [
    ("input 2x4; conv1(3) -> [id + conv2p1(pad_end=0) -> relu + conv1] -> relu -> conv1(2)", 1),
    ("input 2x3; conv1(3) -> [id + id] -> [id * id] -> conv1(2)", 2),
    ("input 2x3; conv1(3) -> [id * gap -> conv1(3) -> sigmoid] -> conv1(2)", 2),
    ("input 2x3; conv1(3) as a -> aux(weight=0.3) { gap -> fc(3) } -> conv1(2) -> [id | a]", 2),
    ("input 2x3; conv1(3) as a -> relu as b -> conv1(3) as c; output a, b, c", 2),
    ("input 2x4; conv1(2) -> tanh as t -> [id | t -> relu] -> flatten as f -> fc(3); output f", 2),
    ("input 1x4x4; conv1(2) -> bn -> sigmoid -> maxpool2 -> flatten -> dropout -> fc(2)", 2),
]

NETS: Cases = [
    (
        "input 2x6x6; conv3x3(3) -> bn -> relu -> maxpool3s1p1 -> flatten -> dropout(0.4) -> fc(4)",
        3,
    ),
    (
        "input 2x4x4; conv1x1(4) -> hswish -> [conv1x1(2) | conv3x3p1(3) -> relu | maxpool3s1p1] "
        "-> shuffle(9) -> up2(bilinear) -> pad(1, mode=reflect) -> gn3 -> silu -> gmp",
        2,
    ),
]
"""Ops whose kernels are tested one by one in test_back.py, where they share memory."""

FAMILIES = {
    "convolutions": CONVOLUTIONS,
    "few": FEW,
    "transposed": TRANSPOSED,
    "dense": DENSE,
    "joined": JOINED,
    "nets": NETS,
}

# Of float32, against the largest number of each array: the sums are a few hundred products long.
TOLERANCE = 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_the_cpus(family: str) -> None:
    cases = FAMILIES[family]
    found = simulate("agree", cases, SCRIPT)
    wrong = {text: a for (text, _), a in zip(cases, found, strict=True) if a > TOLERANCE}
    assert len(found) == len(cases)
    assert not wrong


BUGS = {
    "no barrier after a slice": (
        "            cuda.syncthreads()\n            s = int32(s + 1)",
        "            s = int32(s + 1)",
    ),
    "one buffer instead of two": ("other = int32((s + 1) & 1)", "other = int32(s & 1)"),
    "the first word of edges is not asked": ("(crossed & tap_edges[i]) | ", ""),
    "the second word of edges is not asked": (" | (crossed_more & tap_more[i])", ""),
    "products past the last of a part": ("if not valid:", "if k < 0:"),
    "rows past the last are read": ("valid and first_row + STEP * i < rows", "valid"),
    "rows past the last are written": ("if row < rows and column", "if column"),
    "columns past the last are written": ("row < rows and column < columns:", "row < rows:"),
    "no step to the next sample": ("if p >= plane:", "if p < 0:"),
    "the parts of a sum start at the same product": (
        "k = int32(split * ints[uint32(at + PART)] + lane)",
        "k = int32(lane)",
    ),
    "the last part of a sum is as long as the others": (
        "        if end > ints[uint32(at + PRODUCTS)]:\n            end",
        "        if end < 0:\n            end",
    ),
    "a part is left out": (
        "for _ in range(ints[uint32(at + SPLITS)]):",
        "for _ in range(1, ints[uint32(at + SPLITS)]):",
    ),
}  # fmt: skip

SHOWING: Cases = [
    ("input 9; fc(5)", 3),
    ("input 2x3x2; conv2x2p1(3)", 2),
    ("input 1x9; conv33p16(1)", 1),
    ("input 1x13x13; conv2x2(1, bias=no)", 1),
]


def test_planted_bugs_are_found() -> None:
    same = ("ZERO = np.float32(0)\n", "ZERO = np.float32(0)\n\n")
    found = simulate("planted", {"bugs": [same, *BUGS.values()], "cases": SHOWING}, SCRIPT)
    assert found[0] == ""
    missed = [name for name, shown in zip(BUGS, found[1:], strict=True) if not shown]
    assert not missed


STRIP_BUGS = {
    "no barrier before warps are added up": ("        cuda.syncthreads()\n", ""),
    "a warp is left out": ("for one in range(WARPS):", "for one in range(1):"),
    "strips past the last are taken": (
        "end = min(int32((part + 1) * each), count)",
        "end = int32((part + 1) * each)",
    ),
    "the parts of a sum start at the same strip": ("int32(part * each + t)", "int32(t)"),
    "gradients past the last row are taken": (
        "down = int32(ALL) if int32(out_height - y) >= R else int32((1 << (out_height - y)) - 1)",
        "down = int32(ALL)",
    ),
    "rows outside are read": (
        "there = columns if within(int32(y0 + ROW), height) else int32(0)",
        "there = columns",
    ),
    "columns outside are read": ("columns_of(x0, width)", "int32(-1)"),
    "planes outside are read": (" if within(z0, depth) else int32(0)", ""),
    "every group has the first one's channels": (
        "int32(quotient(f, filters) * channels + pair - f * channels)",
        "int32(pair - f * channels)",
    ),
    "the window's planes lie on each other": ("int32(cuda.gridDim.z) + dz", "int32(1)"),
}

STRIPS_SHOWING: Cases = [
    ("input 2x13x5; dwconv3x3p1(bias=no)", 4),
    ("input 2x3x4x3; dwconv3p1", 1),
    ("input 4x4x5; conv3x3p1g2(4)", 2),
]


def test_bugs_planted_in_strips_are_found() -> None:
    same = ("ZERO = np.float32(0)\n", "ZERO = np.float32(0)\n\n")
    given = {"bugs": [same, *STRIP_BUGS.values()], "cases": STRIPS_SHOWING}
    found = simulate("strips", given, SCRIPT)
    assert found[0] == ""
    missed = [name for name, shown in zip(STRIP_BUGS, found[1:], strict=True) if not shown]
    assert not missed
