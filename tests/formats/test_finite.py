"""Weights that are no numbers are found, and large ones are none of those."""

import numpy as np
import pytest

from netdsl.faults import NetError
from netdsl.formats.finite import check_finite


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_named(broken: float) -> None:
    numbers = np.ones((3, 70), np.float32)
    numbers[1, 68] = broken
    with pytest.raises(NetError, match=r"w \[1, 68\] is"):
        check_finite(numbers, "w")


def test_infinities_that_cancel_out_are_found() -> None:
    with pytest.raises(NetError, match=r"w \[0\] is inf"):
        check_finite(np.array([np.inf, -np.inf], np.float32), "w")


def test_finite_numbers_may_have_a_sum_that_is_not() -> None:
    with np.errstate(all="raise"):
        check_finite(np.full((2, 40), np.finfo(np.float32).max, np.float32), "w")


@pytest.mark.parametrize("shape", [(0,), (2, 0), ()])
def test_any_shape_will_do(shape: tuple[int, ...]) -> None:
    check_finite(np.ones(shape, np.float32), "w")
