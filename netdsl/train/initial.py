"""First weights: He's, Xavier's, or AlexNet's narrow normal ones."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from netdsl.graph import Graph
from netdsl.graph.weights import initialise


def first_weights(graph: Graph, kind: str, seed: int) -> dict[str, NDArray[np.float32]]:
    """Weights to begin training with; biases are 0, norms' scales 1.

    kind: "he", N(0, 2 / fan-in); "xavier", N(0, 2 / (fan-in + fan-out)); "normal", N(0, 0.01^2)
    as AlexNet's.
    """
    weights = initialise(graph, seed)
    for name, parameter in graph.all_parameters().items():
        if parameter.init != "he" or kind == "he":
            continue
        deviation = sqrt(2.0 / (parameter.fan_in + parameter.fan_out))
        wanted = 0.01 if kind == "normal" else deviation
        weights[name] *= np.float32(wanted / sqrt(2.0 / parameter.fan_in))
    return weights
