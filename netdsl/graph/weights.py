"""Weights of a graph: drawing new ones, and checking that given ones fit.

Weights are a mapping from parameter names (`conv1.weight`) to arrays, see `Graph`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import sqrt
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import numpy.typing as npt

from netdsl.faults import error
from netdsl.graph.graph import Graph
from netdsl.ops import Parameter, show

if TYPE_CHECKING:
    from concurrent.futures import Executor

Floats = npt.NDArray[np.float32]


PIECE = 1 << 22
"""Values drawn from one stream; the pieces of a large tensor are drawn side by side."""


def initialise(graph: Graph, seed: int = 0) -> dict[str, Floats]:
    """New weights for every parameter, float32: He et al. 2015's N(0, 2 / fan-in), or a constant
    where the parameter says so.

    Each tensor is drawn from the seed and its own name, so that a change to one layer leaves the
    others' weights as they were. `seed` is 0 or more.
    """
    with _threads() as threads:
        return {name: _drawn(name, p, seed, threads) for name, p in graph.all_parameters().items()}


class Drawn(Mapping[str, Floats]):
    """The weights that `initialise` draws, each drawn when it is asked for, and none kept: whoever
    packs them one by one needs the memory of one."""

    def __init__(self, graph: Graph, seed: int = 0) -> None:
        self._parameters, self._seed = graph.all_parameters(), seed

    def __getitem__(self, name: str) -> Floats:
        with _threads() as threads:
            return _drawn(name, self._parameters[name], self._seed, threads)

    def __contains__(self, name: object) -> bool:
        return name in self._parameters

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)


def _threads() -> Executor:
    """Threads that draw; imported here, since a net with weights of a file wants none."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor()


def _drawn(name: str, parameter: Parameter, seed: int, threads: Executor) -> Floats:
    if parameter.init != "he":
        return np.full(parameter.shape, parameter.init, np.float32)
    values = np.empty(parameter.size, np.float32)
    deviation = np.float32(sqrt(2 / parameter.fan_in))

    def draw(start: int) -> None:
        piece = values[start : start + PIECE]
        stream = np.random.Generator(np.random.SFC64([seed, crc32(name.encode()), start // PIECE]))
        stream.standard_normal(dtype=np.float32, out=piece)
        piece *= deviation

    list(threads.map(draw, range(0, parameter.size, PIECE)))
    return values.reshape(parameter.shape)


def check_weights(graph: Graph, weights: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Every parameter of the graph has its array, of its shape; more may be given.

    Raises NetError that names the first that is missing or does not fit, with both shapes.
    """
    if isinstance(weights, Drawn):
        return  # they fit, and would be drawn only to be looked at
    for name, what in graph.all_parameters().items():
        if name not in weights:
            raise error("missing-weight", f"the weights of {graph.name} lack {name}")
        found = weights[name].shape
        if found != what.shape:
            raise error(
                "wrong-shape",
                f"{name} has shape {show(found)}, {graph.name} takes {show(what.shape)}",
            )
