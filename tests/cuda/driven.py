"""Plans on the fake driver. A script, because its process must have loaded nothing else before.

    LD_LIBRARY_PATH=folder python driven.py < case.json

Prints how far outputs are from what they should be, whether launches became a graph, and what was
said. Of a list of waits ("object.method" of staging.py's) it leaves each out.
"""

from __future__ import annotations

import json
import sys
from itertools import islice
from typing import Any

import numpy as np

import netdsl
from netdsl.faults import NetError

TEXT = "input 3x4; relu -> flatten"
BATCH = 2


def drawn(samples: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(samples, 3, 4)).astype(np.float32)


def apart(found: np.ndarray, x: np.ndarray) -> float:
    """The largest difference from what relu gives; infinite where something is not a number."""
    difference = np.abs(found - np.maximum(x, 0).reshape(len(x), -1))
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")


def runs(given: dict[str, Any]) -> dict[str, Any]:
    """Four runs of one batch, then eleven samples at once, then a run broken off and another."""
    net = netdsl.Net.load(text=TEXT)
    runner = net.runner(BATCH, device="cuda")
    (name,) = net.graph.inputs
    (output,) = net.graph.outputs
    worst = 0.0
    for _ in range(4):
        x = drawn(BATCH)
        worst = max(worst, apart(runner.run({name: x})[output], x))
    x = drawn(11)
    many = apart(runner.run({name: x})[output], x)
    pieces = ({name: x[i : i + BATCH].copy()} for i in range(0, 10, BATCH))
    for found in islice(runner.plan.run_many(pieces), 1):
        many = max(many, apart(found[output], x[:BATCH]))
    many = max(many, apart(runner.run({name: -x})[output], -x))
    timings = runner.plan.profile({name: x[:BATCH]})
    plan = runner.plan
    return {
        "one": worst,
        "many": many,
        "graph": plan._replay.recorded,
        "note": plan.note,
        "ms": [timing.ms for timing in timings],
        "compiled": sum(sum(call.kernel._cache_misses.values()) for call in plan._replay.calls),
    }


def lost(given: dict[str, Any]) -> dict[str, Any]:
    """A card that fails in the second run: what is said, and what is left."""
    net = netdsl.Net.load(text="input 3x4; conv1p0(2) -> relu")
    x, weights = drawn(4), {name: value.copy() for name, value in net.weights.items()}
    before, said = x.copy(), []
    for _ in range(2):
        try:
            net.run(x, device="cuda", batch=2)
        except NetError as problem:
            said.append([fault.code for fault in problem.faults])
    kept = all(np.array_equal(net.weights[name], value) for name, value in weights.items())
    after = net.run(x, device="cpu")
    wanted = net.run(x, device="reference")
    return {
        "said": said,
        "kept": kept and np.array_equal(x, before),
        "cpu": float(np.abs(after - wanted).max()),
    }


def turns(given: dict[str, Any]) -> dict[str, Any]:
    """Plans that fit the card one after another, but not two at once."""
    net = netdsl.Net.load(text="input 3x40x40; relu -> flatten")
    worst = 0.0
    for batch in (8, 7, 8, 7):
        x = np.random.default_rng(batch).normal(size=(batch, 3, 40, 40)).astype(np.float32)
        found = np.asarray(net.run(x, device="cuda", batch=batch))
        worst = max(worst, float(np.abs(found - np.maximum(x, 0).reshape(batch, -1)).max()))
    return {"one": worst}


def main() -> None:
    given = json.load(sys.stdin)
    for wait in given.get("without", ()):
        leave_out(wait)
    does = {"lost": lost, "turns": turns}.get(given.get("does", ""), runs)
    print(json.dumps(does(given)))


def leave_out(wait: str) -> None:
    """Makes a wait of a slot's mark do nothing."""
    from netdsl.cuda import staging

    mark, method = wait.split(".")
    made = staging._Slot.of

    class Deaf:
        def __init__(self, event: Any) -> None:
            self.event = event

        def __getattr__(self, name: str) -> Any:
            return (lambda *args: None) if name == method else getattr(self.event, name)

    def of(*views: Any) -> Any:
        slot = made(*views)
        object.__setattr__(slot, mark, Deaf(getattr(slot, mark)))
        return slot

    staging._Slot.of = of  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
