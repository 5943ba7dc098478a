"""Which kernels benchmarks/gpu.py would launch on a card of 132 multiprocessors. A script that
needs numba-cuda, and neither a card nor a driver.

Prints the kernels that no case launches, and how many there are.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

PROCESSORS = 132


class Planned(Exception):  # noqa: N818 - no error
    """A plan of training has got as far as to know its kernels."""


def forward(kernels_of: Any) -> Iterator[Any]:
    import gpu_cases as cases

    from netdsl.cuda.ahead import Sizes
    from netdsl.lang import load

    for precision in ("fp32", "tf32", "bf16"):
        for text in (*cases.FORWARD, *(() if precision == "fp32" else cases.PACKED)):
            for batch in cases.BATCHES_OF_CHECKS:
                graph = load(text)
                yield from kernels_of(graph, zeros(graph), batch, precision, Sizes())
                if precision == "fp32" and "conv3x3" in text:
                    yield from kernels_of(
                        graph, zeros(graph), batch, precision, Sizes(), exact=True
                    )


def zeros(graph: Any) -> dict[str, Any]:
    parameters = graph.all_parameters().items()
    return {n: np.broadcast_to(np.float32(0), p.shape) for n, p in parameters}


def training() -> Iterator[tuple[str, int, dict[str, Any], bool]]:
    """Nets, batches, settings, and whether whole steps are made."""
    import gpu_cases as cases

    for batch in cases.BATCHES_OF_GRADIENTS:
        yield from ((text, batch, {}, False) for text in cases.BACKWARD)
    for batch in cases.BATCHES_OF_ROUNDED:
        for precision in ("tf32", "bf16"):
            texts = (*cases.ROUNDED, *cases.COPIED)
            yield from ((t, batch, {"precision": precision}, False) for t in texts)
    yield from ((text, batch, given, True) for text, batch, given, _ in cases.STEPS)


def backward() -> Iterator[Any]:
    from netdsl.cuda.backward.plan import TrainingPlan
    from netdsl.lang import load
    from netdsl.train import Settings, Stepper
    from netdsl.train.engine import make_plan

    made: list[Any] = []

    def planned(self: Any, making: Any) -> None:
        made.extend(making.kernels())
        raise Planned

    TrainingPlan._take_memory = planned  # type: ignore[method-assign]
    for text, batch, given, whole in training():
        graph, settings = load(text), Settings(batch=batch, device="cuda", **given)
        try:
            (Stepper if whole else make_plan)(graph, zeros(graph), settings)
        except Planned:
            yield from made
        made.clear()


def main() -> None:
    import registry

    there = registry.kernels()
    from netdsl.cuda import device, launch
    from netdsl.cuda.peak import PEAKS
    from netdsl.cuda.plan import kernels_of

    launch.processors = lambda: PROCESSORS
    launch.bandwidth = lambda: launch.H200
    launch.free_bytes = lambda: None
    device.check = lambda precision="fp32": None
    met = {*forward(kernels_of), *backward(), *PEAKS.values()}
    missed = [registry.words(kernel) for kernel in there if kernel not in met]
    print(json.dumps({"missed": missed, "count": len(there)}))


if __name__ == "__main__":
    main()
