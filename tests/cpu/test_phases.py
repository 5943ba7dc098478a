"""Strided layers of few channels by Winograd's algorithm, beside plain NumPy."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from layer import Layer, convolved, error

from netdsl import find
from netdsl.cpu import costs, phases, winograd_costs, winograd_ways
from netdsl.cpu.choices import choice, ways
from netdsl.cpu.conv import conv_needs, plan_conv, quick_plan
from netdsl.cpu.costs import Work
from netdsl.cpu.micro.fields import SIZES, Size
from netdsl.cpu.micro.shapes import wide
from netdsl.cpu.plan import compile as compile_plan
from netdsl.graph.weights import initialise
from netdsl.ops import Conv, Relu, Window
from netdsl.reference import interpret

TAPS = sorted({size.taps for size in SIZES})


@pytest.fixture
def always(monkeypatch):
    """Winograd's algorithm also where direct sums would be cheaper."""
    monkeypatch.setattr(Work, "direct", lambda self, half: inf)


def drawn(seed: int, taps: int) -> Layer:
    """A layer whose phases have so many taps: any strides, channels, paddings and sizes."""
    random = np.random.default_rng(seed)

    def among(*values: int) -> int:
        return int(random.choice(values))

    down = among(2, 3, 4, 5)
    stride = (down, among(down, down, 1, 2, 3, 4))
    kernel = tuple(taps * s - int(random.integers(s)) for s in stride)
    padding = tuple((int(random.integers(k)), int(random.integers(k))) for k in kernel)
    shape = (among(1, 2, 3, 4), *(k + int(random.integers(40)) for k in kernel))
    op = Conv(among(16, 24, 40, 64), Window(kernel, stride, padding, (1, 1)), bias=among(0, 1) > 0)
    fused = {"residual": among(0, 1) > 0, "activation": Relu()}
    places = {"planar": among(0, 1) > 0, "spare": among(0, 1), "threads": among(1, 2, 3)}
    return Layer(op, shape, among(1, 2, 3), seed=seed, **fused, **places)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("taps", TAPS)
@pytest.mark.usefixtures("always")
def test_drawn_layers(seed, taps):
    layer = drawn(100 * taps + seed, taps)
    plan = quick_plan(layer.task)
    assert plan is not None
    assert plan.size.taps == taps
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


def conv(filters, kernel, stride, padding, dilation=1, groups=1):
    window = Window((kernel,) * 2, (stride,) * 2, ((padding,) * 2,) * 2, (dilation,) * 2)
    return Conv(filters, window, groups)


@pytest.mark.parametrize("rates", [costs.WIDE, costs.NARROW, costs.FAST])
@pytest.mark.parametrize(
    ("op", "shape", "size"),
    [
        (conv(64, 11, 4, 2), (3, 227, 227), Size(4, 3)),
        (conv(64, 7, 2, 3), (3, 224, 224), Size(5, 4)),
        (conv(32, 3, 2, 1), (3, 224, 224), None),
    ],
)
def test_first_layers_by_every_table_of_costs(op, shape, size, rates, monkeypatch):
    """AlexNet's, GoogLeNet's and MobileNetV2's."""
    if rates is costs.FAST and not wide():
        pytest.skip("these are of CPUs with AVX-512 alone")
    for module in (costs, winograd_costs, winograd_ways):
        monkeypatch.setattr(module, "rates", lambda: rates)
    winograd_ways._cheapest.cache_clear()
    plan = quick_plan(Layer(op, shape).task)
    assert (plan.size if plan else None) == size


@pytest.mark.parametrize(
    ("op", "shape"), [(conv(64, 11, 4, 2), (3, 227, 227)), (conv(40, 7, 2, 3), (3, 101, 90))]
)
def test_first_layers_of_usual_nets(op, shape):
    layer = Layer(op, shape, planar=True)
    assert quick_plan(layer.task) is not None
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@pytest.mark.parametrize(
    "op",
    [
        conv(32, 3, 1, 1),
        conv(32, 2, 2, 1),
        conv(32, 11, 4, 2, dilation=2),
        conv(32, 11, 4, 2, groups=2),
        Conv(32, Window((11, 3), (4, 4), ((2, 2), (1, 1)), (1, 1))),
        Conv(32, Window((11,), (4,), ((2, 2),), (1,))),
    ],
)
@pytest.mark.usefixtures("always")
def test_layers_that_are_summed_directly(op):
    shape = (2, *(75,) * len(op.window.kernel))
    assert quick_plan(Layer(op, shape).task) is None


def test_exact_sums_are_direct():
    layer = Layer(conv(64, 11, 4, 2), (3, 227, 227), exact=True)
    assert choice(layer.task).quick is None
    assert all(way.quick is None for way in ways(layer.task))


def test_weights_are_moved_alone():
    """Every weight once, and zeros where the last phases have no tap."""
    window = Window((5, 7), (2, 3), ((0, 0),) * 2, (1, 1))
    weight = np.arange(1, 1 + 4 * 3 * 35, dtype=np.float32).reshape(4, 3, 5, 7)
    moved = phases.weights(weight, window)
    assert moved.shape == (4, 3 * 6, 3, 3)
    assert sorted(moved[moved > 0]) == list(weight.reshape(-1))
    assert moved[2, 1 * 6 + 1 * 3 + 2, 1, 0] == weight[2, 1, 2 * 1 + 1, 3 * 0 + 2]


@pytest.mark.parametrize("batch", [1, 3])
def test_within_a_net(batch):
    """As a first layer, on an image in planes, and on one that another layer made."""
    text = "input 3x99x90; conv1x1(3) -> conv11x11s4p2(48) as a -> maxpool2 -> gap -> fc(10)"
    for start in (text, text.replace("conv1x1(3) -> ", "")):
        graph = find.graph_of_text(start)
        weights = initialise(graph, 0)
        plan = compile_plan(graph, weights, batch=batch)
        assert any(step.way.startswith("winograd4") for step in plan.steps)
        random = np.random.default_rng(batch)
        x = {"input": random.normal(size=(batch, 3, 99, 90)).astype(np.float32)}
        found, wanted = plan.run(x), interpret(graph, weights, x)
        for name, values in found.items():
            assert np.abs(values - wanted[name]).max() < 1e-5 * np.abs(wanted[name]).max()
