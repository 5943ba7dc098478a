"""Whether the card computes what it should: every op beside PyTorch in double precision, or, where
there is no PyTorch, beside this package's own reference and its CPU engine."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl import cuda
from netdsl.graph import Graph
from netdsl.graph.weights import initialise
from netdsl.lang import load
from netdsl.runner import COMPUTES

Floats = NDArray[Any]
Arrays = dict[str, Floats]

# Of the largest value. A float32 sum of a few thousand products; factors of 11 and of 8 bits.
TOLERANCE = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 3e-2}
# Some layers, one after the other, and a gradient that is rounded twice.
TOLERANCE |= {
    f"{kind} {p}": 2 * TOLERANCE[p] for kind in ("packed", "back") for p in ("tf32", "bf16")
}

STEPS = 4


def drawn(text: str, batch: int, seed: int) -> tuple[Graph, Arrays, Arrays]:
    """A graph, weights and inputs that nobody has seen before."""
    random = np.random.default_rng(seed)
    graph = load(text)
    weights = dict(initialise(graph, seed))
    for name, value in weights.items():
        # Biases and scales as they begin, 0 and 1, would hide what is left out.
        weights[name] = value + np.abs(random.normal(0, 0.1, value.shape)).astype(np.float32)
    inputs = {n: random.standard_normal((batch, *graph[n].shape), np.float32) for n in graph.inputs}
    return graph, weights, inputs


def furthest(found: Mapping[str, Floats], wanted: Mapping[str, Floats]) -> float:
    """The largest difference, of the largest value of its array; infinite for what is no number."""
    worst = 0.0
    for name, values in wanted.items():
        if found[name].shape != values.shape or not np.isfinite(found[name]).all():
            return float("inf")
        size = float(np.abs(values).max(initial=0.0)) or 1.0
        worst = max(worst, float(np.abs(found[name] - values).max(initial=0.0)) / size)
    return worst


def forward(text: str, batch: int, seed: int, kind: str = "fp32") -> float:
    """How far outputs are from what they should be; the plan runs three times, the last two as a
    graph. kind: a precision, or "exact"."""
    graph, weights, inputs = drawn(text, batch, seed)
    exactly = kind == "exact"
    precision = "fp32" if exactly else kind
    plan = cuda.compile(graph, weights, batch=batch, exact=exactly, precision=precision)
    wanted = exact(graph, weights, inputs)
    return max(furthest(plan.run(inputs), wanted) for _ in range(3))


def packed(text: str, batch: int, seed: int, precision: str) -> float:
    """How far outputs are from what they should be, of a net whose tensors stay packed; infinite
    where they are not, to the bit, what they are where each layer packs its input for itself."""
    from unpacked import each_packs_for_itself

    graph, weights, inputs = drawn(text, batch, seed)

    def runs() -> list[Arrays]:
        plan = cuda.compile(graph, weights, batch=batch, precision=precision)
        return [plan.run(inputs) for _ in range(3)]

    found = runs()
    with each_packs_for_itself():
        same = runs()
    for one, two in zip(found, same, strict=True):
        if any(not np.array_equal(one[name], two[name]) for name in two):
            return float("inf")
    return furthest(found[-1], exact(graph, weights, inputs))


def backward(text: str, batch: int, seed: int, precision: str = "fp32") -> float:
    """How far outputs in training and the gradients of all weights are from what they should be."""
    from netdsl.train.engine import make_plan
    from netdsl.train.settings import Settings

    graph, weights, inputs = drawn(text, batch, seed)
    random = np.random.default_rng(seed + 1)
    slopes = {
        n: random.standard_normal((batch, *graph[n].shape), np.float32) for n in graph.outputs
    }
    settings = Settings(batch=batch, device="cuda", precision=precision)
    plan = make_plan(graph, weights, settings)
    outputs = plan.forward(inputs, step=0)
    plan.backward(slopes)
    wanted, gradients = learned(graph, weights, inputs, slopes)
    return max(furthest(outputs, wanted), furthest(plan.gradients(), gradients))


def copied(text: str, batch: int, seed: int, precision: str) -> float:
    """Nothing, where a net whose tensors are packed once a step has, to the bit, the outputs and
    gradients that it has where all that read them pack for themselves; else infinite."""
    from unpacked import each_packs_in_training

    from netdsl.train.engine import make_plan
    from netdsl.train.settings import Settings

    graph, weights, inputs = drawn(text, batch, seed)
    random = np.random.default_rng(seed + 1)
    slopes = {
        n: random.standard_normal((batch, *graph[n].shape), np.float32) for n in graph.outputs
    }
    settings = Settings(batch=batch, device="cuda", precision=precision)

    def learns() -> Arrays:
        plan = make_plan(graph, weights, settings)
        for step in range(3):  # the last two as a graph
            outputs = plan.forward(inputs, step=step)
            plan.backward(slopes)
        return {**outputs, **plan.gradients()}

    found = learns()
    with each_packs_in_training():
        same = learns()
    if any(not np.array_equal(found[name], same[name]) for name in same):
        return float("inf")
    return 0.0 if all(np.isfinite(values).all() for values in same.values()) else float("inf")


def steps(text: str, batch: int, given: dict[str, Any], kind: str, seed: int) -> float:
    """How far training steps end from the CPU's: losses, outputs, weights, and what the optimiser
    remembers; infinite where a second run gives other bits. The last two steps are a graph.

    kind: the targets are "classes", "numbers", or "shares" from 0 to 1.
    """
    from netdsl.train import Settings, Stepper

    graph, weights, _ = drawn(text, batch, seed)
    ours, again, theirs = (
        Stepper(graph, weights, Settings(batch=batch, device=device, seed=5, **given), steps=STEPS)
        for device in ("cuda", "cuda", "cpu")
    )
    random, worst = np.random.default_rng(seed), 0.0
    for _ in range(STEPS):
        x, targets = batch_of(theirs.graph, batch, kind, random)
        found, same, wanted = (one.step(x, targets) for one in (ours, again, theirs))
        worst = max(worst, abs(found.loss - wanted.loss), furthest(found.scores, wanted.scores))
        worst = max(worst, 0.0 if same.loss == found.loss else float("inf"))
    worst = max(worst, furthest(ours.state(), theirs.state()))
    return max(worst, furthest(ours.weights(), theirs.weights()))


def batch_of(
    graph: Graph, batch: int, kind: str, random: np.random.Generator
) -> tuple[Arrays, Arrays]:
    """Inputs, and targets for every end of the net."""
    ends = [*graph.outputs, *(aux.output for aux in graph.aux)]
    x, values = (
        {n: random.standard_normal((batch, *graph[n].shape), np.float32) for n in names}
        for names in (graph.inputs, ends)
    )
    if kind == "classes":
        return x, {name: value.argmax(1) for name, value in values.items()}
    return x, {n: v if kind == "numbers" else 1 / (1 + np.exp(-v)) for n, v in values.items()}


def in_a_row(text: str, batch: int, count: int, seed: int) -> float:
    """How far batches that pass each other's copies come out from the same ones alone."""
    graph, weights, _ = drawn(text, batch, seed)
    plan = cuda.compile(graph, weights, batch=batch)
    random = np.random.default_rng(seed)
    pieces = [
        {n: random.standard_normal((batch, *graph[n].shape), np.float32) for n in graph.inputs}
        for _ in range(count)
    ]
    alone = [plan.run(piece) for piece in pieces]
    beside = list(plan.run_many(iter(pieces)))
    return max(furthest(a, b) for a, b in zip(beside, alone, strict=True))


