"""Training steps on an NVIDIA card: all of a step runs there, but for the losses' sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.cuda.backward.plan import TrainingPlan
from netdsl.cuda.backward.table import takes
from netdsl.cuda.backward.task import Learning
from netdsl.graph import Graph
from netdsl.graph.weights import check_weights
from netdsl.train.gradients import Progress
from netdsl.train.losses import check_targets
from netdsl.train.prepare import check_norms, prepared
from netdsl.train.settings import Settings
from netdsl.train.vector import Places, statistics_of

Floats = NDArray[np.float32]


class CudaPlan(TrainingPlan):
    """A plan of the card for a net as it is written, with its parameters in one vector."""

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, Floats],
        settings: Settings,
        *,
        shares: Mapping[str, float] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """shares: of each output in the loss; None for a plan that gives gradients alone.

        Raises NetError: weights that do not fit, a batch norm with one value a channel, more
        memory than the card has, a card that fails.
        """
        check_weights(graph, weights)
        check_norms(graph, settings.batch)
        self.source, self.vectors = graph, Places(graph)
        length = self.vectors.length
        super().__init__(
            graph.name,
            prepared(graph, takes),
            {**self.vectors.places, **statistics_of(graph, length)},
            length,
            batch=settings.batch,
            seed=settings.seed,
            learning=None if shares is None else learning(settings, shares, self.vectors),
            precision=settings.precision,
            progress=progress,
        )
        self.load(weights)

    @property
    def threads(self) -> None:
        """The CPU's, which do not matter here."""
        return None

    def load(self, weights: Mapping[str, Floats]) -> None:
        """Takes these weights, all of them. Raises NetError where they do not fit."""
        check_weights(self.source, weights)
        super().load(weights)

    def parameters(self) -> dict[str, Floats]:
        """A copy of every parameter by its full name, in the net's order."""
        found = super().parameters()
        return {name: found[name] for name in self.source.all_parameters()}


def learning(settings: Settings, shares: Mapping[str, float], vectors: Places) -> Learning:
    """What the card is told of a run."""
    loss, optimiser = settings.make_loss(), settings.make_optimiser()
    return Learning(
        loss=loss.name,
        takes_classes=loss.takes_classes,
        smoothing=settings.smoothing,
        shares=shares,
        optimiser=optimiser.name,
        slots=len(optimiser.slots),
        clip=settings.clip,
        keep=getattr(optimiser, "keep", 0.0),
        keep_squares=getattr(optimiser, "keep_squares", 0.0),
        eps=getattr(optimiser, "eps", 0.0),
        decay=vectors.decay(settings.decay, settings.decay_all),
    )


class CudaEngine:
    """A net and what its optimiser remembers, on the card. See `netdsl.train.engine`."""

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, Floats],
        settings: Settings,
        shares: Mapping[str, float],
        progress: Progress | None,
    ) -> None:
        self.loss, self.optimiser = settings.make_loss(), settings.make_optimiser()
        self.plan = CudaPlan(graph, weights, settings, shares=shares, progress=progress)
        for slot in range(len(self.optimiser.slots)):
            self.plan.restore(slot, self.plan.vectors.vector())

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
        for name in shares:
            shape = (self.plan.batch, *self.plan.graph[name].shape)
            check_targets(self.loss, np.broadcast_to(np.float32(0), shape), targets[name])
        keeps = (getattr(self.optimiser, name, 0.0) for name in ("keep", "keep_squares"))
        numbers = [rate, *(1.0 / (1.0 - keep**count) for keep in keeps)]
        losses, outputs = self.plan.step(inputs, targets, count - 1, numbers)
        return sum(share * losses[name] for name, share in shares.items()), outputs

    def state(self) -> dict[str, Floats]:
        """The optimiser's vectors; see `Engine.state`."""
        views = self.plan.vectors.views
        return {
            f"{slot}/{name}": view
            for i, slot in enumerate(self.optimiser.slots)
            for name, view in views(self.plan.state(i)).items()
        }

    def restore(self, state: Mapping[str, Floats]) -> None:
        """Sets the optimiser's vectors."""
        for i, slot in enumerate(self.optimiser.slots):
            start = f"{slot}/"
            own = {n.removeprefix(start): v for n, v in state.items() if n.startswith(start)}
            self.plan.restore(i, self.plan.vectors.vector(own))
