"""How good a net is on examples: loss, top 1, top 5, and which classes it takes for which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.train.data import Batches
from netdsl.train.losses import Loss

Floats = NDArray[np.float32]


@dataclass
class Verdict:
    """Counts over examples (or over positions, where each has a class).

    confusion[i, j]: how many of class i were taken for j. top5 counts the right class among the
    five best, or fewer where there are fewer classes.
    """

    count: int = 0
    right: int = 0
    among_five: int = 0
    loss_sum: float = 0.0
    confusion: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    labelled: bool = True

    @property
    def top1(self) -> float | None:
        """The share whose best class is the right one; None where there are no classes."""
        return self.right / self.count if self.count and self.labelled else None

    @property
    def top5(self) -> float | None:
        """The share whose right class is among the five best."""
        return self.among_five / self.count if self.count and self.labelled else None

    @property
    def loss(self) -> float | None:
        """The mean loss."""
        return self.loss_sum / self.count if self.count else None

    def add(self, scores: Floats, targets: NDArray[Any], loss: Loss) -> None:
        """Counts a batch's scores (N, K, …) against its targets."""
        value, _ = loss(scores, targets)
        rows = np.moveaxis(scores, 1, -1).reshape(-1, scores.shape[1])
        whole = len(rows) if loss.takes_classes else len(scores)
        self.loss_sum += value * whole
        self.count += whole
        self.labelled = targets.dtype.kind in "iu" and targets.size == len(rows)
        if not self.labelled:
            return
        labels = targets.reshape(-1)
        best = rows.argmax(1)
        self.right += int((best == labels).sum())
        own = rows[np.arange(len(rows)), labels][:, None]
        self.among_five += int(((rows > own).sum(1) < 5).sum())
        classes = rows.shape[1]
        table = np.bincount(labels * classes + best, minlength=classes**2)
        table = table.reshape(classes, classes)
        self.confusion = table if not self.confusion.size else self.confusion + table

    def as_dict(self) -> dict[str, Any]:
        """What `netdsl eval --json` says."""
        return {"count": self.count, "top1": self.top1, "top5": self.top5, "loss": self.loss}


def evaluate(
    run: Callable[[Floats], Mapping[str, Floats]],
    batches: Batches,
    output: str,
    loss: Loss,
    told: Callable[[int], None] | None = None,
) -> Verdict:
    """Runs every example once. `run` takes whole batches alone, so a smaller last one is filled
    up with zeros. `told` hears how many are done."""
    verdict = Verdict()
    for inputs, targets in batches.once():
        count = len(inputs)
        if count < batches.batch:
            spare = np.zeros((batches.batch - count, *inputs.shape[1:]), np.float32)
            inputs = np.concatenate([inputs, spare])
        verdict.add(run(inputs)[output][:count], targets, loss)
        if told is not None:
            told(verdict.count)
    return verdict
