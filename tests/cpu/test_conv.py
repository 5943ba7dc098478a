"""Convolutions, depthwise, grouped and transposed, beside plain NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from layer import Layer, connected, convolved, error, transposed

from netdsl.cpu.conv import conv_needs, plan_conv
from netdsl.cpu.dense import FEW, plan_dense
from netdsl.cpu.transposed import plan_transposed, transposed_needs
from netdsl.ops import Conv, ConvTranspose, Linear, Relu, Relu6, Window

TOLERANCE = 2e-5
"""Sums here have unit size and at most some thousand terms, in single precision."""


def window(kernel, stride=1, padding=0, dilation=1):
    """A Window from numbers or tuples; padding may hold pairs."""
    rank = len(kernel)
    spread = [v if isinstance(v, tuple) else (v,) * rank for v in (stride, padding, dilation)]
    pairs = tuple(p if isinstance(p, tuple) else (p, p) for p in spread[1])
    return Window(kernel, spread[0], pairs, spread[2])


def agrees(layer: Layer) -> None:
    """As it is planned, and by direct sums alone."""
    wanted = convolved(layer)
    assert error(layer.run(plan_conv, conv_needs), wanted) < TOLERANCE
    layer.task = replace(layer.task, exact=True)
    assert error(layer.run(plan_conv, conv_needs), wanted) < TOLERANCE


@pytest.mark.parametrize(
    ("shape", "filters", "w", "groups"),
    [
        ((16, 14, 14), 32, window((1, 1)), 1),
        ((5, 9, 7), 3, window((3, 3), padding=1), 1),
        ((37, 13, 13), 50, window((3, 3), padding=1), 1),
        ((20, 17, 19), 33, window((5, 3), stride=2, padding=(2, 1)), 1),
        ((64, 7, 7), 130, window((1, 1), stride=2), 1),
        ((16, 12, 12), 16, window((3, 3), padding=((0, 1), (2, 0)), dilation=2), 1),
        ((3, 30, 31), 24, window((7, 7), stride=2, padding=3), 1),
        ((12, 50), 20, window((5,), stride=3, padding=2, dilation=2), 1),
        ((4, 5, 6, 7), 18, window((3, 3, 3), padding=1), 1),
        ((17, 4, 9, 8), 8, window((2, 3, 1), stride=(1, 2, 1), padding=(1, 0, 0)), 1),
        ((64, 8, 8), 96, window((3, 3), padding=1), 2),
        ((32, 8, 8), 48, window((3, 3), padding=1), 8),
        ((15, 6, 6), 25, window((3, 3), padding=1), 5),
        ((40, 9, 9), 40, window((3, 3), padding=1), 40),
        ((40, 9, 9), 40, window((5, 3), stride=2, padding=(2, 1)), 40),
        ((40, 9, 19), 40, window((3, 3), stride=2, padding=1), 40),
        ((40, 9, 33), 40, window((2, 3), stride=(2, 1)), 40),
        ((40, 9, 33), 40, window((3, 3), stride=(1, 3), dilation=2), 40),
        ((40, 9, 3), 40, window((3, 3), padding=(1, 0)), 40),
        ((40, 61), 40, window((3,), padding=1), 40),
        ((20, 4, 5, 6), 20, window((3, 3, 3), padding=1), 20),
        ((40, 9, 9), 80, window((3, 3), padding=1), 40),
        ((96, 9, 9), 36, window((1, 1)), 3),
        ((1, 28, 28), 6, window((5, 5)), 1),
        ((16, 1, 1), 10, window((1, 1)), 1),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_any_convolution(shape, filters, w, groups, batch):
    agrees(Layer(Conv(filters, w, groups), shape, batch))


@pytest.mark.parametrize("activation", [None, Relu(), Relu6()])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_what_is_fused(activation, residual, bias):
    op = Conv(24, window((3, 3), padding=1), bias=bias)
    agrees(Layer(op, (20, 11, 10), 2, residual, activation))


@pytest.mark.parametrize("width", [1, 2, 4, 5, 7, 8, 13, 14, 15, 28, 33])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_depthwise_rows(width, stride, kernel):
    """Any width is made of what tiles there are."""
    w = window((kernel, kernel), stride=stride, padding=kernel // 2)
    op = Conv(40, w, 40, bias=bool(width % 2))
    agrees(Layer(op, (40, 6, stride * width), 2, activation=Relu6(), threads=1 + width % 3))


def test_depthwise_with_a_sum():
    op = Conv(20, window((3, 3), padding=1), 20)
    agrees(Layer(op, (20, 11, 10), 2, residual=True, activation=Relu()))


@pytest.mark.parametrize("filters", [8, 50])
@pytest.mark.parametrize(
    ("shape", "w"),
    [
        ((3, 33, 35), window((7, 7), stride=2, padding=3)),
        ((3, 30, 30), window((3, 3), padding=1)),
        ((1, 28, 28), window((5, 5))),
        ((2, 61), window((9,), stride=4)),
        ((3, 4, 10, 11), window((3, 3, 3), padding=1)),
    ],
)
def test_planar_input(shape, w, filters):
    agrees(Layer(Conv(filters, w), shape, 2, activation=Relu(), planar=True))


def test_a_wider_halo_than_needed():
    agrees(Layer(Conv(32, window((3, 3), padding=1)), (16, 10, 10), 2, spare=2))
    agrees(Layer(Conv(32, window((1, 1))), (16, 10, 10), 2, spare=2))


def test_threads_beyond_the_work():
    agrees(Layer(Conv(5, window((1, 1))), (3, 1, 1), threads=2))
    agrees(Layer(Conv(40, window((3, 3), padding=1)), (30, 5, 5), threads=1))


@pytest.mark.parametrize("seed", range(12))
def test_drawn_convolutions(seed):
    random = np.random.default_rng(seed)
    rank = int(random.integers(1, 4))
    groups = int(random.choice([1, 1, 2, 3, 4, 16]))
    kernel = tuple(int(k) for k in random.integers(1, 5, rank))
    stride = tuple(int(k) for k in random.integers(1, 4, rank))
    dilation = tuple(int(k) for k in random.integers(1, 3, rank))
    padding = tuple(tuple(int(p) for p in random.integers(0, 4, 2)) for _ in range(rank))
    size = tuple(int(n) for n in random.integers(8, 20 if rank < 3 else 12, rank))
    channels, filters = (int(random.integers(1, 24)) * groups for _ in range(2))
    op = Conv(filters, Window(kernel, stride, padding, dilation), groups)
    agrees(Layer(op, (channels, *size), int(random.integers(1, 4)), seed=seed))


@pytest.mark.parametrize(
    ("shape", "filters", "w", "out_pad", "groups"),
    [
        ((16, 7, 7), 32, window((2, 2), stride=2), (0, 0), 1),
        ((20, 6, 5), 12, window((3, 3), stride=2, padding=1), (1, 1), 1),
        ((20, 6, 5), 12, window((4, 3), stride=(2, 3), padding=(1, 0), dilation=2), (0, 2), 1),
        ((9, 11), 5, window((5,), stride=4, padding=((1, 3),)), (0,), 1),
        ((8, 3, 4, 5), 6, window((3, 2, 3), stride=(1, 2, 2), padding=(1, 0, 1)), (0, 0, 1), 1),
        ((12, 6, 6), 20, window((3, 3), stride=2, padding=1), (0, 0), 4),
        ((32, 6, 6), 32, window((3, 3), stride=2, padding=1), (0, 0), 32),
        ((6, 5, 5), 4, window((2, 2), stride=3), (1, 1), 1),
        ((6, 5, 5), 4, window((3, 3), padding=2), (0, 0), 2),
    ],
)
def test_transposed(shape, filters, w, out_pad, groups):
    layer = Layer(ConvTranspose(filters, w, out_pad, groups), shape, 2, activation=Relu())
    found = layer.run(plan_transposed, transposed_needs)
    assert error(found, transposed(layer)) < TOLERANCE


@pytest.mark.parametrize("batch", [1, 2, 8, 17])
@pytest.mark.parametrize(
    ("shape", "filters"), [((300,), 10), ((64,), 200), ((20, 4, 5), 33), ((512, 2, 2), 64)]
)
def test_fully_connected(shape, filters, batch):
    layer = Layer(Linear(filters), shape, batch, activation=Relu())
    assert error(layer.run(plan_dense), connected(layer)) < TOLERANCE


@pytest.mark.parametrize("batch", [1, 4, 5])
@pytest.mark.parametrize("filters", [10, 64, 150])
def test_fully_connected_to_channels_that_leave_a_block_nearly_empty(filters, batch):
    """At few samples no weights are kept for channels that there are none of."""
    shape = (50, 3, 7)
    layer = Layer(Linear(filters), shape, batch, activation=Relu())
    assert error(layer.run(plan_dense), connected(layer)) < TOLERANCE
    blocks = -(-filters // 16)
    assert (layer.packed.size < 60 * 21 * 16 * blocks) == (batch <= FEW)


def test_short_sums_of_a_small_layer():
    """In parts of 32 terms: off by less than half of what one long sum would be."""
    layer = Layer(Linear(16, bias=False), (2048,), 8)
    layer.arrays[0] = np.maximum(layer.arrays[0], 0)
    found, wanted = layer.run(plan_dense), connected(layer)
    x, w = layer.arrays[0], layer.weights["weight"]
    long = np.add.accumulate(x[:, None] * w[None], axis=2, dtype=np.float32)[..., -1]

    def rms(x):
        return np.sqrt(np.mean(x**2))

    assert rms(found - wanted) < rms(long - wanted) / 2


@pytest.mark.parametrize("filters", [30, 48, 80, 112])
@pytest.mark.parametrize("residual", [False, True])
def test_long_sums_in_parts(filters, residual):
    """9 x 260 terms: more than are summed at once, on filters that no tile divides evenly."""
    op = Conv(filters, window((3, 3), padding=1))
    layer = Layer(op, (260, 9, 9), 2, residual, Relu6(), exact=True)
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 5e-6
    thin = Layer(Linear(filters), (5000,), 3, residual, Relu())
    assert error(thin.run(plan_dense), connected(thin)) < 5e-6


def test_nan_is_passed_on():
    layer = Layer(Conv(16, window((1, 1))), (16, 6, 6), activation=Relu())
    layer.arrays[0][0, 3, 2, 2] = np.nan
    found = layer.run(plan_conv, conv_needs)
    assert np.isnan(found[0, :, 2, 2]).all()
    assert np.isnan(found).sum() == 16
