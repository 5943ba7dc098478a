"""Whole training steps in Numba's simulator, beside the CPU's. A script of its own process.

    NUMBA_ENABLE_CUDASIM=1 python simulated_steps.py agree < cases.json
    NUMBA_ENABLE_CUDASIM=1 python simulated_steps.py facts

Cases are a list of [text, batch, settings, kind of targets].
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simulated import poisonous

from netdsl.faults import NetError
from netdsl.graph import Graph
from netdsl.lang import load
from netdsl.train import Settings, Stepper

sys.path.insert(0, str(Path(__file__).parent.parent / "cpu"))

Floats = NDArray[np.float32]
STEPS = 2

NET = (
    "net tiny; input 1x4x3; conv2x2(3, bias=no) -> bn -> relu -> [conv1x1(2) | id] -> relu "
    "-> flatten -> dropout(0.3) -> fc(5) -> softmax"
)


def made(graph: Graph, batch: int, kind: str) -> list[tuple[dict[str, Floats], dict[str, Any]]]:
    """A batch of inputs and targets for every step."""
    random = np.random.default_rng(3)

    def drawn(names: Any) -> dict[str, Floats]:
        shapes = {name: (batch, *graph[name].shape) for name in names}
        return {n: random.normal(size=s).astype(np.float32) for n, s in shapes.items()}

    def wanted() -> dict[str, Any]:
        values = drawn([*graph.outputs, *(aux.output for aux in graph.aux)])
        if kind == "classes":
            return {name: value.argmax(1) for name, value in values.items()}
        return {
            n: v if kind == "numbers" else (v > 0).astype(np.float32) for n, v in values.items()
        }

    return [(drawn(graph.inputs), wanted()) for _ in range(STEPS)]


def stepper(graph: Graph, batch: int, given: Mapping[str, Any], device: str) -> Stepper:
    from agree import drawn_weights

    settings = Settings(batch=batch, device=device, threads=1, seed=5, **given)
    found = Stepper(graph, drawn_weights(graph), settings, steps=STEPS)
    if device == "cuda":  # what no kernel or host has written yet
        plan: Any = found.plan
        values = plan.heads[0].value  # the gradient and the slots come before
        arena = plan.arena.copy_to_host()
        arena[values:] = np.nan
        plan.arena.copy_to_device(arena)
    return found


def apart(found: Mapping[str, Floats], wanted: Mapping[str, Floats]) -> float:
    assert list(found) == list(wanted)
    return max((float(np.abs(found[n] - wanted[n]).max(initial=0)) for n in wanted), default=0.0)


def outcome(text: str, batch: int, given: Mapping[str, Any], kind: str) -> float:
    """How far apart losses, scores, weights and what the optimiser remembers are at the end."""
    graph = load(text)
    ours, theirs = (stepper(graph, batch, given, device) for device in ("cuda", "cpu"))
    worst = 0.0
    for inputs, targets in made(theirs.graph, batch, kind):
        found, wanted = (one.step(inputs, targets) for one in (ours, theirs))
        worst = max(worst, abs(found.loss - wanted.loss), apart(found.scores, wanted.scores))
        assert found.rate == wanted.rate
    worst = max(worst, apart(ours.weights(), theirs.weights()), apart(ours.state(), theirs.state()))
    return max(worst, apart(ours.run(inputs), theirs.run(inputs)))


def said(work: Any) -> str:
    """The message of a NetError that work must raise."""
    try:
        work()
    except NetError as error:
        return str(error)
    return ""


def facts() -> dict[str, Any]:
    """What holds of a run: the same bits again, no harm by numbers that are not finite, and going
    on on another device."""
    graph = load(NET)
    batches = made(stepper(graph, 4, {}, "cpu").graph, 4, "classes")

    def run(start: Stepper, which: range) -> Stepper:
        for i in which:
            start.step(*batches[i])
        return start

    def new(device: str) -> Stepper:
        return stepper(graph, 4, {}, device)

    whole = run(new("cuda"), range(2))
    again = run(new("cuda"), range(2))
    moved = {}
    for one, other in (("cpu", "cuda"), ("cuda", "cpu")):
        first, second = run(new(one), range(1)), new(other)
        second.restore(first.weights(), first.state(), first.count)
        run(second, range(1, 2))
        moved[f"{one} to {other}"] = apart(second.weights(), whole.weights())
    before = whole.weights()
    ((name, x),) = batches[0][0].items()
    ruined = {name: np.full_like(x, np.inf)}, batches[0][1]
    broken = [said(lambda one=one: one.step(*ruined)) for one in (whole, run(new("cpu"), range(2)))]
    learned = [n for n in before if not n.endswith((".mean", ".var"))]
    after = whole.weights()
    return {
        "same": apart(again.weights(), before) == 0 == apart(again.state(), whole.state()),
        "moved": moved,
        "broken": broken,
        "kept": all(np.array_equal(before[n], after[n]) for n in learned),
        "count": whole.count,
        "label": said(lambda: again.step(batches[0][0], np.full(4, 5))),
        "shape": said(lambda: again.step({name: x[:3]}, batches[0][1])),
    }


def main() -> None:
    poisonous()
    if sys.argv[1] == "facts":
        print(json.dumps(facts()))
        return
    print(json.dumps([outcome(*case) for case in json.load(sys.stdin)]))


if __name__ == "__main__":
    main()
