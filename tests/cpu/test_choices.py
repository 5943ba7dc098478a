"""The ways to do a convolution: each has its name, and all give the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from layer import Layer, convolved, error

from netdsl.cpu.choices import choice, ways
from netdsl.cpu.conv import conv_needs, plan_conv
from netdsl.ops import Conv, Op, Relu, Window


def conv(filters: int, kernel: tuple[int, ...], groups: int = 1) -> Op:
    ones, pads = (1,) * len(kernel), tuple((k // 2, k // 2) for k in kernel)
    return Conv(filters, Window(kernel, ones, pads, ones), groups)


LAYERS = [
    (conv(48, (3, 3)), (33, 25, 22)),
    (conv(64, (5, 5)), (24, 20, 20)),
    (conv(32, (3, 3, 3)), (16, 4, 14, 14)),
    (conv(96, (1, 1)), (64, 14, 14)),
    (conv(32, (3, 3)), (3, 30, 30)),
    (conv(32, (3, 3), groups=4), (16, 12, 12)),
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


def test_exact_sums_are_direct() -> None:
    task = Layer(conv(48, (3, 3)), (33, 25, 22), exact=True).task
    assert all(way.name.startswith("direct") for way in ways(task))
    assert choice(replace(task, choice="winograd4 by products of 49")).name == "direct"
