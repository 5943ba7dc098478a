"""One training step after another: a net, an optimiser and what it remembers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error
from netdsl.graph import Graph
from netdsl.train.gradients import Progress, TrainingPlan
from netdsl.train.losses import CrossEntropy
from netdsl.train.optimisers import clip_scale
from netdsl.train.prepare import scores
from netdsl.train.settings import Settings

Floats = NDArray[np.float32]
Targets = NDArray[Any] | Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Outcome:
    """What a step gave: the loss with the auxiliary heads' share, and the outputs' scores."""

    loss: float
    scores: dict[str, Floats]
    rate: float


class Stepper:
    """Trains a net step by step, for a loop of one's own.

        stepper = Stepper(net.graph, net.weights, Settings(rate=0.01), steps=1000)
        for inputs, labels in batches:
            outcome = stepper.step(inputs, labels)

    steps: how many there will be, which the schedule needs. The weights that it was given stay as
    they are; `weights()` has the trained ones. Raises NetError as `TrainingPlan` does.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, Floats],
        settings: Settings,
        *,
        steps: int = 1,
        progress: Progress | None = None,
    ) -> None:
        settings.check()
        self.settings, self.loss = settings, settings.make_loss()
        self.graph = scores(graph) if isinstance(self.loss, CrossEntropy) else graph
        self.plan = TrainingPlan(
            self.graph,
            weights,
            batch=settings.batch,
            threads=settings.threads,
            seed=settings.seed,
            progress=progress,
        )
        self.optimiser = settings.make_optimiser()
        self.schedule = settings.make_schedule(steps)
        self.slots = {name: self.plan.vectors.vector() for name in self.optimiser.slots}
        self.decay = self.plan.vectors.decay(settings.decay, settings.decay_all)
        self.count = 0

    def step(self, inputs: Floats | Mapping[str, Floats], targets: Targets) -> Outcome:
        """One step on a batch: inputs (batch, *shape), or by name; targets as the loss takes them,
        the same for every output, or by output.

        Raises NetError: wrong shapes, labels out of range, a loss that is not finite (with the
        first layer that has such numbers); the weights are as they were then.
        """
        outputs = self.plan.forward(self._named(inputs), step=self.count)
        loss, slopes = self._losses(outputs, targets)
        if not np.isfinite(loss):
            raise self._broken(loss)
        self.plan.backward(slopes)
        rate = self.settings.first_rate * self.schedule(self.count)
        self.count += 1
        self.optimiser.step(
            self.plan.weights,
            self.plan.gradient,
            self.slots,
            rate=rate,
            decay=self.decay,
            scale=clip_scale(self.plan.gradient, self.settings.clip),
            count=self.count,
            threads=self.plan.threads,
        )
        self.plan.changed()
        return Outcome(loss, outputs, rate)

    def run(self, inputs: Floats | Mapping[str, Floats]) -> dict[str, Floats]:
        """The outputs as `run` would give them: no dropout, running statistics."""
        return self.plan.forward(self._named(inputs))

    def weights(self) -> dict[str, Floats]:
        """A copy of every parameter by name, statistics too."""
        return {name: value.copy() for name, value in self.plan.parameters().items()}

    def _named(self, inputs: Floats | Mapping[str, Floats]) -> Mapping[str, Floats]:
        return inputs if isinstance(inputs, Mapping) else {self.graph.inputs[0]: inputs}

    def _losses(
        self, outputs: Mapping[str, Floats], targets: Targets
    ) -> tuple[float, dict[str, Floats]]:
        """The whole loss and its gradient in each output."""
        shares = dict.fromkeys(self.graph.outputs, 1.0)
        shares |= {aux.output: aux.weight for aux in self.graph.aux}
        total, slopes = 0.0, {}
        for name, share in shares.items():
            wanted = targets[name] if isinstance(targets, Mapping) else targets
            value, slope = self.loss(outputs[name], wanted)
            total += share * value
            slopes[name] = slope if share == 1.0 else slope * np.float32(share)
        return total, slopes

    def _broken(self, loss: float) -> Exception:
        node = self.plan.broken()
        where = f": {node} is the first layer with such numbers" if node else ""
        return error(
            "not-finite",
            f"the loss is {loss} at step {self.count + 1}{where}",
            help="a smaller --rate, --clip, or --warmup",
        )

    def state(self) -> dict[str, Floats]:
        """What the optimiser remembers: a vector a slot, by "slot/parameter"."""
        return {
            f"{slot}/{name}": view
            for slot, vector in self.slots.items()
            for name, view in self.plan.vectors.views(vector).items()
        }

    def restore(
        self, weights: Mapping[str, Floats], state: Mapping[str, Floats], count: int
    ) -> None:
        """Goes back to where `weights`, `state` and `count` were taken."""
        self.plan.load(weights)
        for name, view in self.state().items():
            view[...] = state[name]
        self.count = count
