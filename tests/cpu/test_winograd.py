"""Winograd's algorithm: its matrices exactly, its kernels beside plain NumPy."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import inf

import numpy as np
import pytest
from layer import HALVES, Layer, beside_a_long_sum, convolved, error

from netdsl import find
from netdsl.cook_toom import matrices
from netdsl.cpu import choices, costs, winograd, winograd_costs, winograd_kernel, winograd_ways
from netdsl.cpu.choices import Choice, pools
from netdsl.cpu.conv import conv_needs, plan_conv, quick_plan
from netdsl.cpu.costs import Work
from netdsl.cpu.micro.fields import SIZES, Size
from netdsl.cpu.micro.shapes import wide
from netdsl.cpu.plan import compile as compile_plan
from netdsl.graph.weights import initialise
from netdsl.ops import Conv, Relu, Window

pytestmark = pytest.mark.usefixtures("no_thirds")


@pytest.fixture
def always(monkeypatch):
    """Winograd's algorithm also where direct sums would be cheaper."""
    monkeypatch.setattr(Work, "direct", lambda self, half: inf)


@pytest.mark.parametrize("size", SIZES)
def test_matrices_convolve_exactly(size):
    """A [(G g) * (B d)] is the convolution of g and d, in whole numbers."""
    a, g, b = matrices(*size)
    taps = [Fraction(3 * i - 2) for i in range(size.taps)]
    data = [Fraction(i * i - 5) for i in range(size.inputs)]

    def times(matrix, vector):
        return [sum(m * v for m, v in zip(row, vector, strict=True)) for row in matrix]

    made = [u * v for u, v in zip(times(g, taps), times(b, data), strict=True)]
    wanted = [sum(taps[k] * data[i + k] for k in range(size.taps)) for i in range(size.outputs)]
    assert times(a, made) == wanted


@pytest.mark.parametrize("size", SIZES)
def test_constants_of_data_are_exact_in_single_precision(size):
    a, _, b = matrices(*size)
    assert all(float(np.float32(v)) == v for row in (*a, *b) for v in row)


def conv(filters, kernel, padding=None, bias=True):
    pad = kernel // 2 if padding is None else padding
    return Conv(filters, Window((kernel,) * 2, (1, 1), ((pad, pad),) * 2, (1, 1)), bias=bias)


