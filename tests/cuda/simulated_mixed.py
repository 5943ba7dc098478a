"""The tensor cores' kernels in Numba's simulator. A script, because it needs a process of its own.

    NUMBA_ENABLE_CUDASIM=1 python simulated_mixed.py agree < cases.json     see `outcome`
    NUMBA_ENABLE_CUDASIM=1 python simulated_mixed.py planted < bugs.json    what bugs lead to
    NUMBA_ENABLE_CUDASIM=1 python simulated_mixed.py kernels < cases.json   those met, and there are

Cases are a list of [text, batch, precision, seed].
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from simulated import poisonous, with_bug

from netdsl import cuda
from netdsl.cuda.plan import Plan
from netdsl.graph import Graph
from netdsl.lang import load
from netdsl.reference import interpret

Floats = np.ndarray
Case = tuple[str, int, str, int]

KEPT = {"tf32": 10, "bf16": 7}
"""Bits behind the point."""


def nearest(values: Floats, precision: str) -> Floats:
    """Values as the precision has them: by arithmetic, where the kernels use bits. Halves go to the
    even neighbour, in TF32 away from zero."""
    fraction, exponent = np.frexp(values.astype(np.float64))
    scale = 2.0 ** (KEPT[precision] + 1)
    large = fraction * scale
    away = np.trunc(large + np.copysign(0.5, large))
    whole = away if precision == "tf32" else np.round(large)
    return np.ldexp(whole / scale, exponent).astype(np.float32)


def drawn(case: Case) -> tuple[Graph, Plan, dict[str, Floats], dict[str, Floats]]:
    """The graph, its plan in poisoned memory, weights and inputs."""
    from agree import drawn_inputs, drawn_weights

    text, batch, precision, seed = case
    graph = load(text)
    weights, inputs = drawn_weights(graph, seed), drawn_inputs(graph, batch, seed + 1)
    plan = cuda.compile(graph, weights, batch=batch, precision=precision)
    plan.arena.copy_to_device(np.full(plan.arena.shape, np.nan, np.float32))
    return graph, plan, weights, inputs


def outcome(case: Case, *, twice: bool = True) -> tuple[float, float]:
    """Of a net of one layer and an activation that no difference grows in: the largest difference
    from the reference on rounded factors, against 1 + the sum of the products' sizes; and from the
    reference itself, against what rounding may do to each product."""
    graph, plan, weights, inputs = drawn(case)
    found = next(iter(plan.run(inputs).values()))
    if twice:
        np.testing.assert_array_equal(next(iter(plan.run(inputs).values())), found)
    assert not np.isnan(found).any()

    def computed(w: dict[str, Floats], x: dict[str, Floats]) -> Floats:
        return next(iter(interpret(graph, w, x).values()))

    def rounded(given: dict[str, Floats]) -> dict[str, Floats]:
        return {n: v if n.endswith("bias") else nearest(v, case[2]) for n, v in given.items()}

    sizes = computed(
        {n: np.abs(v) if n.endswith("weight") else 0 * v for n, v in weights.items()},
        {n: np.abs(v) for n, v in inputs.items()},
    )
    apart = np.abs(found - computed(rounded(weights), rounded(inputs))) / (1 + sizes)
    unit = 2.0 ** -(KEPT[case[2]] + 1)
    allowed = (2 * unit + unit * unit) * sizes + 1e-6 * (1 + sizes)
    return float(apart.max()), float((np.abs(found - computed(weights, inputs)) / allowed).max())


def shown(case: Case) -> str:
    """What shows that something is wrong; "" where nothing does."""
    try:
        apart, _ = outcome(case, twice=False)
    except (Exception, AssertionError) as error:
        return type(error).__name__
    return "" if apart < 1e-5 else str(apart)


def tensor_kernels(name: str, old: str, new: str) -> Any:
    """Those of tensor.py with a bug in it, or in ending.py, from where they end sums."""
    from netdsl.cuda import ending, tensor

    if name == "tensor":
        return with_bug(tensor, old, new).TENSOR_KERNELS
    right, ending.ended = ending.ended, with_bug(ending, old, new).ended
    try:
        return with_bug(tensor, "ALIGNED = 128\n", "ALIGNED = 128\n\n").TENSOR_KERNELS
    finally:
        ending.ended = right


def planted(bugs: list[tuple[str, str, str]], cases: list[Case]) -> list[str]:
    """For each bug, a module and what in it is replaced by what, how the first case shows it."""
    from netdsl.cuda import dense, mixed, pack, reduce

    found = []
    packs = ("pack_planes", "pack_rows", "pack_units")
    right = mixed.TENSOR_KERNELS, dense.DENSE, [getattr(pack, each) for each in packs]
    for name, old, new in bugs:
        if name == "pack":
            module = with_bug(pack, old, new)
            for each in packs:
                setattr(pack, each, getattr(module, each))
        elif name == "reduce":
            dense.DENSE = with_bug(reduce, old, new).DENSE
        else:
            mixed.TENSOR_KERNELS = tensor_kernels(name, old, new)
        found.append(next(filter(None, map(shown, cases)), ""))
        mixed.TENSOR_KERNELS, dense.DENSE, kept = right
        for each, kernel in zip(packs, kept, strict=True):
            setattr(pack, each, kernel)
    return found


def kernels(cases: list[Case]) -> dict[str, list[str]]:
    """The names of the tensor kernels that the cases meet, and of all."""
    from netdsl.cuda.tensor import TENSOR_KERNELS

    names = {id(k): f"{t.m}x{t.n} {p}" for (t, p), k in TENSOR_KERNELS.items()}
    met = set()
    for case in cases:
        for step in drawn(case)[1].steps:
            met |= {names.get(id(call.kernel), call.kernel.__name__) for call in step.calls}
    return {"met": sorted(met), "all": sorted(names.values())}


def main() -> None:
    poisonous()
    given: Any = json.load(sys.stdin)
    if sys.argv[1] == "planted":
        print(json.dumps(planted(given["bugs"], given["cases"])))
    elif sys.argv[1] == "kernels":
        print(json.dumps(kernels(given)))
    else:
        print(json.dumps([outcome(case) for case in given]))


if __name__ == "__main__":
    main()
