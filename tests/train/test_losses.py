"""Every loss: its value by hand or by torch, its gradient by central differences in float64."""

from __future__ import annotations

import numpy as np
import pytest

from netdsl.faults import NetError
from netdsl.train.losses import (
    LOSSES,
    BinaryCrossEntropy,
    CrossEntropy,
    Hinge,
    Loss,
    MeanSquaredError,
    one_hot,
)

EVERY = [CrossEntropy(), CrossEntropy(0.1), Hinge(), Hinge(0.3), MeanSquaredError()]
EVERY += [BinaryCrossEntropy()]


def _targets(loss: Loss, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if loss.takes_classes:
        return rng.integers(0, shape[1], size=(shape[0], *shape[2:]))
    return rng.uniform(size=shape)


@pytest.mark.parametrize("loss", EVERY, ids=repr)
@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 2, 3)])
def test_gradient_is_the_slope(loss: Loss, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=shape) * 2
    targets = _targets(loss, rng, shape)
    _, gradient = loss(scores, targets)
    for index in np.ndindex(shape):
        ahead, behind = scores.copy(), scores.copy()
        ahead[index] += 1e-5
        behind[index] -= 1e-5
        slope = (loss(ahead, targets)[0] - loss(behind, targets)[0]) / 2e-5
        assert gradient[index] == pytest.approx(slope, abs=1e-7)


def test_cross_entropy_of_even_scores_is_log_of_the_classes() -> None:
    value, _ = CrossEntropy()(np.zeros((4, 10), np.float32), np.arange(4))
    assert value == pytest.approx(np.log(10))


def test_cross_entropy_of_huge_logits_is_finite() -> None:
    scores = np.array([[1e4, -1e4, 0.0]], np.float32)
    value, gradient = CrossEntropy()(scores, np.array([1]))
    assert value == pytest.approx(2e4)
    np.testing.assert_allclose(gradient, [[1, -1, 0]])


def test_hinge_by_hand() -> None:
    """Lecture 3's cat, car and frog: (2.9 + 0 + 12.9) / 3."""
    scores = np.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
    value, _ = Hinge()(scores, np.array([0, 1, 2]))
    assert value == pytest.approx((2.9 + 0 + 12.9) / 3)


@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 2, 3)])
def test_agrees_with_torch(shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    pairs = [
        (CrossEntropy(), functional.cross_entropy),
        (CrossEntropy(0.1), lambda s, t: functional.cross_entropy(s, t, label_smoothing=0.1)),
        (MeanSquaredError(), functional.mse_loss),
        (BinaryCrossEntropy(), functional.binary_cross_entropy_with_logits),
    ]
    rng = np.random.default_rng(1)
    for ours, theirs in pairs:
        scores, targets = rng.normal(size=shape), _targets(ours, rng, shape)
        leaf = torch.tensor(scores, requires_grad=True)
        value = theirs(leaf, torch.tensor(targets))
        value.backward()
        mine, gradient = ours(scores, targets)
        assert mine == pytest.approx(value.item(), rel=1e-12)
        np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("wrong", [-1, 5])
def test_label_out_of_range_says_which(wrong: int) -> None:
    with pytest.raises(NetError, match=rf"label {wrong} does not exist: the net has 5 outputs"):
        CrossEntropy()(np.zeros((2, 5), np.float32), np.array([0, wrong]))


def test_wrong_number_of_targets() -> None:
    with pytest.raises(NetError, match="3 labels for 2 rows"):
        CrossEntropy()(np.zeros((2, 5), np.float32), np.zeros(3, np.int64))
    with pytest.raises(NetError, match="one shape"):
        MeanSquaredError()(np.zeros((2, 5), np.float32), np.zeros((2, 4)))


def test_one_hot() -> None:
    np.testing.assert_array_equal(one_hot(np.array([2, 0]), 3), [[0, 0, 1], [1, 0, 0]])
    with pytest.raises(NetError, match="label 3"):
        one_hot(np.array([3]), 3)


def test_names_are_the_commands() -> None:
    assert set(LOSSES) == {"cross_entropy", "hinge", "mse", "bce"}
