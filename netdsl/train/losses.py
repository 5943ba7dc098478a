"""Losses and their gradients (lecture 3): numbers for how wrong a batch's scores are.

A loss takes scores (N, K) or (N, K, *spatial) and what they should be: for the classifiers an
integer class per sample (N,) or per position (N, *spatial), for the others an array of the scores'
shape. It gives the mean over samples and positions, and that mean's gradient in the scores.
Sums are taken in float64, gradients returned in float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error

Floats = NDArray[np.floating[Any]]
Scores = NDArray[np.float32]
Targets = NDArray[Any]


@dataclass(frozen=True)
class Loss(ABC):
    """A loss function. `takes_classes`: targets are class numbers, not arrays."""

    name: ClassVar[str]
    takes_classes: ClassVar[bool] = True

    def __call__(self, scores: Floats, targets: Targets) -> tuple[float, Scores]:
        """The mean loss, and its gradient in the scores.

        Raises NetError `label-out-of-range` or `wrong-target-shape`.
        """
        rows = _rows(scores)
        check_targets(self, scores, targets)
        with np.errstate(all="ignore"):  # a loss that is not finite speaks for itself
            values, gradient = self._rows(rows.astype(np.float64), _targets(self, targets, rows))
        count = max(len(rows), 1)
        shaped = _unrows(gradient / count, scores.shape)
        return float(values.sum() / count), shaped.astype(np.float32)

    @abstractmethod
    def _rows(self, scores: Floats, targets: Targets) -> tuple[Floats, Floats]:
        """Loss of each row (M,) and its gradient (M, K), for scores (M, K) in float64."""


def _rows(scores: Floats) -> Floats:
    """(N, K, *spatial) as (N x positions, K)."""
    return np.moveaxis(scores, 1, -1).reshape(-1, scores.shape[1])


def _unrows(rows: Floats, shape: tuple[int, ...]) -> Floats:
    """The inverse of `_rows`."""
    moved = (shape[0], *shape[2:], shape[1])
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), -1, 1))


def _targets(loss: Loss, targets: Targets, rows: Floats) -> Targets:
    if loss.takes_classes:
        return targets.reshape(-1)
    return _rows(targets.reshape(len(targets), -1) if targets.ndim < 2 else targets).reshape(
        rows.shape
    )


def check_targets(loss: Loss, scores: Floats, targets: Targets) -> None:
    """That targets fit scores. Raises NetError."""
    if not loss.takes_classes:
        same = targets.size == scores.size and len(targets) == len(scores)
        if not same:
            raise error(
                "wrong-target-shape",
                f"{loss.name} compares arrays of one shape: the net gives "
                f"{scores.shape[1:]} a sample, the targets are {targets.shape[1:]}",
            )
        return
    positions = scores.size // max(scores.shape[1], 1)
    if targets.size != positions:
        raise error(
            "wrong-target-shape",
            f"{targets.size} labels for {positions} rows of scores (shape {scores.shape})",
            help="one class a sample, or one a position of the output",
        )
    if targets.size and not 0 <= int(targets.min()) <= int(targets.max()) < scores.shape[1]:
        worst = int(targets.max() if targets.max() >= scores.shape[1] else targets.min())
        raise error(
            "label-out-of-range",
            f"label {worst} does not exist: the net has {scores.shape[1]} outputs, "
            f"so labels run from 0 to {scores.shape[1] - 1}",
        )


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """-log softmax(scores)[class], from logits.

    smoothing: that share of the target is spread evenly over all classes (Szegedy et al. 2016).
    """

    smoothing: float = 0.0

    name: ClassVar = "cross_entropy"

    def _rows(self, scores: Floats, targets: Targets) -> tuple[Floats, Floats]:
        shifted = scores - scores.max(axis=1, keepdims=True, initial=-np.inf)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        wanted = np.full(scores.shape, self.smoothing / scores.shape[1])
        wanted[np.arange(len(scores)), targets] += 1.0 - self.smoothing
        return -(wanted * logs).sum(axis=1), np.exp(logs) - wanted


@dataclass(frozen=True)
class Hinge(Loss):
    """Multiclass SVM (Weston and Watkins): sum over wrong classes of max(0, s_j - s_y + margin)."""

    margin: float = 1.0

    name: ClassVar = "hinge"

    def _rows(self, scores: Floats, targets: Targets) -> tuple[Floats, Floats]:
        every = np.arange(len(scores))
        over = scores - scores[every, targets][:, None] + self.margin
        over[every, targets] = 0.0
        gradient = (over > 0).astype(np.float64)
        gradient[every, targets] = -gradient.sum(axis=1)
        return np.maximum(over, 0.0).sum(axis=1), gradient


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """The mean over outputs of (score - target)^2."""

    name: ClassVar = "mse"
    takes_classes: ClassVar = False

    def _rows(self, scores: Floats, targets: Targets) -> tuple[Floats, Floats]:
        apart = scores - targets
        return (apart**2).mean(axis=1), 2.0 * apart / scores.shape[1]


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """The mean over outputs of -t log sigmoid(s) - (1 - t) log(1 - sigmoid(s)), from logits."""

    name: ClassVar = "bce"
    takes_classes: ClassVar = False

    def _rows(self, scores: Floats, targets: Targets) -> tuple[Floats, Floats]:
        # log(1 + exp(-|s|)) never overflows.
        values = np.maximum(scores, 0) - scores * targets + np.log1p(np.exp(-np.abs(scores)))
        chance = 0.5 * (1.0 + np.tanh(0.5 * scores))
        return values.mean(axis=1), (chance - targets) / scores.shape[1]


LOSSES: dict[str, type[Loss]] = {
    cls.name: cls for cls in (CrossEntropy, Hinge, MeanSquaredError, BinaryCrossEntropy)
}


def one_hot(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Class numbers (N,) as rows of a one and zeros (N, classes).

    Raises NetError `label-out-of-range`.
    """
    check_targets(CrossEntropy(), np.empty((len(labels), classes), np.float32), labels)
    return np.eye(classes, dtype=np.float32)[labels]
