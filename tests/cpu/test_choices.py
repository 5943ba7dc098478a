"""The ways to do a convolution: each has its name, and all give the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from layer import Layer, convolved, error

from netdsl import find
from netdsl.cpu import costs
from netdsl.cpu.choices import algorithms, choice, layers, pools, ways
from netdsl.cpu.conv import conv_needs, plan_conv
from netdsl.cpu.micro import matrices
from netdsl.cpu.plan import Making
from netdsl.cpu.plan import compile as compile_plan
from netdsl.cpu.table import takes
from netdsl.graph.fused import fuse
from netdsl.graph.passes import lowered
from netdsl.graph.weights import initialise
from netdsl.ops import Conv, MaxPool, Op, Relu, Window
from netdsl.reference import interpret


def conv(filters: int, kernel: tuple[int, ...], groups: int = 1, stride: int = 1) -> Op:
    ones, pads = (1,) * len(kernel), tuple((k // 2, k // 2) for k in kernel)
    return Conv(filters, Window(kernel, (stride,) * len(kernel), pads, ones), groups)


LAYERS = [
    (conv(48, (3, 3)), (33, 25, 22)),
    (conv(64, (5, 5)), (24, 20, 20)),
    (conv(32, (3, 3, 3)), (16, 4, 14, 14)),
    (conv(96, (1, 1)), (64, 14, 14)),
    (conv(32, (3, 3)), (3, 30, 30)),
    (conv(32, (3, 3), groups=4), (16, 12, 12)),
    (conv(48, (11, 11), stride=4), (3, 90, 90)),
    (conv(48, (3, 3), stride=2), (33, 41, 38)),
    (conv(64, (5, 5), stride=2), (24, 33, 40)),
]


@pytest.mark.parametrize(("op", "shape"), LAYERS)
def test_every_way_gives_the_same(op: Conv, shape: tuple[int, ...]) -> None:
    layer = Layer(op, shape, 2, True, Relu())
    task = layer.task
    found = ways(task)
    assert found[0] == choice(task)
    names = [way.name for way in found]
    assert len(set(names)) == len(names)
    wanted = convolved(layer)
    for way in found:
        layer.task = replace(task, choice=way.name)
        assert choice(layer.task) == way
        assert error(layer.run(plan_conv, conv_needs), wanted) < 3e-5, way.name


def test_a_name_that_no_way_has_is_passed_over() -> None:
    task = Layer(conv(48, (3, 3)), (33, 25, 22)).task
    assert choice(replace(task, choice="by hand")) == choice(task)


WIDE = "conv5x5p2(32)"


@pytest.mark.parametrize(
    ("text", "rough"),
    [
        (f"conv3x3p1(16) -> {WIDE} -> gap -> fc(10)", False),
        (f"conv3x3p1(16) -> {WIDE} -> maxpool2 -> flatten -> fc(32) -> fc(32) -> fc(10)", True),
        (f"conv3x3p1(16) -> {WIDE} -> {WIDE} -> gap -> fc(32) -> fc(10)", False),
        (f"conv5x5p2(16) -> {WIDE} -> gap -> fc(32) -> fc(32) -> fc(10)", True),
    ],
)
def test_nets_of_few_layers_do_without_the_size_that_errs_most(text: str, rough: bool) -> None:
    graph = find.graph_of_text(f"input 3x28x28; {text}")
    plan = compile_plan(graph, initialise(graph, 0), batch=1)
    ways = [step.way.split()[0] for step in plan.steps if step.word.startswith(WIDE)]
    assert ways
    assert ("winograd4" in ways) == rough, ways


def sized(pixels: int, layers: int = 8, exact: bool = False) -> list[str]:
    """The algorithms for a layer of so many pixels along each axis, in a net of so many layers."""
    window = Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    layer = Layer(Conv(256, window), (256, pixels, pixels), 8, exact=exact)
    return [one.name for one in algorithms(replace(layer.task, layers=layers))]


@pytest.mark.usefixtures("no_thirds")
@pytest.mark.parametrize("pixels", [13, 14])
def test_small_images_by_tiles_of_five_in_nets_of_eight_layers(pixels: int) -> None:
    """They cover 14 pixels by 9 tiles where those of 4x4 take 16."""
    assert sized(pixels)[0] == "winograd5"
    assert "winograd5" not in sized(pixels, layers=7)
    assert "winograd5" not in sized(pixels, exact=True)


@pytest.mark.parametrize("pixels", [12, 28, 30, 56])
def test_no_tiles_of_five_where_those_of_four_waste_little(pixels: int) -> None:
    assert "winograd5" not in sized(pixels)


@pytest.mark.usefixtures("no_thirds")
@pytest.mark.parametrize(("pixels", "together"), [(14, False), (28, True), (56, True)])
def test_pools_are_fused_where_that_costs_less(pixels: int, together: bool) -> None:
    """Tiles of five do not pool, so a small image is pooled by a step of its own."""
    window = Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    layer = Layer(Conv(512, window), (512, pixels, pixels), 8)
    pool = MaxPool(Window((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)))
    assert pools(replace(layer.task, layers=8), pool) == together


@pytest.mark.parametrize(("more", "way"), [(5, "direct"), (6, "winograd5")])
def test_first_layers_by_tiles_of_five_in_nets_of_eight_layers(more: int, way: str) -> None:
    rest = " -> ".join(["conv1x1(16)"] * more)
    graph = find.graph_of_text(f"input 3x96x96; conv7x7s2p3(32) -> {rest} -> gap -> fc(10)")
    plan = compile_plan(graph, initialise(graph, 0), batch=1)
    assert plan.steps[0].way.split()[0] == way


@pytest.mark.parametrize("seed", range(3))
def test_error_of_a_net_of_few_layers_beside_direct_sums(seed: int) -> None:
    """LeNet-5 by the table's choices lies no further off than twice what direct sums do."""
    graph = find.graph_of("lenet5")
    weights = initialise(graph, seed)
    x = {"input": np.random.default_rng(seed).normal(size=(8, 1, 28, 28)).astype(np.float32)}
    wanted = interpret(graph, weights, x)["fc2"]

    def off(exact: bool) -> float:
        plan = compile_plan(graph, weights, batch=8, exact=exact)
        return float(np.sqrt(np.mean((plan.run(x)["fc2"] - wanted) ** 2)))

    assert off(False) < 2 * off(True)


