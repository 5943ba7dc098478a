"""The kernels that runs of a net need on a card, found and compiled before any run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.cuda import launch
from netdsl.cuda.direct import FINISHES
from netdsl.cuda.failure import faults_of
from netdsl.cuda.gemm import KERNELS
from netdsl.cuda.layout import Floats
from netdsl.cuda.pack import conv_finish_packed, pack_rows
from netdsl.cuda.plan import kernels_of
from netdsl.cuda.reduce import DENSE
from netdsl.cuda.rounding import PER_WORD
from netdsl.cuda.strips import LARGEST
from netdsl.cuda.task import Params
from netdsl.cuda.tensor import TENSOR_KERNELS
from netdsl.cuda.units import UNITS
from netdsl.cuda.winograd import KERNELS as WINOGRAD
from netdsl.graph import Graph


class Sizes(Params):
    """Params that are only laid out: nothing of them is kept."""

    def add(self, values: NDArray[np.floating] | Iterable[float]) -> int:
        """Where these values would lie."""
        size = values.size if isinstance(values, np.ndarray) else len(list(values))
        return self.take(size)

    def add_words(self, values: Floats, precision: str) -> int:
        """Where these values would lie."""
        return self.take(values.size // PER_WORD[precision])


def kernels(graph: Graph, batches: Iterable[int], precision: str = "fp32") -> list[Any]:
    """Those that runs of a net launch in this precision, at these batches; and of a sum's tiles,
    which go by the batch and the card, all. Raises NetError where the card fails."""
    nothing = np.zeros((), np.float32)
    weights = {
        name: np.broadcast_to(nothing, p.shape) for name, p in graph.all_parameters().items()
    }
    found: list[Any] = []
    with faults_of(graph.name, 1):
        for batch in batches:
            found += kernels_of(graph, weights, batch, precision, Sizes())
    of_precision = [k for (_, kind), k in TENSOR_KERNELS.items() if kind == precision]
    if any(
        kernel in found for kernel in DENSE.values()
    ):  # what stands in its place for more samples
        found += [pack_rows, *of_precision] if of_precision else KERNELS.values()
        if of_precision:  # what lies before it may be packed then
            found += [UNITS[w, precision] for w, pool in LARGEST.items() if pool in found]
    if any(kernel in WINOGRAD for kernel in found):  # an exact run goes without
        found += [*WINOGRAD, *KERNELS.values()]
    for tiles in (list(KERNELS.values()), of_precision):
        if any(kernel in tiles for kernel in found):
            found += [*tiles, *FINISHES, *([conv_finish_packed] if tiles is of_precision else [])]
    return list(dict.fromkeys(found))


def compile_all(wanted: list[Any], progress: Callable[[int, int, str], None]) -> int:
    """Compiles kernels and keeps what comes out; how many had not been compiled before.

    progress: called before each. Raises NetError where the card or its driver fails.
    """
    count = 0
    with faults_of("the kernels", 1):
        for i, kernel in enumerate(wanted):
            progress(i, len(wanted), kernel.__name__.replace("_", " "))
            count += launch.prepare([kernel])
    return count
