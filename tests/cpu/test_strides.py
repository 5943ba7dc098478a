"""A strided convolution as one of stride 1 on the channels of its phases."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from netdsl.cpu.strides import Phases, spans

KERNELS = [
    ((3, 3), (2, 2)),
    ((5, 5), (2, 2)),
    ((4, 4), (2, 2)),
    ((5, 6), (2, 3)),
    ((3, 6), (1, 2)),
    ((7, 5), (3, 2)),
    ((11, 9), (4, 4)),
    ((3, 3), (1, 1)),
]


def lengths(kernel, stride):
    """Each phase's taps along one axis."""
    return [len(range(first, kernel, stride)) for first in range(stride)]


@pytest.mark.parametrize(("kernel", "stride"), KERNELS)
def test_a_product_sums_over_the_phases_that_have_a_last_tap_and_no_others(kernel, stride):
    phases = Phases(kernel, stride)
    down, across = map(lengths, kernel, stride)
    assert phases.taps == (max(down), max(across))
    assert sorted(phases.order) == list(product(*map(range, stride)))
    found = spans(phases, 5)
    assert len(found) == 25
    for (i, j), span in zip(product(range(5), repeat=2), found, strict=True):
        summed = {phases.order[k] for k in span}
        assert summed == {
            (y, x)
            for y, x in phases.order
            if (i < 4 or down[y] == max(down)) and (j < 4 or across[x] == max(across))
        }


def test_a_kernel_of_five_with_stride_two_needs_121_of_144_products():
    assert sum(map(len, spans(Phases((5, 5), (2, 2)), 6))) == 121
    assert sum(map(len, spans(Phases((3, 3), (2, 2)), 5))) == 81
    assert sum(map(len, spans(Phases((4, 4), (2, 2)), 5))) == 100
    assert sum(map(len, spans(Phases((3, 3), (1, 1)), 6))) == 36


@pytest.mark.parametrize(("kernel", "stride"), KERNELS)
def test_weights_apart_give_the_strided_sum(kernel, stride):
    """Sums over whole numbers, the one strided, the other of stride 1 over all phases."""
    random = np.random.default_rng(sum(kernel))
    phases, channels, outputs = Phases(kernel, stride), 5, (4, 3)
    size = [s * (n + r) for s, n, r in zip(stride, outputs, phases.taps, strict=True)]
    x = random.integers(-9, 9, (channels, *size)).astype(np.float64)
    w = random.integers(-9, 9, (2, channels, *kernel)).astype(np.float32)

    def summed(x, w, steps):
        total = np.zeros((2, *outputs))
        for i, j in product(*map(range, w.shape[2:])):
            (down, across), (rows, columns) = steps, outputs
            seen = x[:, i : i + down * rows : down, j : j + across * columns : across]
            total += np.einsum("chw,fc->fhw", seen, w[..., i, j])
        return total

    apart = np.zeros((len(phases.order), 16, *(n // s for n, s in zip(size, stride, strict=True))))
    for own, (i, j) in zip(apart, phases.order, strict=True):
        own[:channels] = x[:, i :: stride[0], j :: stride[1]]
    made = phases.apart(w)
    if stride == (1, 1):
        apart = apart[:, :channels]
    assert made.shape[2:] == phases.taps
    np.testing.assert_array_equal(
        summed(apart.reshape(-1, *apart.shape[2:]), made, (1, 1)), summed(x, w, stride)
    )


def test_weights_apart_with_depth():
    w = np.arange(2 * 3 * 2 * 5 * 3, dtype=np.float32).reshape(2, 3, 2, 5, 3)
    phases = Phases((5, 3), (2, 1))
    made = phases.apart(w).reshape(2, 2, 16, 2, 3, 3)
    for i, (y, _) in enumerate(phases.order):
        np.testing.assert_array_equal(made[:, i, :3, :, : 3 - y], w[..., y::2, :])
        assert not made[:, i, 3:].any()
        assert not made[:, i, :, :, 3 - y :].any()
