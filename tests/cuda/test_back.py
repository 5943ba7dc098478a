"""Gradients of single ops, losses and optimisers on the card, in Numba's simulator.

Each op's gradients are compared with differences of the float64 reference, once with tensors where
four floats can be taken at a time, once with tensors where they cannot.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bugs_back import BUGS, WHOLE

SCRIPT = Path(__file__).parent / "simulated_back.py"

TEXTS = {
    "bends": [
        ("input 4x3; relu", 3),
        ("input 8x2; relu6", 1),
        ("input 3x4; leaky(0.2)", 2),
        ("input 8; hsigmoid(slope=0.2, offset=0.4)", 3),
        ("input 4x4; hswish", 2),
        ("input 4x3x4; prelu", 2),
        ("input 3x5x5; prelu", 3),
    ],
    "curves": [
        ("input 4x3; elu(0.7)", 2),
        ("input 8; gelu", 2),
        ("input 8; gelu(tanh)", 2),
        ("input 4x3; silu", 2),
        ("input 12; sigmoid", 2),
        ("input 12; tanh", 2),
        ("input 7x2; softmax", 2),
        ("input 12; softmax", 1),
        ("input 3x33; softmax", 1),
        ("input 3x34; log_softmax", 1),
        ("input 11; log_softmax", 2),
    ],
    "norms": [
        ("input 3x4; bn", 3),
        ("input 2x5x4; bn(momentum=0.3, eps=0.1)", 4),
        ("input 2x3x7; bn(affine=no)", 4),
        ("input 5; bn", 4),
        ("input 8x2x2; gn2", 2),
        ("input 4x3x8; gn2", 2),
        ("input 2x3x4; in", 2),
        ("input 1x2x68; in", 1),
        ("input 8; ln", 9),
        ("input 7; ln", 2),
        ("input 132; ln", 1),
        ("input 2x9x8; ln(affine=no)", 1),
        ("input 1x5x9; bn", 3),
        ("input 2x3x4; bn -> relu", 3),
        ("input 1x5x9; bn(affine=no) -> relu", 3),
        ("input 8x2x2; gn2 -> relu", 2),
        ("input 132; ln -> relu", 1),
        ("input 2x3x5; in -> relu", 2),
        # Rows that begin and end anywhere in a four.
        ("input 3x5x3; bn -> relu", 3),
        ("input 3x7; bn", 5),
        ("input 2x9x7; in", 2),
        ("input 3x6x7; gn3 -> relu", 2),
        ("input 40x3; in -> relu", 2),
        ("input 2x5x3; in(affine=no) -> relu", 3),
        ("input 6x5; gn2 -> relu", 2),
        ("input 29; ln", 2),
        ("input 40; ln -> relu", 2),
        ("input 2x31; in", 1),
    ],
    "responses": [
        ("input 6x2x3; lrn3(beta=0.6, alpha=1)", 2),
        ("input 9x5; lrn2(k=1, alpha=0.5)", 1),
        ("input 7x3; lrn(alpha=2)", 2),
        ("input 9x2x3; lrn(alpha=2, k=1)", 2),
        ("input 7x3; lrn5(beta=0.6, alpha=2)", 1),
        ("input 5x3; lrn9(alpha=2)", 1),
    ],
    "pools": [
        ("input 2x5x5; maxpool3s2p1", 2),
        ("input 2x5x6; maxpool2ceil", 1),
        ("input 2x5x4; maxpool3s1p1", 2),
        ("input 1x4x3x5; maxpool3s2p1", 1),
        ("input 3x9x4; maxpool2s1", 2),
        ("input 1x3x6x5; maxpool2s1p1", 1),
        ("input 2x5x9; maxpool5s1p2", 1),
        ("input 9x7; maxpool3s3", 2),
        ("input 3x5x6; maxpool3x2s2x1p1x0", 2),
        ("input 3x4x3; maxpool4x3", 2),
        ("input 2x7; maxpool2s3p1d2ceil", 1),
        ("input 1x4x3x4; maxpool2s1", 1),
        ("input 2x5x4; avgpool3s2p1ceil(count_pad=yes)", 2),
        ("input 2x6; avgpool3s2p1", 1),
        ("input 2x8x9; avgpool5s4p2", 1),
        ("input 9x4; avgpool2", 2),
        ("input 2x5x4; avgpool(to=3x2)", 2),
        ("input 3x5x3; gap", 2),
        ("input 2x3x2x3; gmp", 2),
        ("input 3x3x3; gmp", 3),
    ],
    "moves": [
        ("input 2x3x2; up2", 2),
        ("input 2x3; up3(bilinear)", 2),
        ("input 1x2x3; up2x3(bilinear)", 1),
        ("input 2x3x4; pad(2, mode=reflect)", 1),
        ("input 2x3; pad(1, end=2, mode=edge)", 2),
        ("input 2x4x4; pad(-1, end=1)", 1),
        ("input 6x2x2; shuffle(3)", 2),
        ("input 3x2x2; flatten", 2),
    ],
    "joins": [
        ("input 3x4 as a; input 2x4 as b; a -> [id | b]", 2),
        ("input 3x4 as a; input 3x4 as b; a -> [id + b]", 2),
        ("input 3x3x4 as a; input 3x3x4 as b; a -> [id * b]", 1),
        ("input 4x1x1 as a; input 4x3x5 as b; a -> [id * b]", 2),
        ("input 5x3x2 as a; input 5x1x1 as b; a -> [id * b]", 2),
        ("input 2x6x6 as a; input 2x1x1 as b; a -> [id * b]", 1),
        ("input 3x1x1 as a; input 3x3x6 as b; a -> [id * b]", 2),
        ("input 4x3x1 as a; input 1x3x5 as b; a -> [id * b]", 2),
    ],
}

LOSSES = [
    [name, shape, batch, gap, smoothing]
    for name, shape, batch, smoothing in [
        ("cross_entropy", [10], 3, 0.0),
        ("cross_entropy", [5, 3], 2, 0.2),
        ("cross_entropy", [3, 5, 7], 1, 0.1),
        ("hinge", [10], 3, 0.0),
        ("hinge", [4, 2, 2], 2, 0.0),
        ("mse", [12], 4, 0.0),
        ("bce", [3, 2, 4], 3, 0.0),
    ]
    for gap in (0, 1)
]

UPDATES = [
    ["sgd", 80, None, 1.0],
    ["sgd", 80, 0.5, 1.0],
    ["momentum", 48, 100.0, 1.0],
    ["nesterov", 48, None, 1.0],
    ["adagrad", 16, None, 1.0],
    ["rmsprop", 48, 2.0, 1.0],
    ["adam", 64, None, 1.0],
    ["adamw", 48, 1.5, 1.0],
    ["adamw", 48, 1.5, float("nan")],
    ["momentum", 48, None, float("inf")],
]

BIASES = [
    [[3, 2, 2], 2, 0, False],
    [[1, 9, 8], 2, 1, True],
    [[2, 5, 4], 4, 0, True],
    [[11], 5, 1, False],
    [[9], 1, 0, False],
]

TIES = [
    ["input 3x4x5; gmp", 1, 1],
    ["input 2x5x5; maxpool3s2p1", 2, 0],
    ["input 2x5x7; maxpool3s1p1", 2, 0],
    ["input 2x5x7; maxpool2ceil", 2, 1],
    ["input 2x5x4x3; maxpool3s2p1", 1, 0],
    ["input 2x5x5; maxpool3s3p1", 2, 0],
    ["input 3x7; maxpool3s1", 2, 1],
    ["input 3x8x5; maxpool2s1", 2, 0],
    ["input 1x6x7; maxpool4x5s3x2p1x2", 1, 0],
    ["input 3x3x4; gmp", 2, 0],
]

MASKS = [
    ["input 18x3; dropout(0.3)", 2, 0],
    ["input 20x4; dropout(0.5)", 2, 0],
    ["input 20; dropout(0.2)", 3, 1],
]

TOLERANCE = 2e-6


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


OPS = [[text, batch, gap] for cases in TEXTS.values() for text, batch in cases for gap in (0, 1)]


def test_gradients_equal_differences_and_every_kernel_is_met() -> None:
    cases = {
        "ops": OPS,
        "losses": LOSSES,
        "updates": UPDATES,
        "biases": BIASES,
        "ties": TIES,
        "masks": MASKS,
    }
    found, left = simulate("agree", cases)
    wrong = [
        (case, apart)
        for mode, values in zip(cases.values(), found, strict=True)
        for case, apart in zip(mode, values, strict=True)
        if not apart <= TOLERANCE
    ]
    assert not wrong
    assert not left


def test_planted_bugs_are_found() -> None:
    same = ("wide", "ZERO = np.float32(0)\n", "ZERO = np.float32(0)\n\n", *WHOLE)
    found = simulate("planted", [same, *BUGS.values()])
    assert found[0] == ""
    missed = [name for name, shown in zip(BUGS, found[1:], strict=True) if not shown]
    assert not missed
