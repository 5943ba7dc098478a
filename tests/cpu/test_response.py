"""Local response normalisation beside the reference, and the power that it is made of."""

from __future__ import annotations

import numpy as np
import pytest
from agree import drawn_inputs, worst

from netdsl import cpu
from netdsl.lang import load

ULP = 2.0**-23


def powers(bases):
    """What base^(-3/4) gives for numbers above 1, from a norm that divides 2 by it: the window of a
    lone channel holds nothing but its square, which is base - 1 less what k is rounded to."""
    bases = bases.astype(np.float32)
    text = f"input 1x1x{bases.size}; lrn5(alpha=5, beta=0.75, k=1)"
    x = np.sqrt(bases.astype(np.float64) - 1).astype(np.float32)
    plan = cpu.compile(load(text), {}, batch=1, threads=1)
    found = plan.run({"input": x.reshape(1, 1, 1, -1)})["lrn1"].ravel()
    wide = x.astype(np.float64)
    return found, wide / (1 + wide * wide) ** 0.75


@pytest.mark.parametrize("seed", range(3))
def test_a_power_has_the_digits_of_a_float(seed):
    random = np.random.default_rng(seed)
    found, wanted = powers(np.exp(random.uniform(np.log(1.0001), 86, 20000)))
    off = np.abs(found / wanted - 1)
    # The square, its sum with k and alpha are rounded too, at 3/4 of their error each.
    assert off.max() < 4 * ULP
    assert np.sqrt(np.mean(off**2)) < ULP


@pytest.mark.parametrize("channels", [1, 2, 5, 15, 16, 17, 32, 49])
@pytest.mark.parametrize("size", [1, 4, 5, 6, 37])
def test_windows_reach_over_blocks(channels, size):
    text = f"input {channels}x3x5; lrn{size}(alpha=2, beta=0.75, k=0.5)"
    assert worst(text, batch=2) < 1e-6


@pytest.mark.parametrize("size", [4, 5])
@pytest.mark.parametrize("beta", [0.75, 0.6])
@pytest.mark.parametrize("k", [0, 1])
def test_what_is_no_normal_number_comes_through(size, beta, k):
    text = f"input 20x4x6; lrn{size}(alpha=1, beta={beta}, k={k})"
    x = drawn_inputs(load(text), 1)["input"]
    x[0, :, 0, 0] = 0.0  # of which the reference, with k=0, makes 0/0
    x[0, 3, 1, 1], x[0, 17, 1, 2], x[0, 0, 2, 2] = np.nan, np.inf, -np.inf
    x[0, 5:9, 3, 3] = 1e35  # whose squares no float holds
    x[0, :, 3, 4] = 1e-22  # whose squares are no normal numbers, or none at all
    inputs = {"input": x}
    if k == 0:
        x[0, :, 3, 4] = 1.0
    assert worst(text, batch=1, inputs=inputs) < 1e-6
