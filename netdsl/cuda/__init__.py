"""The CUDA engine: kernels in Numba for NVIDIA cards, and plans that run a graph on them.

Importing this imports nothing of CUDA. `device` says what stands in the way, if anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from netdsl.cuda.device import about, check, devices, missing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from netdsl.cuda.plan import Plan
    from netdsl.graph import Graph

__all__ = ["about", "check", "compile", "devices", "missing"]


def compile(  # noqa: A001 - called as cuda.compile
    graph: Graph,
    weights: Mapping[str, NDArray[np.float32]],
    *,
    batch: int,
    aux: bool = False,
    exact: bool = False,
    precision: str = "fp32",
    progress: Callable[[int, int, str], None] | None = None,
) -> Plan:
    """Plans a graph for the card, see `netdsl.cuda.plan.make`. Raises NetError, also where there
    is no card that computes in this precision, or numba-cuda is not installed."""
    check(precision)
    from netdsl.cuda.plan import make

    return make(
        graph,
        weights,
        batch=batch,
        aux=aux,
        exact=exact,
        precision=precision,
        progress=progress,
    )
