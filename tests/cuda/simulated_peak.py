"""The peak's kernels and layers' times in Numba's simulator. A script of its own process.

    NUMBA_ENABLE_CUDASIM=1 python simulated_peak.py
    NUMBA_ENABLE_CUDASIM=1 python simulated_peak.py bench WORDS     the command line

Prints how far each kernel's sums are from NumPy's, relative to the sum of the products' sizes, and
what `bench --layers` finds of a net on the simulated card.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from simulated import poisonous

from netdsl.bench.compare import compare
from netdsl.bench.tables import layer_sheet
from netdsl.cuda import peak
from netdsl.cuda.tensor import DEEP, STAGES, UNITS
from netdsl.cuda.warp.emulated import bf16_of, tf32_of
from netdsl.net import Net

Doubles = np.ndarray
REPEATS = 5
TEXT = "input 2x4x4; conv3x3p1(3) -> relu -> gap -> fc(2)"


def slices(precision: str, given: Doubles) -> list[tuple[Doubles, Doubles]]:
    """The pairs of operands that take turns, each (k, m or n), as they lie in shared memory."""
    if precision == "fp32":
        m, n, k, *_ = peak.FLOAT_TILE
        start = 2 * max(m, n) * k
        return [
            (
                given[m * k * i :][: m * k].reshape(k, m),
                given[start + n * k * i :].reshape(-1, n)[:k],
            )
            for i in range(2)
        ]
    values_of = tf32_of if precision == "tf32" else bf16_of
    stages = given.view(np.uint32).reshape(STAGES, -1, DEEP)
    rows = np.arange(stages.shape[1])
    lies = np.arange(UNITS) ^ (rows[:, None] // 2 % UNITS)
    units = stages.reshape(STAGES, len(rows), UNITS, 4)
    straight = np.take_along_axis(units, lies[None, :, :, None], 2).reshape(stages.shape)
    values = values_of(straight).astype(np.float64)
    m = peak.TENSOR_TILE.m
    return [(stage[:m].T, stage[m:].T) for stage in values]


def apart(precision: str) -> float:
    """How far the sums of a block are from what they should be."""
    tile: Any = peak.FLOAT_TILE if precision == "fp32" else peak.TENSOR_TILE
    given = peak.operands(precision, np.random.default_rng())
    arena = np.full(3 + 2 * tile.threads, np.nan, np.float32)
    ints = np.array([9, REPEATS, 3], np.int32)
    peak.PEAKS[precision][(2, 1, 1), tile.threads](arena, given, ints, np.int32(1))
    found = arena[3:].reshape(2, -1).astype(np.float64).sum(1)
    pairs = slices(precision, given)
    turns = [pairs[i % len(pairs)] for i in range(REPEATS)]
    wanted = sum(float(a.sum(1, dtype=np.float64) @ b.sum(1, dtype=np.float64)) for a, b in turns)
    size = sum(float((np.abs(a).T @ np.abs(b)).sum()) for a, b in turns)
    assert np.isnan(arena[:3]).all()
    return float(np.abs(found - wanted).max() / size)


def layers(precision: str) -> dict[str, Any]:
    """What bench finds of a net's layers."""
    net = Net.load(text=TEXT)
    settings: dict[str, Any] = {"device": "cuda", "precision": precision, "layers": True}
    found = compare(net, [], count=1, **settings)
    top = peak.peak(precision)
    sheet = layer_sheet(found, top)
    return {
        "peak": top,
        "macs": [t.macs for t in found.layers],
        "ms": [t.least_ms for t in found.layers],
        "notes": list(sheet.notes),
    }


def main() -> None:
    poisonous()
    if len(sys.argv) > 1:
        from netdsl.cli import main as command

        command()
    kinds = ("fp32", "tf32", "bf16")
    print(
        json.dumps(
            {"apart": {p: apart(p) for p in kinds}, "layers": {p: layers(p) for p in kinds[:2]}}
        )
    )


if __name__ == "__main__":
    main()