def ran(text: str, batch: int, precision: str = "fp32") -> None:
    """A plan run once by its kernels and once as a graph; whoever watches says whether well."""
    graph, weights, inputs = drawn(text, batch, 0)
    plan = cuda.compile(graph, weights, batch=batch, precision=precision)
    for _ in range(2):
        plan.run(inputs)


def ran_back(text: str, batch: int, kind: str = "numbers", **given: Any) -> None:
    """The same of a training step."""
    from netdsl.train import Settings, Stepper

    graph, weights, _ = drawn(text, batch, 0)
    given = {"device": "cuda", "loss": "mse" if kind == "numbers" else "cross_entropy"} | given
    stepper = Stepper(graph, weights, Settings(batch=batch, **given))
    for _ in range(2):
        stepper.step(*batch_of(stepper.graph, batch, kind, np.random.default_rng(0)))


def exact(graph: Graph, weights: Arrays, inputs: Arrays) -> Arrays:
    """The outputs in double precision."""
    module = torch_module(graph, weights)
    if module is None:
        from netdsl.reference import interpret

        return dict(interpret(graph, weights, inputs))
    import torch

    with torch.inference_mode():
        found = module.eval()({n: torch.from_numpy(x).double() for n, x in inputs.items()})
    return {n: y.numpy() for n, y in zip(graph.outputs, found, strict=True)}


def learned(graph: Graph, weights: Arrays, inputs: Arrays, slopes: Arrays) -> tuple[Arrays, Arrays]:
    """The outputs in training and every parameter's gradient."""
    module = torch_module(graph, weights)
    if module is None:
        from netdsl.train.gradients import TrainingPlan

        plan = TrainingPlan(graph, weights, batch=len(next(iter(inputs.values()))), exact=True)
        outputs = plan.forward(inputs, step=0)
        plan.backward(slopes)
        return dict(outputs), dict(plan.gradients())
    import torch

    found = module.train()({n: torch.from_numpy(x).double() for n, x in inputs.items()})
    outputs = dict(zip(graph.outputs, found, strict=True))
    sum((y * torch.from_numpy(slopes[n]).double()).sum() for n, y in outputs.items()).backward()
    gradients = {
        name.replace("/", "."): parameter.grad.numpy()
        for name, parameter in module.named_parameters()
    }
    return {n: y.detach().numpy() for n, y in outputs.items()}, gradients


def torch_module(graph: Graph, weights: Arrays) -> Any:
    """The graph in PyTorch, in double precision; None where there is none that does it."""
    if find_spec("torch") is None:
        return None
    import torch

    from netdsl.bench.engine import Unfit
    from netdsl.bench.torch_net import TorchNet

    try:
        return TorchNet(graph, weights).moved("cpu", torch.float64)
    except Unfit:
        return None


def precisions() -> tuple[str, ...]:
    """Those that the card computes in."""
    return COMPUTES["cuda"]
