"""Weights are finite numbers; a file with others is broken, and says where."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error


def check_finite(numbers: NDArray[np.float32], called: str) -> None:
    """Raises NetError `not-finite` with the place of the first number that is none."""
    # A sum that is finite has no terms that are not, and is one pass; one that is not may be of
    # large numbers.
    if math.isfinite(np.einsum("i->", numbers.reshape(-1))):
        return
    if not (math.isfinite(numbers.min()) and math.isfinite(numbers.max())):
        index = np.unravel_index(int(np.argmin(np.isfinite(numbers))), numbers.shape)
        place = ", ".join(map(str, index))
        raise error(
            "not-finite", f"{called} [{place}] is {numbers[index]}: these weights are broken"
        )
