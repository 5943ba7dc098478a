"""What the functions of this package have in common.

Each is `f(op, params, *inputs) -> output` for one class of op. Arrays are float64,
(N, C, *spatial), a vector is (N, F). `params` has the op's parameters by their own names
("weight"). Inputs are never written to; an output may be a view of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from netdsl.ops import Op

Array = npt.NDArray[np.float64]
Params = Mapping[str, Array]
Function = Callable[..., Array]
Table = dict[type[Op], Function]


def by_channel(values: Array, like: Array) -> Array:
    """One value a channel, shaped to meet (N, C, *spatial)."""
    return values.reshape(1, -1, *(1 for _ in like.shape[2:]))
