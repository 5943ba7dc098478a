"""A set of examples: inputs, in memory or as picture files, and what they should give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error

Inputs = NDArray[Any] | Sequence[Path]
"""uint8 pictures (N, C, H, W); float32 tensors (N, *shape), taken as they are; or files."""


@dataclass(frozen=True)
class Examples:
    """Examples with their targets: class numbers (N, …) int64, or arrays of floats (N, …).

    `classes` are the names of the classes where they are known.
    """

    name: str
    inputs: Inputs
    targets: NDArray[Any]
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise error(
                "uneven-data",
                f"{self.name} has {len(self.inputs):,} inputs and {len(self.targets):,} targets",
            )
        if not len(self.inputs):
            raise error("empty-data", f"{self.name} holds no examples")

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def labelled(self) -> bool:
        """Whether the targets are class numbers."""
        return self.targets.dtype.kind in "iu"

    def take(self, indices: NDArray[np.int64]) -> Examples:
        """These examples alone, in this order."""
        inputs: Inputs
        if isinstance(self.inputs, np.ndarray):
            inputs = self.inputs[indices]
        else:
            inputs = [self.inputs[i] for i in indices]
        return replace(self, inputs=inputs, targets=self.targets[indices])

    def balance(self) -> dict[str, int]:
        """How many examples each class has."""
        if not self.labelled:
            return {}
        counts = np.bincount(self.targets.reshape(-1))
        names = self.classes or ()
        return {
            names[i] if i < len(names) else str(i): int(count) for i, count in enumerate(counts)
        }

    def split(self, share: float, seed: int) -> tuple[Examples, Examples]:
        """The examples without a share of each class, and that share, drawn by seed.

        Raises NetError: a share that is not between 0 and 1, a class of one example.
        """
        if not 0 < share < 1:
            raise error("out-of-range", f"the validation share must be between 0 and 1: {share}")
        rng = np.random.default_rng(seed)
        held = np.zeros(len(self), bool)
        for members in self._strata():
            if len(members) < 2:
                name = self._class_of(int(members[0]))
                raise error(
                    "too-few-examples",
                    f"{self.name} has one example of {name}: it cannot be trained on and "
                    "validated with",
                    help="at least two a class, or no validation split",
                )
            count = min(max(round(len(members) * share), 1), len(members) - 1)
            held[rng.permutation(members)[:count]] = True
        return self.take(np.flatnonzero(~held)), self.take(np.flatnonzero(held))

    def _strata(self) -> list[NDArray[np.int64]]:
        """The indices of each class that has some; of all where there are no classes."""
        if not self.labelled or self.targets.ndim != 1:
            return [np.arange(len(self))]
        return [np.flatnonzero(self.targets == label) for label in np.unique(self.targets)]

    def _class_of(self, index: int) -> str:
        if not self.labelled or self.targets.ndim != 1:
            return "anything"
        label = int(self.targets[index])
        named = self.classes and label < len(self.classes)
        return f"class {self.classes[label] if named and self.classes else label}"


@dataclass(frozen=True)
class Data:
    """What was found: examples to train on, and those to test with where the data has them."""

    train: Examples
    test: Examples | None = None
    notes: tuple[str, ...] = ()
