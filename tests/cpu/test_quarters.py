"""Winograd's algorithm with products by Strassen's, beside plain NumPy."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from layer import HALVES, Layer, beside_a_long_sum, conv, convolved, error

from netdsl import find
from netdsl.cpu import choices, costs, winograd, winograd_costs, winograd_ways
from netdsl.cpu.choices import Choice
from netdsl.cpu.conv import conv_needs, plan_conv
from netdsl.cpu.micro.fields import CUT, SIZES
from netdsl.cpu.micro.shapes import quartered, wide
from netdsl.cpu.tiling import product_tile
from netdsl.cpu.winograd_kernel import BY_TILES, PRODUCTS
from netdsl.ops import Conv, Relu, Window

pytestmark = pytest.mark.skipif(not wide(), reason="these tiles take AVX-512")

MODES = (BY_TILES, PRODUCTS)


@pytest.fixture
def forced(monkeypatch):
    """A layer done by Strassen's algorithm whatever it costs, in an order, so many pairs at a
    time, with some tile where one is given."""

    if costs.rates().quarters is None:  # not measured on such a CPU, and right all the same
        for module in (winograd_costs, winograd_ways):
            monkeypatch.setattr(module, "rates", lambda: costs.WIDE)

    def force(layer, mode, chunk, size=SIZES[0], shape=None):
        layer.task = replace(layer.task, layers=10)
        known = choices.layer(layer.task, size)._replace(strassen=True)
        plan = winograd_ways._cheapest(size, known, mode, strassen=True)
        chunk, parts = min(chunk, plan.tiles), plan.parts
        shared = (plan.products, parts) if mode == PRODUCTS else (1, 1)
        tile = product_tile(chunk, plan.filter_blocks // 2, *shared, quarters=True)
        if shape is not None:
            tile = next(tile for tile in quartered() if tile.shape == shape)
        plan = plan._replace(chunk=chunk, tile=tile)
        for module in ("choices", "conv"):
            monkeypatch.setattr(f"netdsl.cpu.{module}.choice", lambda task: Choice(plan))
        return plan

    return force


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", CUT)
def test_every_size(size, mode, forced):
    layer = Layer(conv(64, size.taps), (96, 25, 22), 2, True, Relu(), spare=1)
    plan = forced(layer, mode, 9, size)
    assert "strassen" in plan.name
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tile", quartered())
def test_every_tile(tile, mode, forced):
    """Of which some overlap at the end of a chunk and of the filters."""
    layer = Layer(conv(2 * 16 * (tile.shape.blocks + 1)), (32, 29, 33), 2, spare=1)
    forced(layer, mode, tile.shape.pixels + 3, shape=tile.shape)
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@pytest.mark.parametrize(("mode", "seed"), list(product(MODES, range(8))))
def test_layers_drawn_at_random(mode, seed, forced):
    """Odd images, whose last tile is alone; channels that do not fill blocks; one thread too."""
    random = np.random.default_rng([seed, mode])
    channels = 32 * int(random.integers(1, 5)) - int(random.integers(0, 16))
    filters = 32 * int(random.integers(1, 5))
    image = tuple(map(int, random.integers(20, 45, 2)))
    layer = Layer(
        conv(filters, padding=int(random.integers(0, 3))),
        (channels, *image),
        int(random.integers(1, 4)),
        residual=bool(seed % 2),
        activation=Relu() if seed % 3 else None,
        threads=int(random.integers(1, 4)),
        spare=1,
        seed=seed,
    )
    forced(layer, mode, int(random.integers(7, 30)))
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(32, 26, 20), (64, 17, 45), (32, 31, 24)])
def test_pooled(shape, mode, forced):
    layer = Layer(conv(64), shape, 2, activation=Relu(), spare=1, pool=HALVES)
    forced(layer, mode, 8)
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@pytest.mark.parametrize("mode", MODES)
def test_slices_with_a_kernel_of_depth_one(mode, forced):
    op = Conv(32, Window((1, 3, 3), (1, 1, 1), ((0, 0), (1, 1), (1, 1)), (1, 1, 1)))
    layer = Layer(op, (64, 3, 20, 27), 2, activation=Relu())
    forced(layer, mode, 10)
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_a_sample_that_is_not_finite_spoils_no_other(value, mode, forced):
    """Of chunks in which images meet, though each image has an odd number of tiles."""
    layer = Layer(conv(64), (64, 20, 20), 5)
    forced(layer, mode, 11)
    wanted = convolved(layer)
    layer.arrays[0][2, 7] = value
    with np.errstate(invalid="ignore", over="ignore"):
        found = layer.run(plan_conv, conv_needs)
    others = [0, 1, 3, 4]
    assert error(found[others], wanted[others]) < 3e-5
    assert not np.isfinite(found[2]).all()


@pytest.mark.parametrize("mode", MODES)
def test_chunks_of_any_length_give_the_same(mode, forced):
    """A tile's pair is its neighbour in the image, wherever chunks end."""
    found = []
    for chunk in (7, 12, 25):
        layer = Layer(conv(64), (64, 25, 21), 3, activation=Relu())
        forced(layer, mode, chunk, shape=(7, 1))
        found.append(layer.run(plan_conv, conv_needs))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_weights_are_summed_in_double_precision(forced):
    layer = Layer(conv(64), (96, 20, 20))
    plan = forced(layer, BY_TILES, 7)
    plain = plan._replace(strassen=False, mode=PRODUCTS)
    weights = layer.weights["weight"]
    made, known = winograd.transformed(weights, plan), winograd.transformed(weights, plain)

    def panels(values, plan, count, width):
        block, step = plan.strides
        at = [[k * step + f * block for f in range(count)] for k in range(plan.products)]
        return np.array([[values[i : i + width] for i in row] for row in at], np.float64)

    old = panels(known, plain, 4, 6 * 256).reshape(plan.products, 4, 6, 256)
    a11, a12, a21, a22 = (
        old[:, 2 * low : 2 * low + 2, right::2].reshape(plan.products, 2, -1)
        for low, right in product((0, 1), (0, 1))
    )
    s2 = a21 + a22 - a11
    wanted = [a11, s2, a21 + a22, a12 - s2, a11 - a21, a22, a12]
    found = panels(made, plan, 2, 7 * 768)
    np.testing.assert_array_equal(found, np.concatenate(wanted, axis=2).astype(np.float32))


