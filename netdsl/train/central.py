"""Gradients by central differences of the float64 interpreter: slow, plain, and independent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error
from netdsl.graph import Graph
from netdsl.ops import BatchNorm, Dropout, Input
from netdsl.reference.interpret import TABLE
from netdsl.train.engine import make_plan
from netdsl.train.settings import Settings

Arrays = Mapping[str, NDArray[Any]]
Doubles = NDArray[np.float64]
STEP = 1e-6


def outputs(graph: Graph, weights: Arrays, inputs: Arrays) -> dict[str, Doubles]:
    """Every output in float64, auxiliary heads' too, with batch norms by their batch and without
    dropout."""
    values: dict[str, Doubles] = {}
    for node in graph:
        if isinstance(node.op, Input):
            values[node.name] = np.asarray(inputs[node.name], np.float64)
            continue
        own = {
            p.name: np.asarray(weights[f"{node.name}.{p.name}"], np.float64)
            for p in graph.parameters(node)
        }
        x = [values[name] for name in node.inputs]
        if isinstance(node.op, BatchNorm):
            axes = (0, *range(2, x[0].ndim))
            own |= {"mean": x[0].mean(axes), "var": x[0].var(axes)}
        values[node.name] = TABLE[type(node.op)](node.op, own, *x)
    return {name: values[name] for name in ends(graph)}


def ends(graph: Graph) -> list[str]:
    """The nodes whose values leave the graph."""
    return [*graph.outputs, *(aux.output for aux in graph.aux)]


def slope(
    graph: Graph, weights: Arrays, inputs: Arrays, pulls: Arrays, name: str, way: Doubles
) -> float:
    """How fast the sum of outputs times pulls grows as a parameter moves along `way`."""

    def value(step: float) -> float:
        moved = np.asarray(weights[name], np.float64) + step * way
        found = outputs(graph, {**weights, name: moved}, inputs)
        return float(sum((found[end] * pulls[end]).sum() for end in pulls))

    return (value(STEP) - value(-STEP)) / (2 * STEP)


@dataclass(frozen=True)
class Checked:
    """A parameter's gradient along a random direction: ours, by differences, and how far apart,
    relative to the gradient's own length."""

    name: str
    ours: float
    differences: float
    apart: float


def check_gradients(
    graph: Graph, weights: Arrays, settings: Settings | None = None
) -> list[Checked]:
    """Every parameter's gradient on random inputs, one direction each.

    settings: their batch, seed, threads and device count; a batch of 2 on the CPU where None.
    Raises NetError for a net with dropout, whose training is random.
    """
    settings = settings or Settings(batch=2)
    for node in graph:
        if isinstance(node.op, Dropout) and node.op.rate:
            raise error(
                "random-net",
                f"{node.name} drops at random, so differences tell nothing",
                help="check the net without dropout",
            )
    rng = np.random.default_rng(settings.seed)
    batch = settings.batch
    inputs = {
        name: rng.normal(size=(batch, *graph[name].shape)).astype(np.float32)
        for name in graph.inputs
    }
    plan = make_plan(graph, weights, settings)
    found = plan.forward(inputs, step=0)
    pulls = {end: rng.normal(size=v.shape).astype(np.float32) for end, v in found.items()}
    plan.backward(pulls)
    gradients = {n: g.astype(np.float64) for n, g in plan.gradients().items()}
    # A direction is nearly at right angles to the gradient where there are many numbers.
    typical = {n: float(np.sqrt((g**2).mean())) for n, g in gradients.items()}
    # A bias before a batch norm has no slope: it is measured against the others.
    least = 1e-3 * max(typical.values(), default=0.0) + 1e-12
    checked = []
    for name, gradient in gradients.items():
        way = rng.normal(size=gradient.shape)
        way /= np.sqrt((way**2).sum())
        ours = float((gradient * way).sum())
        wanted = slope(graph, weights, inputs, pulls, name, way)
        apart = abs(ours - wanted) / max(typical[name], abs(wanted), least)
        checked.append(Checked(name, ours, wanted, apart))
    return checked
