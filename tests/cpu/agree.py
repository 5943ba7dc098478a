"""Running a text on the CPU beside the reference, in memory where nothing was written before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from netdsl import cpu
from netdsl.cpu.layout import Halo, image
from netdsl.graph import Graph
from netdsl.lang import load
from netdsl.reference import interpret

Floats = NDArray[np.float32]


def drawn_weights(graph: Graph, seed: int = 0) -> dict[str, Floats]:
    """Weights of every parameter, none of them at a value that hides a mistake."""
    random = np.random.default_rng(seed)
    return {
        name: (
            random.uniform(0.5, 2.0, what.shape)
            if name.endswith(".var")
            else random.normal(0.0, 1 / np.sqrt(max(what.fan_in, 4)), what.shape)
        ).astype(np.float32)
        for name, what in graph.all_parameters().items()
    }


def drawn_inputs(graph: Graph, batch: int, seed: int = 1, scale: float = 2.0) -> dict[str, Floats]:
    """Normal numbers for every input."""
    random = np.random.default_rng(seed)
    return {
        name: random.normal(0.0, scale, (batch, *graph[name].shape)).astype(np.float32)
        for name in graph.inputs
    }


def poison(plan: cpu.Plan) -> None:
    """NaN wherever nothing promises a number: all of the arena but the halos."""
    plan.arena[:] = np.nan
    framed = [b for b in plan.placement.buffers.values() if b.halo != Halo()]
    for buffer in framed:
        image(plan.arena, buffer, whole=True)[...] = 0.0
    for buffer in framed:
        image(plan.arena, buffer)[...] = np.nan


def padding_lanes(plan: cpu.Plan, name: str) -> Floats:
    """What lies past the last channel of an output's buffer."""
    buffer = plan.placement.buffers[name]
    spare = -buffer.channels % 16
    return image(plan.arena, buffer)[:, -1, ..., 16 - spare :] if spare else np.zeros(0, np.float32)


def difference(found: NDArray[np.floating], wanted: NDArray[np.floating]) -> float:
    """The largest difference against 1 + size; NaN and infinities must stand in the same places."""
    assert found.shape == wanted.shape
    with np.errstate(all="ignore"):
        apart = np.abs(found - wanted) / (1.0 + np.abs(wanted))
    same = (found == wanted.astype(np.float32)) | (np.isnan(found) & np.isnan(wanted))
    return float(np.max(np.where(same, 0.0, np.nan_to_num(apart, nan=np.inf)), initial=0.0))


def worst(
    text: str,
    *,
    batch: int = 2,
    threads: int | None = None,
    aux: bool = False,
    exact: bool = False,
    precision: str = "fp32",
    inputs: dict[str, Floats] | None = None,
) -> float:
    """The largest difference of any output from the reference, run twice in poisoned memory."""
    graph = load(text)
    weights = drawn_weights(graph)
    inputs = inputs or drawn_inputs(graph, batch)
    how = {"threads": threads, "aux": aux, "exact": exact, "precision": precision}
    plan = cpu.compile(graph, weights, batch=batch, **how)
    poison(plan)
    wanted = interpret(graph, weights, inputs, aux=aux)
    first, second = plan.run(inputs), plan.run(inputs)
    assert set(first) == set(wanted)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], strict=True)
    return max(difference(first[name], wanted[name]) for name in wanted)
