"""Training where tensors are packed once, in Numba's simulator. A script of its own process.

    NUMBA_ENABLE_CUDASIM=1 python simulated_copies.py agree < cases.json      see `outcome`
    NUMBA_ENABLE_CUDASIM=1 python simulated_copies.py planted < bugs.json     what bugs lead to
    NUMBA_ENABLE_CUDASIM=1 python simulated_copies.py room < cases.json       see `room`

Cases are a list of [text, batch, precision, seed].
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from simulated import poisonous, with_bug
from simulated_training import plan_of
from unpacked import each_packs_in_training

from netdsl.cuda.backward import making, pack
from netdsl.lang import load

Floats = np.ndarray
Case = tuple[str, int, str, int]

STEPS = 2


def found(case: Case) -> tuple[list[dict[str, Floats]], list[str]]:
    """What a net gives when it is tried, then the outputs and the gradients of steps; the kernels
    that a step launches."""
    from agree import drawn_inputs, drawn_weights

    text, batch, precision, seed = case
    graph = load(text)
    weights, inputs = drawn_weights(graph, seed), drawn_inputs(graph, batch, seed + 1)
    plan = plan_of(graph, weights, batch, precision)
    results, random = [plan.forward(inputs)], np.random.default_rng(seed)
    for step in range(STEPS):
        outputs = plan.forward(inputs, step=step)
        shapes = {name: values.shape for name, values in outputs.items()}
        plan.backward({n: random.normal(size=s).astype(np.float32) for n, s in shapes.items()})
        results += [outputs, {n: v.copy() for n, v in plan.gradients().items()}]
    assert plan.broken() is None
    plan.forward({name: np.full_like(x, np.nan) for name, x in inputs.items()}, step=0)
    assert plan.broken() is not None
    return results, [c.kernel.fn.__name__ for c in (*plan._forward.calls, *plan._back.calls)]


def outcome(case: Case) -> tuple[bool, list[str], list[str]]:
    """Whether a net learns as it does where all pack for themselves what they read, to the bit; the
    kernels that it launches, and those that it launches then."""
    ours, calls = found(case)
    with each_packs_in_training():
        theirs, others = found(case)
    same = True
    for one, other in zip(ours, theirs, strict=True):
        assert list(one) == list(other)
        assert not any(np.isnan(values).any() for values in other.values())
        same &= all(np.array_equal(one[name], other[name]) for name in other)
    return same, calls, others


def shown(case: Case) -> str:
    """What shows that something is wrong; "" where nothing does."""
    try:
        same, _, _ = outcome(case)
    except (Exception, AssertionError) as error:
        return type(error).__name__
    return "" if same else "other bits"


def planted(bugs: list[tuple[str, str]], cases: list[Case]) -> list[str]:
    """For each bug, what in the kernel that packs gradients is replaced by what, how the first case
    shows it."""
    found, right = [], pack.pack_gradient
    for old, new in bugs:
        pack.pack_gradient = with_bug(pack, old, new).pack_gradient
        found.append(next(filter(None, map(shown, cases)), ""))
        pack.pack_gradient = right
    return found


def room(case: Case) -> tuple[int, int]:
    """How many tensors lie packed where there is room for all, and where for none."""
    from agree import drawn_weights

    text, batch, precision, seed = case
    graph = load(text)
    counts, right = [], making.most_floats
    for most in (right, lambda: 0):
        making.most_floats = most
        plan = plan_of(graph, drawn_weights(graph, seed), batch, precision)
        counts.append(len(plan.layout.packed))
    making.most_floats = right
    return counts[0], counts[1]


def main() -> None:
    poisonous()
    given: Any = json.load(sys.stdin)
    if sys.argv[1] == "planted":
        print(json.dumps(planted(given["bugs"], given["cases"])))
        return
    print(json.dumps([{"agree": outcome, "room": room}[sys.argv[1]](case) for case in given]))


if __name__ == "__main__":
    main()
