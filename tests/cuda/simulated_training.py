"""Training's CUDA kernels in Numba's simulator. A script, because it needs a process of its own.

    NUMBA_ENABLE_CUDASIM=1 python simulated_training.py agree < cases.json
    NUMBA_ENABLE_CUDASIM=1 python simulated_training.py planted < bugs.json

Cases are a list of [text, batch]. Whatever a kernel does not write is NaN, see simulated.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from simulated import prepare

from netdsl.cuda.backward.plan import TrainingPlan
from netdsl.graph import Graph
from netdsl.lang import load
from netdsl.train.gradients import TrainingPlan as CpuPlan
from netdsl.train.prepare import prepared
from netdsl.train.vector import Places, statistics_of

sys.path.insert(0, str(Path(__file__).parent.parent / "cpu"))

Floats = NDArray[np.float32]
Arrays = dict[str, Floats]


def plan_of(graph: Graph, weights: Arrays, batch: int) -> TrainingPlan:
    """A plan in poisoned memory."""
    learned = Places(graph)
    places = {**learned.places, **statistics_of(graph, learned.length)}
    plan = TrainingPlan(graph.name, prepared(graph), places, learned.length, batch=batch)
    plan.arena.copy_to_device(np.full(plan.arena.shape, np.nan, np.float32))
    plan.load(weights)
    return plan


def apart(found: Mapping[str, Floats], wanted: Mapping[str, Floats]) -> float:
    """The largest difference, against the size of what an array holds."""
    from agree import difference

    assert set(found) == set(wanted)
    worst = 0.0
    for name, values in wanted.items():
        size = max(float(np.abs(values).max(initial=0.0)), 1.0)
        worst = max(worst, difference(found[name] / size, values / size))
    return worst


def outcome(text: str, batch: int, *, twice: bool = False) -> float:
    """The largest difference of an output, a gradient or a statistic from the CPU's."""
    from agree import drawn_inputs, drawn_weights

    graph = load(text)
    weights, inputs = drawn_weights(graph), drawn_inputs(graph, batch)
    ours = plan_of(graph, weights, batch)
    theirs = CpuPlan(graph, weights, batch=batch, threads=1, exact=True)
    worst = apart(ours.forward(inputs), theirs.forward(inputs))
    random = np.random.default_rng(2)
    for step in range(1 + twice):
        found, wanted = ours.forward(inputs, step=step), theirs.forward(inputs, step=step)
        slopes = {n: random.normal(size=v.shape).astype(np.float32) for n, v in wanted.items()}
        ours.backward(slopes)
        theirs.backward(slopes)
        worst = max(worst, apart(found, wanted), apart(ours.gradients(), theirs.gradients()))
        worst = max(worst, apart(ours.parameters(), theirs.parameters()))
    return worst


def main() -> None:
    prepare()
    given = json.load(sys.stdin)
    found = [outcome(text, batch, twice=i == 0) for i, (text, batch) in enumerate(given)]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
