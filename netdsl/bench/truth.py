"""How far outputs are from the truth: a float64 interpreter's, for as many samples as it takes."""

from __future__ import annotations

import numpy as np

from netdsl.bench.case import Case
from netdsl.bench.engine import Outputs

AFFORDABLE = 60_000_000_000
"""Multiply-adds that the interpreter is given: some seconds."""

TOLERANCE = {"fp32": 1e-2, "tf32": 5e-2, "bf16": 1e-1, "int8": 1e-1}
"""Errors beyond this are no rounding in that precision: something else was computed."""


def truth(case: Case) -> Outputs | None:
    """The outputs of the first samples in double precision; None for a net too large for it."""
    from netdsl.reference import interpret

    graph = case.graph
    macs = sum(node.op.macs(graph.input_shapes(node)) for node in graph)
    samples = min(case.batch, AFFORDABLE // max(macs, 1))
    if samples == 0:
        return None
    found = interpret(graph, case.weights, {n: x[:samples] for n, x in case.inputs.items()})
    return [found[name] for name in graph.outputs]


def error_of(outputs: Outputs, exact: Outputs) -> float:
    """The largest difference of any output, relative to the largest value of that output; of the
    samples that `exact` has. Another shape, or what is not finite, is infinitely far."""
    worst = 0.0
    for found, wanted in zip(outputs, exact, strict=True):
        if found.shape[1:] != wanted.shape[1:] or not np.isfinite(found).all():
            return float("inf")
        scale = float(np.abs(wanted).max(initial=0.0)) or 1.0
        difference = np.abs(found[: len(wanted)].astype(np.float64) - wanted)
        worst = max(worst, float(difference.max(initial=0.0)) / scale)
    return worst
