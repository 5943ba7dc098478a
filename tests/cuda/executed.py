"""Compiled kernels run by the machine of ptx, in what the simulator's cases ask for. A script,
because it puts the machine in place of a card.

    python executed.py < cases.json     what each case gives, and the kernels that were launched
    python executed.py kernels          every kernel that there is

Cases are lists by mode; what a mode takes and gives is said where its function stands.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import registry

KERNELS = registry.kernels()

import simulated  # noqa: E402
import simulated_back  # noqa: E402
import simulated_mixed  # noqa: E402
import simulated_packed  # noqa: E402
import simulated_peak  # noqa: E402
import simulated_rounded  # noqa: E402
import simulated_steps  # noqa: E402
import simulated_training  # noqa: E402
import simulated_winograd  # noqa: E402
import warped  # noqa: E402
from ptx.card import Card, put_in_place  # noqa: E402

simulated_mixed.KEPT["fp32"] = 23

CARD = Card()


def trained(text: str, batch: int, precision: str) -> float:
    """The largest difference of an output, a gradient or a statistic from the CPU's, which rounds
    no factor, against the largest that there is."""
    case, apart = simulated_training.sample(text, batch), simulated_training.apart
    plan = simulated_training.plan_of(case.graph, case.weights, batch, precision)
    found, slopes, gradients, parameters = case.steps[0]
    worst = apart(plan.forward(case.inputs), case.tried)
    worst = max(worst, apart(plan.forward(case.inputs, step=0), found))
    plan.backward(slopes)
    worst = max(worst, apart(plan.gradients(), gradients))
    return max(worst, apart(plan.parameters(), parameters))


def by_winograd(*case: Any) -> float:
    """As of "forward", by tiles of this size."""
    from netdsl.cuda import conv

    right = conv.quicker
    found = simulated_winograd.agree(case)
    conv.quicker = right
    return found


def planted_in_the_warp(bug: tuple[str, str]) -> str:
    """How a bug in the warp's instructions shows; "" where it does not."""
    from netdsl.cuda.warp import ptx

    made = vars(simulated.with_bug(ptx, *bug))
    right = {name: value for name, value in vars(warped).items() if name in made}
    vars(warped).update({name: made[name] for name in right if not name.startswith("__")})
    CARD.programs.clear()
    try:
        found = max(apart for _, apart in warped.differences(1))
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"
    finally:
        vars(warped).update(right)
        CARD.programs.clear()
    return "" if found < 1e-5 else str(found)


MODES: dict[str, Any] = {
    "forward": lambda text, batch: simulated.outcome(text, batch),
    "winograd": by_winograd,
    "holes": simulated.holes,
    "mixed": lambda *case: simulated_mixed.outcome(case, twice=False),
    "packed": lambda *case: simulated_packed.outcome(case)[0],
    "rounded": lambda *case: simulated_rounded.outcome(case),
    "trained": trained,
    "steps": simulated_steps.outcome,
    "peak": simulated_peak.apart,
    "warp": lambda seed: max(apart for _, apart in warped.differences(seed)),
    **simulated_back.MODES,
    "gemm bug": lambda bug, cases: next(simulated.planted([bug], cases)),
    "tensor bug": lambda bug, cases: simulated_mixed.planted([bug], cases)[0],
    "rounded bug": lambda bug, cases: next(simulated_rounded.planted([bug], cases)),
    "warp bug": planted_in_the_warp,
}


def names() -> dict[Any, str]:
    """Of every kernel its number and its name."""
    return {kernel: f"{i} {registry.words(kernel)}" for i, kernel in enumerate(KERNELS)}


def main() -> None:
    if sys.argv[1:] == ["kernels"]:
        print(json.dumps(list(names().values())))
        return
    put_in_place(CARD)
    found: dict[str, list[Any]] = {}
    given: dict[str, list[Any]] = json.load(sys.stdin)
    for mode, cases in given.items():
        found[mode] = []
        for case in cases:
            CARD.clear()
            CARD.processors, *rest = case
            found[mode].append(MODES[mode](*rest))
    there = names()
    met = {there[call.kernel] for call, _ in CARD.launched if call.kernel in there}
    print(json.dumps({"found": found, "met": sorted(met)}))


if __name__ == "__main__":
    main()