def names(layer, **changes):
    return {way.name for way in choices.ways(replace(layer.task, **changes))}


def strassen(found):
    return any("strassen" in name for name in found)


def test_ways_worth_measuring():
    """Both orders, with the table's own way first; nothing of it where it must not be."""
    if costs.rates().quarters is None:
        pytest.skip("not measured on such a CPU")
    layer = Layer(conv(256), (256, 56, 56), 8)
    task = replace(layer.task, layers=10)
    found = [way.name for way in choices.ways(task)]
    assert len(set(found)) == len(found)
    assert {name.split(" of ")[0] for name in found if "strassen" in name} == {
        f"winograd4 strassen by {order}" for order in ("tiles", "products")
    }
    assert found[0] == choices.choice(task).name
    assert not strassen(names(layer))
    assert not strassen(names(layer, layers=10, exact=True))
    assert not strassen(names(layer, layers=10, precision="bf16"))
    assert not strassen(names(Layer(conv(250), (256, 56, 56), 8), layers=10))
    assert not strassen(names(Layer(conv(256), (240, 56, 56), 8), layers=10))
    rough = names(Layer(conv(256, 5, 2), (256, 56, 56), 8), layers=10)
    assert not any(name.startswith("winograd4 strassen") for name in rough)


def test_layers_that_a_net_has():
    """Those that sum: VGG-16's name counts them, and AlexNet's are too few for this."""
    assert choices.layers(find.graph_of("vgg16")) == 16
    assert choices.layers(find.graph_of("alexnet")) == 8 < choices.DEEP


@pytest.mark.parametrize("channels", [512, 352, 320])
@pytest.mark.parametrize("mode", MODES)
def test_error_of_long_sums(channels, mode, forced):
    """Sums in parts, as many as are all as long: no more than twice what as many terms err by that
    are added one after the other in float32."""
    layer = Layer(conv(64), (channels, 15, 14), batch=2, seed=channels)
    layer.arrays[0] = np.maximum(layer.arrays[0], 0)
    forced(layer, mode, 7)
    assert beside_a_long_sum(layer, layer.run(plan_conv, conv_needs)) < 2
