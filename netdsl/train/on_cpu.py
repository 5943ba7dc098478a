"""Training steps on the CPU: what a plan of it and an optimiser make of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.graph import Graph
from netdsl.train.gradients import Progress, TrainingPlan
from netdsl.train.losses import Loss
from netdsl.train.optimisers import Optimiser, clip_scale
from netdsl.train.settings import Settings

Floats = NDArray[np.float32]


class CpuEngine:
    """A net and what its optimiser remembers, in the CPU's memory. See `netdsl.train.engine`."""

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, Floats],
        settings: Settings,
        progress: Progress | None,
    ) -> None:
        self.loss: Loss = settings.make_loss()
        self.optimiser: Optimiser = settings.make_optimiser()
        self.clip = settings.clip
        self.plan = TrainingPlan(
            graph,
            weights,
            batch=settings.batch,
            threads=settings.threads,
            seed=settings.seed,
            progress=progress,
        )
        self.slots = {name: self.plan.vectors.vector() for name in self.optimiser.slots}
        self.decay = self.plan.vectors.decay(settings.decay, settings.decay_all)

    def step(
        self,
        inputs: Mapping[str, Floats],
        targets: Mapping[str, NDArray[Any]],
        shares: Mapping[str, float],
        *,
        rate: float,
        count: int,
    ) -> tuple[float, dict[str, Floats]]:
        """The whole loss and the outputs of a step; see `Engine.step`."""
        outputs = self.plan.forward(inputs, step=count - 1)
        loss, slopes = self._losses(outputs, targets, shares)
        if np.isfinite(loss):
            self.plan.backward(slopes)
            self.optimiser.step(
                self.plan.weights,
                self.plan.gradient,
                self.slots,
                rate=rate,
                decay=self.decay,
                scale=clip_scale(self.plan.gradient, self.clip),
                count=count,
                threads=self.plan.threads,
            )
            self.plan.changed()
        return loss, outputs

    def _losses(
        self,
        outputs: Mapping[str, Floats],
        targets: Mapping[str, NDArray[Any]],
        shares: Mapping[str, float],
    ) -> tuple[float, dict[str, Floats]]:
        """The whole loss and its gradient in each output."""
        total, slopes = 0.0, {}
        for name, share in shares.items():
            value, slope = self.loss(outputs[name], targets[name])
            total += share * value
            slopes[name] = slope if share == 1.0 else slope * np.float32(share)
        return total, slopes

    def state(self) -> dict[str, Floats]:
        """The optimiser's vectors; see `Engine.state`."""
        return {
            f"{slot}/{name}": view
            for slot, vector in self.slots.items()
            for name, view in self.plan.vectors.views(vector).items()
        }

    def restore(self, state: Mapping[str, Floats]) -> None:
        """Sets the optimiser's vectors."""
        for name, view in self.state().items():
            view[...] = state[name]
