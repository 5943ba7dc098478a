"""Winograd's products of floats as three bfloat16 each (AMX), beside plain NumPy."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from assembly import compiled
from layer import HALVES, Layer, conv, convolved, error
from llvmlite import ir

from netdsl import find
from netdsl.cpu import choices, costs, winograd, winograd_ways
from netdsl.cpu.choices import Choice
from netdsl.cpu.conv import conv_needs, plan_conv
from netdsl.cpu.micro import matrices
from netdsl.cpu.micro.fields import SIZES, Size
from netdsl.cpu.micro.shapes import FORMINGS, Shape
from netdsl.cpu.micro.thirds import name_of, tile_function
from netdsl.cpu.plan import compile as compile_plan
from netdsl.cpu.winograd_groups import groups
from netdsl.cpu.winograd_kernel import BY_TILES, PRODUCTS
from netdsl.graph.weights import initialise
from netdsl.ops import Conv, Relu, Window

needs_matrices = pytest.mark.skipif(
    not matrices(), reason="this CPU has no AMX, or the system gives no leave to use it"
)

MODES = (BY_TILES, PRODUCTS)


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch):
    """A layer's products made so whatever it costs, in an order, so many tiles at a time."""

    def force(layer, mode, chunk, size=SIZES[0]):
        known = choices.layer(layer.task, size)
        assert known.thirds
        plan = winograd_ways._cheapest(size, known, mode, thirds=True)
        plan = plan._replace(chunk=min(chunk, plan.tiles))
        for module in ("choices", "conv"):
            monkeypatch.setattr(f"netdsl.cpu.{module}.choice", lambda task: Choice(plan))
        return plan

    return force


@needs_matrices
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_every_size(size, mode, forced):
    layer = Layer(conv(48, size.taps), (96, 25, 22), 2, True, Relu(), spare=1)
    plan = forced(layer, mode, 37, size)
    assert "thirds" in plan.name
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@needs_matrices
@pytest.mark.parametrize(("mode", "seed"), list(product(MODES, range(12))))
def test_layers_drawn_at_random(mode, seed, forced):
    """Odd images, blocks that are not full, odd numbers of blocks, sixteens that are not full, few
    threads or many."""
    random = np.random.default_rng([seed, mode])
    channels, filters = map(int, random.integers(16, 150, 2))
    image = tuple(map(int, random.integers(14, 45, 2)))
    layer = Layer(
        conv(filters, padding=int(random.integers(0, 3))),
        (channels, *image),
        int(random.integers(1, 5)),
        residual=bool(seed % 2),
        activation=Relu() if seed % 3 else None,
        threads=int(random.integers(1, 4)),
        spare=1,
        seed=seed,
    )
    forced(layer, mode, int(random.integers(3, 120)))
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@needs_matrices
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("together", [1, 2, 3])
@pytest.mark.parametrize("near", [True, False])
def test_groups(mode, together, near, forced, monkeypatch):
    """Several groups of a product's sixteens, whose parts are formed ahead and not."""
    layer = Layer(conv(64), (128, 30, 31), 3, activation=Relu())
    plan = forced(layer, mode, 83)
    how = plan.groups._replace(together=together, near=near)
    how = how if near else how._replace(forming=None, span=how.turns)
    monkeypatch.setattr(winograd, "groups", lambda *sizes: how)
    assert (how.ahead > 0) == near
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@needs_matrices
@pytest.mark.parametrize("forming", FORMINGS)
def test_every_way_to_form(forming, forced, monkeypatch):
    """Those that form a whole group while the one before is multiplied, and those that leave some
    of it for the end."""
    layer = Layer(conv(96), (32 * 16 // forming.rows, 30, 31), 2)
    plan = forced(layer, PRODUCTS, 100)
    how = plan.groups._replace(forming=forming, together=2)
    assert how.turns == how.span
    monkeypatch.setattr(winograd, "groups", lambda *sizes: how)
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@needs_matrices
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(32, 26, 20), (64, 17, 45), (33, 31, 24)])
def test_pooled(shape, mode, forced):
    layer = Layer(conv(64), shape, 2, activation=Relu(), spare=1, pool=HALVES)
    forced(layer, mode, 40)
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@needs_matrices
@pytest.mark.parametrize("mode", MODES)
def test_slices_with_a_kernel_of_depth_one(mode, forced):
    op = Conv(32, Window((1, 3, 3), (1, 1, 1), ((0, 0), (1, 1), (1, 1)), (1, 1, 1)))
    layer = Layer(op, (64, 3, 20, 27), 2, activation=Relu())
    forced(layer, mode, 20)
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 3e-5


@needs_matrices
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_a_sample_that_is_not_finite_spoils_no_other(value, mode, forced):
    """Of chunks and sixteens in which images meet."""
    layer = Layer(conv(64), (64, 20, 20), 5)
    forced(layer, mode, 40)
    wanted = convolved(layer)
    layer.arrays[0][2, 7] = value
    with np.errstate(invalid="ignore", over="ignore"):
        found = layer.run(plan_conv, conv_needs)
    others = [0, 1, 3, 4]
    assert error(found[others], wanted[others]) < 3e-5
    assert not np.isfinite(found[2]).all()