def test_exact_sums_are_direct() -> None:
    task = Layer(conv(48, (3, 3)), (33, 25, 22), exact=True).task
    assert all(way.name.startswith("direct") for way in ways(task))
    assert choice(replace(task, choice="winograd4 by products of 49")).name == "direct"


def test_weights_of_strided_layers_stay_within_bounds() -> None:
    """512 filters of 512 channels take 38 MB by tiles of 2, and 100 by tiles of 4, which is for
    larger batches."""
    few, many = (Layer(conv(512, (3, 3), stride=2), (512, 15, 15), n).task for n in (6, 8))
    direct = {"direct", "thirds"} if matrices() else {"direct"}
    assert {way.name.split()[0] for way in ways(few)} == {"winograd2", *direct}
    assert {way.name.split()[0] for way in ways(many)} == {"winograd2", "winograd4", *direct}


@pytest.mark.parametrize(
    ("net", "batch", "points", "quarters"),
    [("resnet50", 1, True, False), ("googlenet", 1, False, True), ("vgg16", 1, False, True)],
)
def test_kernels_that_do_little_of_a_net_are_not_compiled_for_it(
    net: str, batch: int, points: bool, quarters: bool
) -> None:
    """By the costs of a Zen 4."""
    if costs.rates() is not costs.WIDE:
        pytest.skip("another CPU, whose costs take neither")
    graph = find.graph_of(net).without_aux()
    zeros = {n: np.broadcast_to(np.float32(0), p.shape) for n, p in graph.all_parameters().items()}
    low, weights = lowered(graph, zeros, lambda graph: fuse(graph, takes))
    making = Making(low, weights, batch, 2, exact=False)
    tasks = [task for task in making.tasks.values() if isinstance(task.whole.base, Conv)]
    found = [choice(task) for task in tasks]
    assert any(way.strassen for way in found) == points
    assert any(way.quick and way.quick.strassen for way in found) == quarters
    assert all(ways(task)[0].name == choice(task).name for task in tasks if not task.choice)


def test_nets_that_make_images_count_no_layers_to_hide_errors_among() -> None:
    text = "input 3x16x16; (conv3p1(32) -> relu) x12"
    assert layers(find.graph_of_text(f"{text} -> gap -> fc(5)")) == 13
    assert layers(find.graph_of_text(text)) == 0
