"""Training steps on the card end where the CPU's end, in Numba's simulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_simulated import simulate

SCRIPT = Path(__file__).parent / "simulated_steps.py"

NET = (
    "net tiny; input 1x5x5; conv2x2(3) -> bn -> relu -> maxpool2 -> [conv1x1(2) | conv3x3p1(3)] "
    "-> relu -> flatten -> dropout(0.3) -> fc(5) -> softmax"
)
DENSE = "net dense; input 5; fc(6) -> relu -> aux(weight=0.3) { fc(3) } -> fc(3)"

CASES: list[tuple[str, int, dict[str, Any], str]] = [
    (NET, 4, {"clip": 0.5, "smoothing": 0.1, "warmup": 2}, "classes"),
    (DENSE, 3, {"optimiser": "sgd", "decay": 0.01, "decay_all": True}, "classes"),
    (DENSE, 3, {"optimiser": "nesterov", "loss": "hinge"}, "classes"),
    (DENSE, 2, {"optimiser": "adagrad", "loss": "mse"}, "numbers"),
    (DENSE, 2, {"optimiser": "rmsprop", "loss": "bce"}, "shares"),
    (DENSE, 3, {"optimiser": "adam", "clip": 0.1}, "classes"),
    (DENSE, 3, {"optimiser": "adamw", "schedule": "step"}, "classes"),
]

# Of float32, in numbers of up to about 3.
TOLERANCE = 3e-6


def test_steps_end_where_the_cpus_end() -> None:
    found = simulate("agree", CASES, SCRIPT)
    wrong = {str(case): a for case, a in zip(CASES, found, strict=True) if a > TOLERANCE}
    assert len(found) == len(CASES)
    assert not wrong


@pytest.fixture(scope="module")
def facts() -> Any:
    return simulate("facts", None, SCRIPT)


def test_a_seed_gives_the_same_bits_again(facts: Any) -> None:
    assert facts["same"]


def test_a_run_goes_on_on_the_other_device(facts: Any) -> None:
    assert set(facts["moved"]) == {"cpu to cuda", "cuda to cpu"}
    assert max(facts["moved"].values()) < TOLERANCE


def test_a_loss_that_is_not_finite_moves_nothing_and_is_told(facts: Any) -> None:
    assert facts["kept"]
    assert facts["count"] == 2
    ours, theirs = facts["broken"]
    assert "bn1 is the first layer" in ours
    assert ours == theirs


def test_what_does_not_fit_is_told(facts: Any) -> None:
    assert "label 5 does not exist" in facts["label"]
    assert "4x1x4x3" in facts["shape"]
