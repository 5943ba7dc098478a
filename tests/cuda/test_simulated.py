"""The CUDA kernels equal the reference on tiny shapes, run in Numba's simulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "simulated.py"

Cases = list[tuple[str, int]]

CONVOLUTIONS: Cases = [
    ("input 3x5x4; conv3x3s2p1(5) -> relu", 2),
    ("input 2x7; conv3p1d2(3, bias=no, pad_end=2) -> leaky(0.2)", 3),
    ("input 2x3x4x3; conv2x3x2p1(6) -> hswish", 1),
    ("input 4x3x3; conv1x1(9) -> hsigmoid", 2),
    ("input 1x5x5; conv3x3(11)", 1),
    ("input 5x8; conv3p1(20) -> relu6", 6),
    ("input 112x2x2x2; conv1s2p1(3)", 1),
    ("input 40x3; conv3p1g2(36)", 1),
    ("input 61x3; conv3p1(3) -> leaky", 1),
    ("input 30x2x2 as a; [a -> conv3x3p1(30) + a] -> relu6", 2),
    ("input 31x6x2; conv3x3p1(2) -> hswish", 2),
    ("input 4x5x4; dwconv3x3p1", 2),
    ("input 6x5; conv3g3s2(12, bias=no)", 2),
    ("input 3x3x4; conv1x1(3) as a; [a -> conv3x3p1(3) + a] -> relu", 2),
    ("input 3x4x4; conv3x3p1(4) -> bn -> relu", 1),
    ("input 3x4x4; conv3x3p1(4) -> sigmoid", 1),
    ("input 1x40; conv33p16(2)", 1),
    ("input 1x66; conv65p32(1)", 1),
]

FEW: Cases = [
    # Depthwise by strips: windows that reach over each edge, strips that end past the last row,
    # every activation, residual sums, more filters than channels.
    ("input 2x4x5; dwconv3x3p1 -> relu", 2),
    ("input 2x7x4; dwconv3x3s2p1 -> relu6", 2),
    ("input 3x3x4; dwconv3x3p1(bias=no)", 2),
    ("input 2x7x6; dwconv5x5p2 -> leaky(0.2)", 1),
    ("input 2x3x6; dwconv5x5p2 -> hswish", 2),
    ("input 2x6x5; dwconv5x5s2p2 -> hsigmoid(slope=0.2, offset=0.4)", 2),
    ("input 2x3x5; dwconv7x7p3", 1),
    ("input 1x6x4 as a; [a | a] -> dwconv7x7p3 -> relu", 1),
    ("input 2x6x5; dwconv7x7s2p3", 1),
    ("input 2x9x8; dwconv3x3s2x1 -> relu", 1),
    ("input 3x8; dwconv3p1 -> relu", 2),
    ("input 2x9; dwconv5s3p2", 2),
    ("input 2x9; dwconv7p4", 1),
    ("input 2x3x4x5; dwconv3p1 -> relu6", 1),
    ("input 2x3x5x4; dwconv3s2p1", 2),
    ("input 4x4x5 as a; a -> [dwconv3x3p1 + a] -> relu", 2),
    # Groups of few filters: not a multiple of four, more than four, several planes.
    ("input 6x4x5; conv3x3p1g2(6) -> relu", 2),
    ("input 4x5x4; conv3x3s2p1g2(10)", 1),
    ("input 6x5x3; conv1x1g3(6) -> leaky(0.1)", 2),
    ("input 4x3x4 as a; a -> [conv3x3p1g2(4) + a] -> relu6", 2),
    ("input 4x3x3x4; conv3x3x3p1g2(4)", 1),
    ("input 2x4x3; conv3x3p1g2(4)", 2),
    # Neither: holes in the window, a window that there is no strip for.
    ("input 2x6x5; dwconv3x3p1d2", 1),
    ("input 2x6x5; dwconv2x4p1 -> relu", 1),
    ("input 4x5x6; conv1x1s2g2(4)", 1),
]

TRANSPOSED: Cases = [
    ("input 3x6; tconv3s2p1(4)", 2),
    ("input 3x3x4; tconv3x2s2x3p1x0(5, out_pad=1x0) -> relu", 1),
    ("input 4x3x3; tconv2x2d2g2(6, bias=no)", 2),
    ("input 2x2x2x2; tconv2s2(3)", 1),
    ("input 2x3; tconv1s3(2)", 1),
    ("input 3x3x3; tconv3x3s2same(3) -> bn", 1),
    # Depthwise with stride 2: padding of either parity, rows and columns that end within a square.
    ("input 2x3x4; tconv3x3s2p1g2(2) -> relu", 2),
    ("input 2x4x3; tconv3x3s2g2(2, out_pad=1x0)", 1),
    ("input 3x3x4; tconv5x5s2p2g3(3, out_pad=1x1) -> leaky(0.2)", 2),
    ("input 2x3x2; tconv7x7s2p3g2(2, bias=no)", 1),
    ("input 2x7x5 as a; input 2x4x3 as b; b -> [tconv3x3s2p1g2(2) + a] -> relu6", 1),
    ("input 2x3x3; tconv4x4s2p1g2(2)", 1),
]

DENSE: Cases = [
    ("input 3x3x2; fc(5) -> relu", 3),
    ("input 7; fc(4, bias=no)", 6),
    ("input 44; fc(3)", 4),
    ("input 2x19; fc(9) -> leaky", 1),
    ("input 3x3x2; flatten -> fc(5) -> relu6 -> fc(3)", 9),
]

POOLS: Cases = [
    ("input 3x5x5; maxpool3s2p1", 2),
    ("input 2x7; maxpool2s3p1d2ceil", 1),
    ("input 2x4x3x5; maxpool2s1", 1),
    ("input 3x1; maxpool2d2p1", 1),
    ("input 3x5x6; avgpool3s2p1ceil(count_pad=yes)", 2),
    ("input 2x6; avgpool3s2p1", 1),
    ("input 2x3x4x3; avgpool2s1(count_pad=yes)", 1),
    # By strips: windows that reach over each edge, columns of a whole number of strips and others.
    ("input 2x9x7; maxpool2", 2),
    ("input 2x6x9; maxpool2ceil", 2),
    ("input 1x7x11; maxpool3s2ceil", 2),
    ("input 2x5x4; maxpool3s1p1", 2),
    ("input 2x3x5x4; maxpool2ceil", 2),
    ("input 1x5x5x5; maxpool3s2p1", 1),
    ("input 3x7x5; avgpool2ceil", 2),
    ("input 2x7x5; avgpool3s2p1", 2),
    ("input 1x4x5x7; avgpool3s1p1", 2),
    ("input 2x4x7; avgpool3s1p1(count_pad=yes)", 1),
    ("input 2x7x5; maxpool2s1", 2),
    ("input 2x4x5; avgpool2s1p1(count_pad=yes)", 2),
    ("input 1x5x7; maxpool5s1p2", 2),
    ("input 1x2x4x6; maxpool2s1p1", 1),
    # Windows that are all of a channel, and one that is nearly.
    ("input 3x4x3; maxpool4x3", 2),
    ("input 3x4x3; avgpool4x3", 2),
    ("input 3x3x3; avgpool4x3p1x0ceil(count_pad=yes)", 2),
    # Not by strips: another stride, holes, windows of nothing but padding.
    ("input 2x8x5; avgpool3s3p1ceil(count_pad=yes)", 2),
    ("input 2x8x5; avgpool3s1p2d2(count_pad=yes)", 2),
    ("input 2x8x5; maxpool3s1p2d2", 1),
    ("input 2x8x5; maxpool5s2p2", 1),
    ("input 2x5x5; maxpool2p1ceil", 1),
    ("input 5x9; maxpool4", 3),
    ("input 6x7; avgpool3s1p1", 2),
    ("input 2x9x8; avgpool5s3", 1),
    ("input 1x6x7; maxpool4x5s3x2p1x2", 1),
    ("input 3x3x4x5; maxpool1x3x2s1x2x2", 1),
    ("input 2x3x3; avgpool(to=5x4)", 2),
    ("input 2x5x7; avgpool(to=3x2)", 2),
    ("input 3x5x3; avgpool(to=1)", 2),
    ("input 3x5x3; gap", 2),
    ("input 3x5x4; gap", 1),
    ("input 3x4x5; gmp", 1),
    ("input 2x3x2x3; gmp", 2),
    # A few lanes a channel, the last of a block without one.
    ("input 3x7; gap", 3),
    ("input 3x2x4; gmp", 3),
    ("input 5x1; gap", 1),
    ("input 3x5; gmp", 2),
]

NORMS: Cases = [
    ("input 5x4x3; bn -> leaky", 2),
    ("input 3x2x2; bn(affine=no) -> tanh -> bn", 1),
    ("input 6; ln", 2),
    ("input 3x7; ln(affine=no, eps=0.1)", 2),
    ("input 3x4x3; in", 2),
    ("input 6x2x3; gn3 -> relu", 1),
    ("input 3x7x7; ln", 1),
    ("input 4x4x10; tanh -> gn1", 1),
    ("input 152; ln -> ln(affine=no)", 1),
    # Four neighbours of two channels, and of three.
    ("input 4x5; ln", 2),
    ("input 4x2x1; ln -> relu", 2),
    ("input 12x3; gn3 -> relu", 2),
    ("input 12x7x1; gn3(affine=no)", 2),
    ("input 12x23; ln", 1),
    ("input 8; ln", 2),
    ("input 2x68; in", 2),
    # Small groups that begin and end anywhere in a four, of a few lanes each and of a warp.
    ("input 7x5; in -> relu", 3),
    ("input 5x3x3; in(affine=no)", 2),
    ("input 6x7; gn2", 2),
    ("input 9x3; gn3 -> relu", 3),
    ("input 3; ln", 5),
    ("input 29; ln", 2),
    ("input 2x31; in", 1),
    ("input 40x13; in", 2),
    ("input 3x11; gn1(affine=no)", 2),
    ("input 3x5 as a; a -> [id | tanh -> in]", 2),
    ("input 10x2x2; softmax", 1),
    ("input 7x2x2; softmax", 2),
    ("input 3x6x6; softmax", 1),
    # As many classes as a warp keeps, and one more, and not a multiple of four.
    ("input 12; log_softmax", 7),
    ("input 32; softmax", 3),
    ("input 30; softmax", 2),
    ("input 33; softmax", 2),
    ("input 66x2; log_softmax", 1),
    ("input 17x34; softmax", 2),
    ("input 9x33; log_softmax", 1),
    ("input 3x33; log_softmax", 1),
    ("input 6x2x2; lrn3(beta=0.6, alpha=1)", 2),
    ("input 5x3; lrn4(k=1, alpha=0.5)", 1),
    ("input 4x2x2x2; lrn", 1),
    ("input 9x3x3; lrn(alpha=2)", 2),
    ("input 3x2x2; lrn7(alpha=2)", 1),
]

PASSES: Cases = [
    ("input 3x3x2; relu -> relu6", 2),
    ("input 11; leaky(0.1) -> prelu", 2),
    ("input 3x5; prelu", 2),
    # Four neighbours of several channels, and of the next sample.
    ("input 6; prelu", 2),
    ("input 3x3; prelu", 4),
    ("input 3x3x1; bn -> relu", 4),
    ("input 9; hswish -> hsigmoid(slope=0.2, offset=0.4)", 1),
    ("input 9; elu(0.7)", 1),
    ("input 9; gelu", 2),
    ("input 9; gelu(tanh)", 1),
    ("input 9; silu -> sigmoid", 1),
    ("input 9; tanh", 1),
    ("input 3x4; dropout -> relu -> dropout", 1),
]

MOVES: Cases = [
    ("input 2x3x2; up2", 2),
    ("input 2x3; up3(bilinear)", 2),
    ("input 2x2x3; up2x3(bilinear)", 1),
    ("input 1x2x2x2; up2(bilinear)", 1),
    ("input 2x3x4; pad(2, mode=reflect)", 1),
    ("input 2x3; pad(1, end=2, mode=edge)", 2),
    ("input 2x2x3x2; pad(1, value=3.5)", 1),
    ("input 2x4x4; pad(-1, end=1)", 1),
    ("input 6x2x2; shuffle(3)", 2),
    ("input 6x3; shuffle(2) -> flatten -> relu", 2),
    ("input 3x2x2; relu as r -> flatten as q; output q, r", 1),
]

JOINS: Cases = [
    ("input 3x2x3; [id | relu | tanh] -> relu", 2),
    ("input 3x4; tanh -> [id | id] as c; [c | c]", 2),
    ("input 3x4; [relu + tanh + sigmoid] -> relu6", 2),
    ("input 3x4; [tanh + tanh]", 1),
    ("input 5x3x4; [id * gap * tanh]", 2),
    # Gates: four neighbours of several channels, of the next sample; gates within a larger tensor.
    ("input 6x3x3; [id * gap]", 4),
    ("input 3x2x4; [gap * tanh]", 3),
    ("input 5x3x3; [gap * id]", 1),
    (
        "input 3x4x2 as a; a -> gap as q; a -> gmp as r; [q | r] as c; [a * q] as d; [r * a] as e; "
        "output c, d, e",
        2,
    ),
    ("input 4x3x1 as a; input 1x3x5 as b; a -> [id * b]", 2),
    ("input 4x1x2x3 as a; input 1x2x2x1 as b; a -> [b * id * b]", 1),
    ("input 4x6 as a; input 3x6 as b; a -> [id | b] as c -> relu as d; output d, c, a", 2),
]

NETS: Cases = [
    (
        "net tiny; input 1x8x8; conv3x3(4) -> relu -> maxpool2 -> [conv1x1(3) | conv3x3p1(4)] "
        "-> relu -> flatten -> dropout -> fc(5) -> softmax",
        2,
    ),
    (
        "net side; input 2x6x6; conv3x3s2p1(3) -> bn -> relu as a -> dwconv3x3p1 -> bn -> relu6 "
        "-> conv1x1(3) -> bn as b; [a + b] -> gap -> fc(4)",
        2,
    ),
]

FAMILIES = {
    "convolutions": CONVOLUTIONS,
    "few": FEW,
    "transposed": TRANSPOSED,
    "dense": DENSE,
    "pools": POOLS,
    "norms": NORMS,
    "passes": PASSES,
    "moves": MOVES,
    "joins": JOINS,
    "nets": NETS,
}

# Of float32: the sums are a few dozen products long, and a normalisation divides by a deviation.
TOLERANCE = 1e-6


def simulate(mode: str, given: object, script: Path = SCRIPT) -> Any:
    """What the script prints, run with these cases."""
    done = subprocess.run(
        [sys.executable, str(script), mode],
        input=json.dumps(given),
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("family", FAMILIES)
def test_kernels_equal_the_reference(family: str) -> None:
    cases = FAMILIES[family]
    found = simulate("agree", cases)
    wrong = {
        text: apart for (text, _), apart in zip(cases, found, strict=True) if apart > TOLERANCE
    }
    assert len(found) == len(cases)
    assert not wrong


def test_a_nan_is_the_largest_and_minus_infinity_the_least() -> None:
    cases = [(text, batch) for text, batch in POOLS if "maxpool" in text or "gmp" in text]
    assert simulate("holes", cases) == [True] * len(cases)
    assert len(cases) > 10


def test_the_cases_meet_every_kernel_and_every_op() -> None:
    found = simulate("covered", [case for cases in FAMILIES.values() for case in cases])
    assert set(found["kernels"]) - set(found["kernels_met"]) == set()
    assert set(found["ops"]) - set(found["ops_met"]) == set()


def test_a_net_runs_on_the_device_it_is_told_to() -> None:
    found = simulate("net", None)
    assert max(found["apart"]) < TOLERANCE
    tf32, bf16 = found["rounded"]
    assert TOLERANCE < tf32 < bf16 < 0.1
    assert found["layers"] == ["conv1", "gap1", "fc1"]
    assert "no CUDA graphs" in found["note"]
    too_many, too_large, *past_words = found["said"]
    assert "70000" in too_many
    assert "100 are free" in too_large
    assert "smaller batch" in too_large
    assert "bytes are needed" in too_large
    assert len(past_words) == 3
    assert all("more than 2,147,483,647 values" in said for said in past_words)


BUGS = {
    "no barrier after a slice": (
        "            cuda.syncthreads()\n            a_read, b_read = int32(a_read ^",
        "            a_read, b_read = int32(a_read ^",
    ),
    "no barrier before a column is read": (
        "            cuda.syncthreads()\n            f = int32(",
        "            f = int32(",
    ),
    "no barrier before the next column is written": (
        "f + A_STEP * VN)\n            cuda.syncthreads()",
        "f + A_STEP * VN)",
    ),
    "one buffer instead of two": (
        "a_write, b_write = int32(a_write ^ A_SLICE), int32(b_write ^ B_SLICE)",
        "a_write, b_write = a_write, b_write",
    ),
    "the slice that is written is multiplied": (
        "int32(a_read + A_SLICE), int32(b_read + B_START + B_SLICE)",
        "a_read, int32(b_read + B_START)",
    ),
    "the first edges are not looked at": ("(bits & crossed) |", "(0 & crossed) |"),
    "the edges beyond thirty are not looked at": ("| (bits_more & crossed_more)", "| 0"),
    "planes are not looked for": ("if axis == 0:", "if axis == 9:"),
    "rows are not looked for": ("if axis == 1:", "if axis == 9:"),
    "positions past the last are read": ("if not valid:", "if at < 0:"),
    "positions past the last are written": ("if valid and f < filters", "if f < filters"),
    "filters past the last are written": ("if valid and f < filters", "if valid"),
    "the last part of a split sum is as long as the others": (
        "if left < slices:",
        "if left < 0:",
    ),
    "the parts of a split sum start at the same product": (
        "first = int32(split * slices * TK)",
        "first = int32(0)",
    ),
    "products past the last are read": (
        "first, second = int32(0), int32(OUTSIDE)",
        "first, second = int32(0), int32(0)",
    ),
}

SHOWING: Cases = [
    ("input 3x5x5; conv3x3p1(5)", 1),
    ("input 2x3x3x3; conv2p1(3)", 1),
    ("input 112x2x2x2; conv1s2p1(3)", 1),
    ("input 1x40; conv33p16(2)", 1),
]


def test_planted_bugs_are_found() -> None:
    same = ("ALIGNED = 16\n", "ALIGNED = 16\n\n")
    found = simulate("planted", {"bugs": [same, *BUGS.values()], "cases": SHOWING})
    assert found[0] == ""
    missed = [name for name, shown in zip(BUGS, found[1:], strict=True) if not shown]
    assert not missed