@pytest.mark.parametrize(
    ("shape", "filters", "kernel", "padding"),
    [
        ((16, 28, 28), 16, 3, 1),
        ((20, 13, 13), 40, 3, 1),
        ((64, 7, 7), 96, 3, 1),
        ((35, 30, 21), 50, 3, 0),
        ((32, 17, 18), 16, 3, 2),
        ((24, 56, 57), 30, 3, 1),
        ((18, 27, 27), 24, 5, 2),
        ((16, 12, 15), 70, 5, 0),
        ((16, 4, 4), 16, 3, 1),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.usefixtures("always")
def test_beside_plain_numpy(shape, filters, kernel, padding, batch):
    layer = Layer(conv(filters, kernel, padding), shape, batch, activation=Relu())
    assert quick_plan(layer.task) is not None
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@pytest.mark.parametrize(
    ("shape", "filters", "kernel", "padding", "cache"),
    [
        ((16, 5, 14, 14), 32, (3, 3, 3), (1, 1, 1), None),
        ((20, 6, 9, 11), 40, (3, 3, 3), (0, 1, 0), 1),
        ((16, 4, 12, 12), 16, (2, 5, 5), (1, 2, 2), 1),
        ((32, 3, 20, 20), 16, (1, 3, 3), (0, 1, 1), None),
    ],
)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.usefixtures("always")
def test_kernels_with_depth(shape, filters, kernel, padding, cache, batch, monkeypatch):
    """Slices in one chunk, and in as many as a tiny cache asks for."""
    if cache:
        monkeypatch.setattr(winograd_ways, "SHARED_CACHE", cache)
        monkeypatch.setattr(winograd_ways, "NEAR_CACHE", cache)
    pads = tuple((p, p) for p in padding)
    op = Conv(filters, Window(kernel, (1, 1, 1), pads, (1, 1, 1)))
    layer = Layer(op, shape, batch, residual=True, activation=Relu())
    plan = quick_plan(layer.task)
    assert plan is not None
    assert not cache or plan.chunks > 1
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@pytest.mark.parametrize(("residual", "bias", "threads"), list(product([0, 1], [0, 1], [1, 2])))
def test_what_is_fused(residual, bias, threads):
    layer = Layer(
        conv(40, 3, bias=bool(bias)), (32, 19, 14), 2, bool(residual), Relu(), threads=threads
    )
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", [winograd_kernel.BY_TILES, winograd_kernel.PRODUCTS])
def test_both_ways_and_every_size(size, mode, monkeypatch):
    """Whatever would be chosen: by tiles and by products, each size."""
    monkeypatch.setattr(winograd_ways, "_order", lambda size, layer: mode)
    monkeypatch.setattr("netdsl.cpu.choices.SIZES", (size,))
    monkeypatch.setattr("netdsl.cpu.choices.ROUGHER", {})
    layer = Layer(conv(48, size.taps), (33, 25, 22), 2, True, Relu(), spare=1)
    plan = quick_plan(layer.task)
    assert plan is not None
    assert plan.mode == mode
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


def strided(filters, kernel, stride, padding=None, bias=True):
    padding = padding or ((0, 0),) * len(kernel)
    return Conv(filters, Window(kernel, stride, padding, (1,) * len(kernel)), bias=bias)


STRIDED = [
    # kernel, stride, padding, image
    ((3, 3), (2, 2), ((1, 1), (1, 1)), (28, 28)),
    ((3, 3), (2, 2), ((0, 1), (2, 0)), (21, 34)),
    ((5, 5), (2, 2), ((0, 0), (0, 0)), (23, 30)),
    ((6, 5), (2, 2), ((2, 1), (1, 3)), (17, 19)),
    ((4, 4), (2, 2), ((1, 1), (1, 1)), (32, 20)),
    ((3, 6), (1, 2), ((1, 1), (2, 3)), (15, 25)),
    ((5, 4), (3, 2), ((1, 2), (0, 1)), (33, 18)),
    ((9, 10), (4, 4), ((3, 3), (4, 2)), (37, 42)),
]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("kernel", "stride", "padding", "image"), STRIDED)
@pytest.mark.parametrize("outputs", [4, 2])
@pytest.mark.parametrize("mode", [winograd_kernel.BY_TILES, winograd_kernel.PRODUCTS])
def test_strides(kernel, stride, padding, image, outputs, mode, monkeypatch):
    """Kernels that phases cut evenly and unevenly, both ways, with what is fused."""
    monkeypatch.setattr(winograd_ways, "_order", lambda size, layer: mode)
    few = tuple(size for size in SIZES if size.outputs == outputs)
    monkeypatch.setattr("netdsl.cpu.choices.SIZES", few)
    op = strided(41, kernel, stride, padding, bias=mode == winograd_kernel.PRODUCTS)
    layer = Layer(op, (35, *image), 2, True, Relu(), spare=1, seed=sum(image))
    plan = quick_plan(layer.task)
    assert plan is not None
    assert plan.mode == mode
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("seed", range(8))
def test_strides_drawn_at_random(seed, monkeypatch):
    random = np.random.default_rng(seed)
    monkeypatch.setattr(winograd_ways, "_order", lambda size, layer: int(random.choice([0, 2])))
    stride = tuple(map(int, random.integers(1, 4, 2)))
    taps = int(random.integers(2, 4))
    kernel = tuple(s * (taps - 1) + int(random.integers(1, s + 1)) for s in stride)
    padding = tuple(tuple(map(int, pair)) for pair in random.integers(0, 3, (2, 2)))
    channels, filters, *image = map(int, random.integers(16, 50, 4))
    op = strided(filters, kernel, stride, padding)
    layer = Layer(op, (channels, *image), int(random.integers(1, 3)), spare=1, seed=seed)
    assert quick_plan(layer.task) is not None
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("mode", [winograd_kernel.BY_TILES, winograd_kernel.PRODUCTS])
def test_strides_pooled(mode, monkeypatch):
    monkeypatch.setattr(winograd_ways, "_order", lambda size, layer: mode)
    op, shape = strided(40, (3, 3), (2, 2), ((1, 1), (1, 1))), (33, 27, 41)
    assert pools(Layer(op, shape, 2).task, HALVES)
    layer = Layer(op, shape, 2, activation=Relu(), pool=HALVES)
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("cache", [None, 1])
def test_strides_with_depth(cache, monkeypatch):
    if cache:
        monkeypatch.setattr(winograd_ways, "SHARED_CACHE", cache)
        monkeypatch.setattr(winograd_ways, "NEAR_CACHE", cache)
    op = strided(40, (3, 5, 3), (1, 2, 1), ((1, 1), (2, 2), (1, 1)))
    layer = Layer(op, (20, 5, 15, 18), 2, residual=True)
    assert quick_plan(layer.task) is not None
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@pytest.mark.parametrize(
    ("kernel", "stride"), [((3, 3), (2, 2)), ((5, 5), (2, 2)), ((5, 7), (3, 4))]
)
def test_what_products_leave_out_is_multiplied_with_zeros(kernel, stride, always):
    """The weights outside of a product's span are zeros, and no block within is."""
    layer = Layer(strided(32, kernel, stride), (32, 40, 40))
    plan = quick_plan(layer.task)
    made = winograd.transformed(layer.weights["weight"], plan)
    block, step = plan.strides
    for k, span in enumerate(plan.spans):
        for f in range(plan.filter_blocks):
            panel = made[f * block + k * step :][: plan.blocks * 256].reshape(plan.blocks, 256)
            assert [i for i, own in enumerate(panel) if own.any()] == list(span)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("rates", [costs.WIDE, costs.FAST] if wide() else [costs.NARROW])
def test_strided_layers_that_go_by_tiles_of_four(batch, rates, monkeypatch):
    """ZFNet's conv2, and ResNet-50's first strided one, by the costs of all CPUs of a kind."""
    for module in (costs, winograd_costs, winograd_ways):
        monkeypatch.setattr(module, "rates", lambda: rates)
    large = Layer(strided(256, (5, 5), (2, 2)), (96, 55, 55), batch)
    small = Layer(strided(128, (3, 3), (2, 2), ((1, 1), (1, 1))), (128, 56, 56), batch)
    assert [quick_plan(layer.task).size for layer in (large, small)] == [Size(4, 3), Size(4, 2)]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("shape", [(33, 26, 20), (20, 17, 15), (16, 31, 8)])
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("size", [size for size in SIZES if size.pools])
@pytest.mark.parametrize("mode", [winograd_kernel.BY_TILES, winograd_kernel.PRODUCTS])
def test_pooled(shape, size, mode, monkeypatch):
    """The largest of every 2x2 outputs, of odd heights and widths too."""
    monkeypatch.setattr(winograd_ways, "_order", lambda size, layer: mode)
    monkeypatch.setattr("netdsl.cpu.choices.SIZES", (size,))
    op = conv(40, size.taps)
    assert pools(Layer(op, shape, 2).task, HALVES)
    layer = Layer(op, shape, 2, activation=Relu(), spare=1, pool=HALVES)
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("size", [size for size in SIZES if not size.pools])
def test_tiles_of_odd_sides_do_not_pool(size, monkeypatch):
    monkeypatch.setattr("netdsl.cpu.choices.SIZES", (size,))
    monkeypatch.setattr("netdsl.cpu.choices.ROUGHER", {})
    task = Layer(conv(40, size.taps), (33, 26, 20)).task
    assert quick_plan(task) is not None
    assert not pools(task, HALVES)


def test_pooling_passes_nan_on():
    layer = Layer(conv(16, 3), (16, 12, 12), activation=Relu(), pool=HALVES)
    layer.arrays[0][0, 3, 5, 5] = np.nan
    wanted = np.zeros((6, 6), bool)
    wanted[2:4, 2:4] = True
    found = np.isnan(layer.run(plan_conv, conv_needs))
    # A whole tile of outputs is made of a tile of inputs, so more may be lost, never less.
    assert found[0][:, wanted].all()
    assert not found[0][:, 4:, 4:].any()


@pytest.mark.parametrize(
    "text",
    [
        "conv3x3p1(32) -> maxpool3s2",
        "conv3x3p1(32) -> maxpool2s1",
        "conv3x3p1(32) -> maxpool2ceil",
        "conv3x3p1(32) -> maxpool2p1",
        "conv1x1(32) -> maxpool2",
        "conv3x3s2p1(32) -> maxpool2",
        "conv3x3p1(32) -> avgpool2",
        "conv3x3p1(32) as c -> maxpool2 as p; output c, p",
    ],
)
def test_pools_that_stay_apart(text):
    graph = find.graph_of_text(f"input 32x15x15; {text}")
    plan = compile_plan(graph, initialise(graph, 0), batch=1)
    assert "pool" not in plan.steps[0].word


def test_exact_and_unsuited_layers_are_summed_directly():
    assert quick_plan(Layer(conv(32, 3), (32, 28, 28), exact=True).task) is None
    assert quick_plan(Layer(conv(32, 1), (32, 28, 28)).task) is None
    assert quick_plan(Layer(conv(32, 3), (3, 28, 28)).task) is None
    assert quick_plan(Layer(strided(32, (2, 2), (2, 2)), (32, 28, 28)).task) is None
    assert quick_plan(Layer(strided(32, (3, 3), (2, 1)), (32, 28, 28)).task) is None
    dilated = Conv(32, Window((3, 3), (2, 2), ((1, 1),) * 2, (2, 2)))
    assert quick_plan(Layer(dilated, (32, 28, 28)).task) is None
    grouped = Conv(32, Window((3, 3), (2, 2), ((1, 1),) * 2, (1, 1)), groups=2)
    assert quick_plan(Layer(grouped, (32, 28, 28)).task) is None
    deep = strided(32, (3, 3, 3), (2, 2, 2), ((1, 1),) * 3)
    assert quick_plan(Layer(deep, (32, 8, 28, 28)).task) is None
    assert quick_plan(Layer(strided(64, (5, 5), (2, 2)), (64, 28, 28), exact=True).task) is None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mode", [winograd_kernel.BY_TILES, winograd_kernel.PRODUCTS])
def test_error_of_long_sums(seed, mode, monkeypatch):
    """512 channels, as in VGG: no more than of a float32 sum term by term; of tiles of 5x5 outputs,
    which err twice as much, twice that."""
    layer = Layer(conv(32, 3), (512, 15, 15), batch=2, seed=seed)
    layer.arrays[0] = np.maximum(layer.arrays[0], 0)
    monkeypatch.setattr("netdsl.cpu.winograd_ways._order", lambda size, layer: mode)
    for size, times in ((Size(4, 3), 1), (Size(2, 3), 1), (Size(5, 3), 2)):
        plan = winograd_ways.planned(size, choices.layer(layer.task, size))
        monkeypatch.setattr("netdsl.cpu.conv.choice", lambda task, plan=plan: Choice(plan))
        found = layer.run(plan_conv, conv_needs)
        assert beside_a_long_sum(layer, found) < times