@needs_matrices
def test_chunks_of_any_length_give_the_same(forced):
    found = []
    for mode, chunk in product(MODES, (16, 25, 66)):
        layer = Layer(conv(64), (64, 25, 21), 3, activation=Relu())
        forced(layer, mode, chunk)
        found.append(layer.run(plan_conv, conv_needs))
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


@needs_matrices
def test_no_larger_an_error_than_by_multiply_adds(forced, monkeypatch):
    """Root of the mean square, of 256 channels after a ReLU."""
    layer = Layer(conv(64), (256, 28, 28))
    layer.arrays[0] = np.maximum(layer.arrays[0], 0)
    wanted = convolved(layer)
    plan = forced(layer, PRODUCTS, 49)
    found = layer.run(plan_conv, conv_needs)
    plain = winograd_ways._cheapest(plan.size, choices.layer(layer.task, plan.size), PRODUCTS)
    monkeypatch.setattr("netdsl.cpu.conv.choice", lambda task: Choice(plain))
    other = layer.run(plan_conv, conv_needs)
    assert not np.array_equal(found, other)
    assert np.mean((found - wanted) ** 2) <= np.mean((other - wanted) ** 2)


@needs_matrices
def test_who_goes_so():
    layer = Layer(conv(64), (64, 56, 56), 8)
    assert "thirds" in choices.choice(layer.task).name
    for more in ({"exact": True}, {"precision": "bf16"}, {"fixed": False}):
        assert not choices.layer(replace(layer.task, **more), Size(4, 3)).thirds
    strided = Conv(64, Window((3, 3), (2, 2), ((1, 1),) * 2, (1, 1)))
    assert not choices.layer(Layer(strided, (64, 56, 56)).task, Size(4, 2)).thirds
    deep = Layer(Conv(32, Window((3,) * 3, (1,) * 3, ((1, 1),) * 3, (1,) * 3)), (32, 8, 28, 28))
    assert not winograd_ways._thirds(Size(4, 3), choices.layer(deep.task, Size(4, 3)))


@needs_matrices
@pytest.mark.parametrize(("part", "wanted"), [(0.25, True), (1.0, False)])
def test_a_net_goes_so_where_that_is_much_of_it(part, wanted, monkeypatch):
    monkeypatch.setattr(choices, "WORTH_COMPILING", part)
    graph = find.graph_of_text("input 64x56x56; conv3x3p1(64) -> conv1x1(64)")
    plan = compile_plan(graph, initialise(graph, 0), batch=8)
    assert any("winograd4 thirds" in (step.way or "") for step in plan.steps) == wanted


@pytest.mark.parametrize("rates", [costs.WIDE, costs.NARROW])
def test_other_cpus_go_without(rates, monkeypatch):
    monkeypatch.setattr(winograd_ways, "rates", lambda: rates)
    known = choices.layer(Layer(conv(64), (64, 56, 56)).task, Size(4, 3))
    assert not winograd_ways._thirds(Size(4, 3), known._replace(thirds=True))


@pytest.mark.parametrize(
    ("blocks", "filter_blocks", "chunk", "forming"),
    [(4, 4, 64, (8, 2)), (8, 8, 64, (4, 2)), (16, 16, 784, (4, 1)), (8, 4, 64, (4, 4))],
)
def test_all_of_the_next_group_is_formed_meanwhile(blocks, filter_blocks, chunk, forming):
    how = groups(blocks, filter_blocks, chunk)
    assert how.forming == forming
    tiles = how.together // 2 * (filter_blocks // 2) * how.turns // how.span
    assert tiles * how.forming.turns >= how.turns * how.together


@pytest.mark.parametrize(
    ("blocks", "filter_blocks", "chunk"), [(3, 4, 64), (32, 32, 392), (4, 1, 64), (4, 4, 16)]
)
def test_groups_that_are_formed_before(blocks, filter_blocks, chunk):
    """An odd number of blocks, weights from far, and no tile of 2x2."""
    how = groups(blocks, filter_blocks, chunk)
    assert how.forming is None
    assert how.ahead == 0


@pytest.mark.parametrize("forming", FORMINGS)
def test_rows_stay_between_products(forming):
    """Of a turn's assembly: between the first product and the last, all parts are written, and
    LLVM keeps nothing in memory."""
    function = tile_function(ir.Module("thirds"), Shape(2, 2), forming)
    lines = compiled([function], "x86_64-unknown-linux-gnu", "sapphirerapids")[
        name_of(Shape(2, 2), forming)
    ]
    products = [i for i, line in enumerate(lines) if "tdpbf16ps" in line]
    assert len(products) == 24
    between = lines[products[0] : products[-1]]
    rows = forming.rows * forming.turns
    stored = [line for line in between if re.search(r"vmov\w+\s+%zmm\d+, -?\d*\(", line)]
    assert len(stored) >= 3 * (rows - 2)
    assert not any("(%rsp" in line and "mm" in line for line in between)
