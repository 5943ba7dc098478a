"""Training's CUDA kernels in Numba's simulator. A script, because it needs a process of its own.

    NUMBA_ENABLE_CUDASIM=1 python simulated_training.py agree < cases.json
    NUMBA_ENABLE_CUDASIM=1 python simulated_training.py planted < bugs.json
    NUMBA_ENABLE_CUDASIM=1 python simulated_training.py strips < bugs.json

Cases are a list of [text, batch]. Whatever a kernel does not write is NaN, see simulated.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from simulated import poisonous, with_bug

from netdsl.cuda.backward.plan import TrainingPlan
from netdsl.cuda.backward.table import takes
from netdsl.graph import Graph
from netdsl.lang import load
from netdsl.train.gradients import TrainingPlan as CpuPlan
from netdsl.train.prepare import prepared
from netdsl.train.vector import Places, statistics_of

sys.path.insert(0, str(Path(__file__).parent.parent / "cpu"))

Floats = NDArray[np.float32]
Arrays = dict[str, Floats]


def plan_of(graph: Graph, weights: Arrays, batch: int, precision: str = "fp32") -> TrainingPlan:
    """A plan in poisoned memory."""
    learned = Places(graph)
    places = {**learned.places, **statistics_of(graph, learned.length)}
    low, settings = prepared(graph, takes), {"batch": batch, "precision": precision}
    plan = TrainingPlan(graph.name, low, places, learned.length, **settings)
    arena = plan.arena.copy_to_host()
    arena[plan.length :] = np.nan
    plan.arena.copy_to_device(arena)
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


@dataclass(frozen=True)
class Sample:
    """A net, a batch, and what the CPU makes of them in two steps."""

    graph: Graph
    weights: Arrays
    inputs: Arrays
    tried: Arrays
    steps: list[tuple[Arrays, Arrays, Arrays, Arrays]]
    """Of each: the outputs, their gradients as given, the parameters' gradients, the parameters."""


@cache
def sample(text: str, batch: int) -> Sample:
    """A case, worked out on the CPU."""
    from agree import drawn_inputs, drawn_weights

    graph = load(text)
    weights, inputs = drawn_weights(graph), drawn_inputs(graph, batch)
    plan = CpuPlan(graph, weights, batch=batch, threads=1, exact=True)
    tried, steps, random = plan.forward(inputs), [], np.random.default_rng(2)
    for step in range(2):
        found = plan.forward(inputs, step=step)
        slopes = {n: random.normal(size=v.shape).astype(np.float32) for n, v in found.items()}
        plan.backward(slopes)
        steps.append((found, slopes, copied(plan.gradients()), copied(plan.parameters())))
    return Sample(graph, weights, inputs, tried, steps)


def copied(arrays: Mapping[str, Floats]) -> Arrays:
    return {name: values.copy() for name, values in arrays.items()}


def outcome(text: str, batch: int, *, twice: bool = False) -> float:
    """The largest difference of an output, a gradient or a statistic from the CPU's."""
    case = sample(text, batch)
    plan = plan_of(case.graph, case.weights, batch)
    worst = apart(plan.forward(case.inputs), case.tried)
    for step, (found, slopes, gradients, parameters) in enumerate(case.steps[: 1 + twice]):
        worst = max(worst, apart(plan.forward(case.inputs, step=step), found))
        plan.backward(slopes)
        worst = max(worst, apart(plan.gradients(), gradients))
        worst = max(worst, apart(plan.parameters(), parameters))
    return worst


def shown(text: str, batch: int) -> str:
    """How a net of one layer shows a bug in what its gradients take; "" if it does not."""
    case = sample(text, batch)
    _, slopes, gradients, _ = case.steps[0]
    try:
        plan = plan_of(case.graph, case.weights, batch)
        plan.feed(case.inputs, 0)
        plan.backward(slopes)
        found = apart(plan.gradients(), gradients)
    except Exception as error:
        return type(error).__name__
    return "" if found < 1e-5 else str(found)


def planted(bugs: list[tuple[str, str]], cases: list[tuple[str, int]]) -> Iterator[str]:
    """For each bug in product.py, what the first case that shows it ends in; "" where none does."""
    from netdsl.cuda.backward import product, products

    for old, new in bugs:
        module = with_bug(product, old, new)
        products.KERNELS, products.product_finish = module.KERNELS, module.product_finish
        yield next(filter(None, (shown(*case) for case in cases)), "")


def planted_in_strips(bugs: list[tuple[str, str]], cases: list[tuple[str, int]]) -> Iterator[str]:
    """The same of bugs in depthwise.py."""
    from netdsl.cuda.backward import depthwise

    for old, new in bugs:
        depthwise.STRIPS = with_bug(depthwise, old, new).STRIPS
        yield next(filter(None, (shown(*case) for case in cases)), "")


def main() -> None:
    poisonous()
    given = json.load(sys.stdin)
    if sys.argv[1] in ("planted", "strips"):
        plant = planted if sys.argv[1] == "planted" else planted_in_strips
        print(json.dumps(list(plant(given["bugs"], given["cases"]))))
        return
    found = [outcome(text, batch, twice=i == 0) for i, (text, batch) in enumerate(given)]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
