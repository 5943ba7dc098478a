"""Where training steps run: on the CPU, or on an NVIDIA card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from netdsl.cuda import device
from netdsl.faults import error
from netdsl.graph import Graph
from netdsl.train.gradients import Progress, TrainingPlan
from netdsl.train.settings import Settings

Floats = NDArray[np.float32]


class Plan(Protocol):
    """What both devices' plans are to a training run."""

    @property
    def threads(self) -> int | None:
        """How many work, where that is asked."""

    def forward(
        self, inputs: Mapping[str, Floats], *, step: int | None = None
    ) -> dict[str, Floats]:
        """Each output by name; without a step as `run` would give it."""

    def backward(self, slopes: Mapping[str, Floats]) -> None:
        """Works out the parameters' gradients from those of the last outputs of a step."""

    def gradients(self) -> dict[str, Floats]:
        """The gradient of every learned parameter by its full name."""

    def parameters(self) -> dict[str, Floats]:
        """Every parameter by its full name, statistics too."""

    def load(self, weights: Mapping[str, Floats]) -> None:
        """Takes these weights, all of them."""

    def broken(self) -> str | None:
        """The first node with a number that is not finite."""


class Engine(Protocol):
    """A net, its weights, and what its optimiser remembers, on some device."""

    @property
    def plan(self) -> Plan: ...

    def step(
        self,
        inputs: Mapping[str, Floats],
        targets: Mapping[str, NDArray[Any]],
        shares: Mapping[str, float],
        *,
        rate: float,
        count: int,
    ) -> tuple[float, dict[str, Floats]]:
        """The whole loss before a step, and the outputs. Where the loss is not finite no learned
        parameter moves.

        inputs, targets: by the net's inputs and outputs. shares: of each output in the loss.
        count: steps so far, this one included.
        Raises NetError: wrong shapes, labels out of range, a device that fails.
        """

    def state(self) -> dict[str, Floats]:
        """What the optimiser remembers: a vector a slot, by "slot/parameter"."""

    def restore(self, state: Mapping[str, Floats]) -> None:
        """Sets what the optimiser remembers."""


def on_card(name: str, precision: str = "fp32") -> bool:
    """Whether a device's name means the card. Raises NetError where it is not here, or where the
    device that is meant does not train in this precision."""
    card = name == "cuda" or (name == "auto" and device.missing() is None)
    if card:
        device.check(precision)
    elif precision != "fp32":
        raise error(
            "no-precision",
            f"the device cpu does not train in {precision}",
            help="it trains in fp32; --device cuda in fp32, tf32 or bf16",
        )
    return card


def make_engine(
    graph: Graph,
    weights: Mapping[str, Floats],
    settings: Settings,
    shares: Mapping[str, float],
    progress: Progress | None,
) -> Engine:
    """An engine on the device that the settings name. Raises NetError: no such device here, and
    what the device's plan raises."""
    if on_card(settings.device, settings.precision):
        from netdsl.train.on_cuda import CudaEngine

        return CudaEngine(graph, weights, settings, shares, progress)
    from netdsl.train.on_cpu import CpuEngine

    return CpuEngine(graph, weights, settings, progress)


def make_plan(graph: Graph, weights: Mapping[str, Floats], settings: Settings) -> Plan:
    """A plan that gives gradients, for no optimiser. Raises NetError as `make_engine`."""
    if on_card(settings.device, settings.precision):
        from netdsl.train.on_cuda import CudaPlan

        return CudaPlan(graph, weights, settings)
    batch, threads = settings.batch, settings.threads
    return TrainingPlan(graph, weights, batch=batch, threads=threads, seed=settings.seed)
