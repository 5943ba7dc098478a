"""Winograd's algorithm in Numba's simulator. A script, because it needs a process of its own.

    NUMBA_ENABLE_CUDASIM=1 python simulated_winograd.py agree < cases.json    see `outcome`
    NUMBA_ENABLE_CUDASIM=1 python simulated_winograd.py planted < bugs.json   what bugs lead to
    NUMBA_ENABLE_CUDASIM=1 python simulated_winograd.py kernels < cases.json  those met, those there
    NUMBA_ENABLE_CUDASIM=1 python simulated_winograd.py exact                 who goes without

Cases are a list of [text, batch, tile, chunks]: which tile of the products, and tiles of outputs
at a time as multiples of its. What is reckoned to take less time is not asked here.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from simulated import outcome, poisonous, with_bug

from netdsl import cuda
from netdsl.cuda import conv, winograd, winograd_product, winograd_transforms
from netdsl.lang import load

Case = tuple[str, int, int, int]

MODULES = {
    "winograd_product": (winograd_product, ("PRODUCTS",)),
    "winograd_transforms": (winograd_transforms, ("ENDS", "winograd_inputs")),
}
"""The modules with kernels, and what plans know them by."""


def forced(tile: int, chunks: int) -> None:
    """Lets every layer that can go by Winograd's algorithm, in this way."""
    size = winograd.WINOGRAD_TILES[tile]
    way = winograd.Chunks(size, chunks * size.m)
    conv.quicker = lambda layer, cut, card: way


def agree(case: Case, *, twice: bool = False) -> float:
    text, batch, tile, chunks = case
    forced(tile, chunks)
    return outcome(text, batch, twice=twice)


def planned(text: str, batch: int, **settings: Any) -> set[str]:
    """The kernels of a plan."""
    from agree import drawn_weights

    graph = load(text)
    plan = cuda.compile(graph, drawn_weights(graph), batch=batch, **settings)
    names = {id(kernel): name for name, kernel in kernels().items()}
    return {
        names.get(id(call.kernel), call.kernel.fn.__name__)
        for step in plan.steps
        for call in step.calls
    }


def kernels() -> dict[str, Any]:
    """All of Winograd's algorithm."""
    return {f"{kernel.fn.__name__} {i}": kernel for i, kernel in enumerate(winograd.KERNELS)}


def met(cases: list[Case]) -> dict[str, list[str]]:
    found: set[str] = set()
    for text, batch, tile, chunks in cases:
        forced(tile, chunks)
        found |= planned(text, batch)
    return {"met": sorted(found), "all": sorted(kernels())}


def exact() -> dict[str, list[str]]:
    """The kernels of a net that may go by Winograd's algorithm, and of those that may not."""
    from agree import drawn_weights

    from netdsl import Net
    from netdsl.cuda.backward.making import Making
    from netdsl.train import Settings, Stepper

    forced(0, 1)
    text = "input 2x4x4; conv3x3p1(3) -> relu -> fc(2)"
    graph = load(text)
    found = {"may": planned(text, 1), "exact": planned(text, 1, exact=True)}
    found |= {p: planned(text, 1, precision=p) for p in ("tf32", "bf16")}
    net = Net.load(text=text)
    for name, said in (("net", False), ("exact net", True)):
        plan: Any = net.runner(1, device="cuda", exact=said).plan
        found[name] = {c.kernel.fn.__name__ for step in plan.steps for c in step.calls}
    found["trained"] = set()
    kernels_of = Making.kernels

    def noted(self: Making) -> list[Any]:
        found["trained"] |= {kernel.fn.__name__ for kernel in kernels_of(self)}
        return kernels_of(self)

    Making.kernels = noted  # type: ignore[method-assign]
    Stepper(graph, drawn_weights(graph), Settings(batch=1, device="cuda"))
    return {name: sorted(names) for name, names in found.items()}


def with_kernels(module: str, old: str, new: str) -> None:
    """Has the plans launch a module's kernels with a bug."""
    right, names = MODULES[module]
    wrong = with_bug(right, old, new)
    vars(winograd).update({name: vars(wrong)[name] for name in names})


def planted(bugs: list[tuple[str, str, str]], cases: list[Case]) -> list[str]:
    """For each bug, what the first case that shows it ends in; "" where none does."""
    right = {name: vars(winograd)[name] for _, names in MODULES.values() for name in names}
    found = []
    for bug in bugs:
        with_kernels(*bug)
        found.append(next(filter(None, map(_shown, cases)), ""))
        vars(winograd).update(right)
    return found


def _shown(case: Case) -> str:
    try:
        apart = agree(case)
    except Exception as error:
        return type(error).__name__
    return "" if apart < 1e-5 else str(apart)


def main() -> None:
    poisonous()
    if sys.argv[1] == "exact":
        print(json.dumps(exact()))
        return
    given = json.load(sys.stdin)
    if sys.argv[1] == "kernels":
        print(json.dumps(met(given)))
    elif sys.argv[1] == "planted":
        print(json.dumps(planted(given["bugs"], given["cases"])))
    else:
        print(json.dumps([agree(case, twice=i == 0) for i, case in enumerate(given)]))


if __name__ == "__main__":
    main()
