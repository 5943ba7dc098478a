"""Every kernel as it is compiled for a card, run by the machine of ptx: what it gives is right, and
the machine finds nothing to complain about. Needs numba-cuda and NVIDIA's compiler.

Cases are those of the simulator, after the number of multiprocessors of the card that they are
planned for, and others that take tiles of the real sizes, several blocks, or sums in parts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import pytest
import test_back
import test_mixed
import test_rounded
import test_simulated
import test_steps
import test_training

SCRIPT = Path(__file__).parent / "executed.py"

FORWARD = [
    *((3, *case) for cases in test_simulated.FAMILIES.values() for case in cases),
    # Each tile with several blocks along both axes, and sums in parts.
    (1, "input 5x37x29; conv3x3p1(140) -> relu", 1),
    (3, "input 3x40x39; conv3x3s2p1(70)", 1),
    (1, "input 3x40x39; conv3x3p1(40) -> relu6", 1),
    (132, "input 40x13x11; conv3x3p1(70) -> relu", 1),
    (132, "input 24x9x9 as a; a -> [conv3x3p1g2(64) + a -> conv1x1(64)] -> relu", 2),
    (1, "input 9x5x6x7; conv3p1(33)", 2),
    (3, "input 16x15x9; tconv3x3s2p1(48)", 1),
    (3, "input 3x27x28; dwconv7x7p3 -> dwconv7x7s2p3 -> leaky", 1),
    (132, "input 96x27x28; dwconv7x7p3 -> dwconv5x5p2 -> dwconv3x3p1 -> relu", 1),
    (3, "input 33x27x25; maxpool3s2p1ceil -> avgpool3s2p1(count_pad=yes)", 1),
    (3, "input 9x7x15x13; maxpool2ceil -> maxpool3s1p1 -> maxpool3s3p1", 1),
    (3, "input 9x7x15x13; avgpool2ceil -> avgpool3s1p1 -> avgpool(to=3x2x4)", 1),
    (3, "input 30x31x29; [gap | gmp]", 2),
    (132, "input 48x28x24; gn6 -> in -> ln", 1),
    (132, "input 12x29x23; gn3 -> relu", 2),
    (3, "input 1000; softmax", 3),
    (3, "input 9000; log_softmax", 2),
    (3, "input 333x5x4; softmax", 2),
    (3, "input 96x7x9; lrn", 2),
    (3, "input 50x33; elu -> gelu -> silu -> hswish -> hsigmoid -> tanh -> sigmoid", 2),
    (3, "input 24x17x19; [relu | tanh] -> [id * gap] -> up2(bilinear) -> pad(3, mode=reflect)", 1),
    (3, "input 300x7; fc(300) -> relu", 2),
]

WINOGRAD = [
    (3, "input 3x8x8; conv3x3p1(9) -> leaky(0.2)", 2, 1, 1),
    (3, "input 2x7x4; conv3x3p2(17, bias=no) -> relu6", 1, 2, 2),
    (3, "input 3x5x5; conv1x1(3) as a; [a -> conv3x3p1(3) + a] -> hsigmoid", 2, 0, 2),
    (3, "input 2x4x4; [conv3x3p1(3) | conv1x1(1) | conv3x3p1(5)] -> conv3x3p1(2)", 2, 0, 1),
    (3, "input 3x7x5; conv3x3p1(3) -> leaky(-0.5) -> maxpool2", 3, 1, 1),
    *((3, "input 20x23x21; conv3x3p1(140) -> relu", 1, tile, 1) for tile in range(3)),
    (132, "input 9x16x18; conv3x3p1(36) -> relu6 -> maxpool2", 2, 1, 3),
]

TENSOR = [
    *((3, *case) for case in test_mixed.CHOSEN),
    *(
        (processors, text, 1, precision, 8)
        for precision in ("tf32", "bf16")
        for processors, text in (
            (1, "input 5x37x29; conv3x3p1(140) -> relu"),
            (1, "input 20x23x21; conv3x3s2p1(60)"),
            (1, "input 9x23x21; conv3x3p1(256)"),
            (132, "input 64x9x9; conv3x3p1g2(64)"),
            (3, "input 16x5x7x6; tconv2s2(12)"),
        )
    ),
]

PACKED = [
    (processors, text, 1, precision, 8)
    for precision in ("tf32", "bf16")
    for processors, text in (
        (1, "input 8x23x25; conv3x3p1(140) -> relu -> conv1x1(60)"),
        (3, "input 40x23x25; conv1x1(60) -> relu -> maxpool2 -> conv1x1(130)"),
        (3, "input 16x18x20; conv3x3p1(40) -> maxpool3s2p1 -> conv3x3s2p1(64) -> conv1x1(36)"),
        (
            3,
            "input 24x14x15; conv1x1(64) -> relu as a; [a -> conv1x1(32) -> relu "
            "| a -> conv3x3p1(72) | a -> maxpool3s1p1 -> conv1x1(30)] -> conv1x1(80)",
        ),
        (
            132,
            "input 64x9x9; conv1x1(64) as a; [a -> conv3x3p1(64) + a] -> relu -> conv3x3p1g2(64) "
            "-> conv1x1(50)",
        ),
        (3, "input 40x9x8; conv1x1(96) -> tconv2x2s2(44) -> conv3x3p1(20)"),
        (3, "input 16x6x9x8; conv3p1(24) -> relu -> maxpool2 -> conv1(20)"),
        (
            3,
            "input 8x11x9; conv1x1(20) -> maxpool2s1 -> conv1x1(9) -> maxpool5s1p2 -> conv1x1(9)",
        ),
    )
]

ROUNDED = [
    *((3, *case) for case in test_rounded.CHOSEN),
    # The same layers with nothing rounded.
    *((3, *case[:3], "fp32", case[4]) for case in test_rounded.CHOSEN),
    (1, "60", "fc(140)", 17, "fp32", 9),
    *((132, "5x21x19", "conv2x2(18)", 2, p, 4) for p in ("fp32", "tf32", "bf16")),
]

DEPTHWISE = [
    case for cases in test_training.FAMILIES.values() for case in cases if "dwconv" in case[0]
]

TRAINED = [
    *((3, *case, "fp32") for case in DEPTHWISE),
    (132, "input 2x45x47; conv1x1(3) -> bn -> tanh -> conv1x1(4)", 2, "fp32"),
    (132, "input 3x20x21; conv1x1(40) -> lrn33", 2, "fp32"),
    (132, "input 3x30x31; conv1x1(8) -> gn4 as a; [a * gap -> sigmoid] -> lrn", 1, "fp32"),
]
TRAINED += [(3, "input 60; fc(140) -> fc(130)", 70, p) for p in ("tf32", "bf16")]
TRAINED += [
    (processors, text, 1, precision)
    for precision in ("fp32", "tf32", "bf16")
    for processors, text in (
        (1, "input 8x9x8; conv1x1(136) -> conv2x2(130)"),
        (1, "input 60x10x9; conv1x1(16) -> conv3x3s2p1(40)"),
        (132, "input 9x15x13; conv3x3p1(40) -> tconv2x2s2(20)"),
    )
]

JOBS: dict[str, dict[str, list[Any]]] = {
    "training": {
        "rounded": ROUNDED,
        "trained": TRAINED,
        "steps": [(3, *case) for case in test_steps.CASES],
    },
    "forward": {
        "warp": [(3, seed) for seed in range(3)],
        "peak": [(3, precision) for precision in ("fp32", "tf32", "bf16")],
        "forward": FORWARD,
        "winograd": WINOGRAD,
        "holes": [
            (3, *case) for case in test_simulated.POOLS if "maxpool" in case[0] or "gmp" in case[0]
        ],
    },
    "tensor": {"mixed": TENSOR, "packed": PACKED},
    "back": {
        "ops": [(3, *case) for case in test_back.OPS],
        "losses": [(3, *case) for case in test_back.LOSSES],
        "updates": [(3, *case) for case in test_back.UPDATES],
        "biases": [(3, *case) for case in test_back.BIASES],
        "ties": [(3, *case) for case in test_back.TIES],
        "masks": [(3, *case) for case in test_back.MASKS],
    },
}
"""Cases by mode, in processes of their own, the longest first."""

TOLERANCES: dict[str, float] = {
    "warp": 1e-6,
    "peak": 1e-6,
    "forward": 3e-6,
    "winograd": 1e-5,
    **dict.fromkeys(JOBS["back"], test_back.TOLERANCE),
    "steps": test_steps.TOLERANCE,
}


def executed(given: object, *words: str) -> Any:
    """What the script prints."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        input=json.dumps(given),
        env={k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def ran() -> dict[str, Any]:
    """What all cases gave by mode, and the kernels that they met."""
    if find_spec("numba_cuda") is None:
        pytest.skip("numba-cuda is not installed")
    with ThreadPoolExecutor(min(os.cpu_count() or 1, len(JOBS))) as pool:
        jobs = list(pool.map(executed, JOBS.values()))
    found = {mode: values for job in jobs for mode, values in job["found"].items()}
    return {"found": found, "met": {name for job in jobs for name in job["met"]}}


def cases(mode: str) -> list[Any]:
    return next(job[mode] for job in JOBS.values() if mode in job)


@pytest.mark.parametrize("mode", TOLERANCES)
def test_compiled_kernels_give_what_is_right(ran: dict[str, Any], mode: str) -> None:
    found = ran["found"][mode]
    assert len(found) == len(cases(mode))
    far = [
        (case, apart)
        for case, apart in zip(cases(mode), found, strict=True)
        if not apart <= TOLERANCES[mode]
    ]
    assert far == []


@pytest.mark.parametrize("mode", ["mixed", "rounded"])
def test_compiled_kernels_round_factors_and_nothing_else(ran: dict[str, Any], mode: str) -> None:
    found = ran["found"][mode]
    assert len(found) == len(cases(mode))
    for case, (apart, share) in zip(cases(mode), found, strict=True):
        assert apart <= test_mixed.TOLERANCE, case
        assert share <= 1, case


@pytest.mark.parametrize("mode", ["holes", "packed"])
def test_compiled_kernels_give_the_same_bits(ran: dict[str, Any], mode: str) -> None:
    assert ran["found"][mode] == [True] * len(cases(mode))


@pytest.mark.parametrize(("precision", "bits"), [("fp32", 24), ("tf32", 11), ("bf16", 8)])
def test_compiled_steps_back_are_the_cpus(ran: dict[str, Any], precision: str, bits: int) -> None:
    """Two factors of each product may be off by half of their last bit, and each step of a sum over
    positions, or a hundred channels, by that of float32."""
    found = ran["found"]["trained"]
    assert len(found) == len(TRAINED)
    far = [
        (case, apart)
        for case, apart in zip(TRAINED, found, strict=True)
        if case[3] == precision and not apart <= 2 * 2.0**-bits + terms(*case[1:3]) * 2.0**-24
    ]
    assert far == []


def terms(text: str, batch: int) -> int:
    """Positions of a batch of a net's inputs; a hundred at least."""
    axes = text.removeprefix("input ").partition(";")[0].split("x")[1:]
    return max(batch * prod(map(int, axes)), 100)


def test_every_kernel_is_run(ran: dict[str, Any]) -> None:
    there = executed(None, "kernels")
    assert len(there) > 100
    assert set(there) - ran["met"] == set()
