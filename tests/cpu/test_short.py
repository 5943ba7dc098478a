"""Weights of fully connected layers in fewer bits: rounded as they are said to be, and well used.

A layer's outputs are compared with sums in double precision of weights that NumPy rounds by the
rule in words: bfloat16 keeps 8 bits; int8 takes, for each filter and each 128 inputs in the order
in which they lie, the largest weight for 127.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from agree import drawn_inputs, drawn_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from layer import Layer, connected
from numpy.typing import NDArray
from test_rounding import half

from netdsl import cpu
from netdsl.cpu.arena import kernels
from netdsl.cpu.dense import plan_dense
from netdsl.cpu.direct import direct_short
from netdsl.cpu.micro import Kind
from netdsl.cpu.short import shortened, to_bytes, to_halves
from netdsl.lang import load
from netdsl.ops import Linear, Relu, Shape
from netdsl.reference import interpret

Floats = NDArray[np.float32]
RANGE = 127


def order(shape: Shape) -> NDArray[np.int64]:
    """Where each input of a sample of (C, *spatial) lies: 16 channels of a place side by side."""
    channels, places = shape[0], int(np.prod(shape[1:], dtype=int))
    channel, place = np.divmod(np.arange(channels * places), places)
    return (channel // 16 * places + place) * 16 + channel % 16


def scaled(weights: Floats, shape: Shape) -> Floats:
    """Weights (filters, inputs) for a sample of this shape, rounded to int8."""
    part = order(shape) // 128
    found = np.zeros_like(weights)
    for p in np.unique(part):
        some = weights[:, part == p]
        scale = np.abs(some).max(1, keepdims=True) / np.float32(RANGE)
        scale = np.maximum(scale, np.float32(2.0**-126))
        found[:, part == p] = np.rint(some / scale) * scale
    return found


ROUNDED = {"bf16": lambda weights, shape: half(weights), "int8": scaled}


def check(layer: Layer, kind: str) -> None:
    """Runs a layer and holds it to what its sums in single precision may be off by."""
    layer.task = replace(layer.task, fc_weights=kind)
    found = layer.run(plan_dense)
    weights = layer.weights["weight"]
    layer.weights["weight"] = ROUNDED[kind](weights, layer.shape)
    wanted = connected(layer)
    sizes = np.abs(layer.arrays[0].reshape(layer.batch, -1)) @ np.abs(weights).T
    rest = np.abs(wanted) + 2 + sum(np.abs(x) for x in layer.arrays[1:])
    # A float's error for each term and each step after, of sums that are no larger than these.
    terms = weights.shape[1] + 6
    assert np.all(np.abs(found - wanted) <= 2**-24 * terms * (1.01 * sizes + rest))


@pytest.mark.parametrize("kind", ROUNDED)
@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(
    ("shape", "filters"),
    [((4,), 3), ((128,), 16), ((300,), 70), ((20, 5, 7), 50), ((33, 3), 1000), ((5000,), 130)],
)
def test_layers(shape: Shape, filters: int, batch: int, kind: str) -> None:
    check(Layer(Linear(filters), shape, batch, activation=Relu()), kind)


@pytest.mark.parametrize("kind", ROUNDED)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_what_is_fused(bias: bool, residual: bool, kind: str) -> None:
    check(Layer(Linear(40, bias=bias), (700,), 2, residual, Relu()), kind)


@settings(max_examples=25)
@given(
    channels=st.integers(1, 300),
    filters=st.integers(1, 200),
    size=st.sampled_from(((), (3,), (2, 5), (2, 3, 2))),
    batch=st.integers(1, 13),
    threads=st.integers(1, 3),
    kind=st.sampled_from(tuple(ROUNDED)),
    seed=st.integers(0, 99),
)
def test_odd_shapes(
    channels: int,
    filters: int,
    size: Shape,
    batch: int,
    threads: int,
    kind: str,
    seed: int,
) -> None:
    check(Layer(Linear(filters), (channels, *size), batch, threads=threads, seed=seed), kind)


def outputs(weights: Floats, x: Floats, kind: str = "int8") -> Floats:
    """What a layer without biases gives for a sample."""
    filters, inputs = weights.shape
    graph = load(f"input {inputs}; fc({filters}, bias=no)")
    plan = cpu.compile(graph, {"fc1.weight": weights}, batch=1, fc_weights=kind)
    return plan.run({"input": x[None]})["fc1"][0]


def test_rows_of_any_size() -> None:
    """Zeros, and weights near both ends of what a float holds, give neither infinity nor NaN."""
    random = np.random.default_rng(0)
    weights = random.standard_normal((7, 400)).astype(np.float32)
    weights *= np.array([0, 1e-44, 1e-38, 1e-30, 1, 1e20, 5e37], np.float32)[:, None]
    weights[4, :200] = 0
    x = (random.standard_normal(400) * 1e-2).astype(np.float32)
    found, wanted = outputs(weights, x), scaled(weights, (400,)).astype(np.float64) @ x
    assert found[0] == 0
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-43)
    # Half a scale for each weight; the smallest floats have few digits themselves.
    scale = np.maximum(np.abs(weights).max(1) / RANGE, 2.0**-126)
    apart = np.abs(found - weights.astype(np.float64) @ x)
    assert np.all(apart <= 0.51 * scale * np.abs(x).sum() + 1e-43)


def test_one_large_weight_costs_its_neighbours_alone() -> None:
    """Whose scale it shares; the rest of its filter keeps its digits."""
    weights = np.ones((1, 512), np.float32)
    weights[0, 5] = 1e4
    x = np.ones(512, np.float32)
    x[5] = 0
    assert outputs(weights, x)[0] == 512 - 128


@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_spoils_its_filter_alone(what: float) -> None:
    weights = np.random.default_rng(1).standard_normal((20, 300)).astype(np.float32)
    x = np.random.default_rng(2).standard_normal(300).astype(np.float32)
    plain = outputs(weights, x)
    weights[3, 200] = what
    found = outputs(weights, x)
    assert np.isnan(found[3])
    others = np.arange(20) != 3
    np.testing.assert_array_equal(found[others], plain[others])


@pytest.mark.parametrize(("kind", "bits"), [(Kind.HALVED, "bf16"), (Kind.BYTES, "int8")])
def test_the_error_is_said(kind: Kind, bits: str) -> None:
    """Of more filters than are packed at once, and of weights that may only be read."""
    weights = np.random.default_rng(3).laplace(size=(150, 20, 35)).astype(np.float32)
    weights.flags.writeable = False
    _, said = shortened(weights, kind, 70 * 300, 2)
    flat = weights.reshape(150, -1)
    off = (ROUNDED[bits](flat, (20, 35)) - flat).astype(np.float64)
    wanted = np.sqrt((off**2).sum() / (flat.astype(np.float64) ** 2).sum())
    assert said == pytest.approx(wanted, rel=1e-4)


def test_nothing_is_off_where_nothing_is_rounded() -> None:
    whole = np.random.default_rng(4).integers(-127, 128, (16, 128, 1)).astype(np.float32)
    whole[:, 0] = 127
    assert shortened(whole, Kind.BYTES, 16 * 33, 1)[1] == 0
    assert shortened(np.zeros_like(whole), Kind.BYTES, 16 * 33, 1)[1] == 0


NET = "input 20x9x9; conv3p1(32) -> relu -> maxpool3s3 -> flatten -> fc(300) -> relu -> fc(70)"


def test_a_net_says_what_its_layers_are_off_by() -> None:
    graph = load(NET)
    weights = drawn_weights(graph)
    plain = cpu.compile(graph, weights, batch=2, fc_weights="fp32")
    half_, quarter = (
        cpu.compile(graph, weights, batch=2, fc_weights=kind) for kind in ("bf16", "int8")
    )
    assert plain.rounding == {}
    assert set(half_.rounding) == set(quarter.rounding) == {"fc1", "fc2"}
    assert all(0.0015 < error < 0.0019 for error in half_.rounding.values())
    assert all(0.005 < error < 0.008 for error in quarter.rounding.values())


@pytest.mark.parametrize(("kind", "share"), [("bf16", 0.51), ("int8", 0.27)])
def test_weights_take_less_memory(kind: str, share: float) -> None:
    graph = load("input 2048; fc(512)")
    weights = drawn_weights(graph)
    whole = cpu.compile(graph, weights, batch=1).params_bytes
    assert cpu.compile(graph, weights, batch=1, fc_weights=kind).params_bytes < share * whole


def test_other_layers_stay_as_they_are() -> None:
    graph = load("input 20x9x9; conv1(32) -> relu -> conv3p1(48) -> gap -> flatten")
    weights, inputs = drawn_weights(graph), drawn_inputs(graph, 2)
    plain, less = (
        cpu.compile(graph, weights, batch=2, fc_weights=kind).run(inputs) for kind in (None, "int8")
    )
    for name, values in plain.items():
        np.testing.assert_array_equal(values, less[name])


@pytest.mark.parametrize("batch", [1, 6])
def test_it_goes_before_the_precision(batch: int) -> None:
    """Weights in single precision beside a net in bfloat16, whose inputs are not rounded either."""
    graph = load("input 300; fc(70)")
    weights, inputs = drawn_weights(graph), drawn_inputs(graph, batch)
    how = {"batch": batch, "precision": "bf16"}
    plan = cpu.compile(graph, weights, fc_weights="fp32", **how)
    plain = cpu.compile(graph, weights, batch=batch)
    np.testing.assert_array_equal(plan.run(inputs)["fc1"], plain.run(inputs)["fc1"])
    found = cpu.compile(graph, weights, fc_weights="int8", **how).run(inputs)["fc1"]
    wanted = interpret(graph, weights, inputs)["fc1"]
    assert 1e-3 < np.std(found - wanted) / np.std(wanted) < 1e-2


def test_threads_change_nothing() -> None:
    graph = load("input 40x3x3; flatten -> fc(333)")
    weights, inputs = drawn_weights(graph), drawn_inputs(graph, 3)
    first, *others = (
        cpu.compile(graph, weights, batch=3, threads=n, fc_weights="int8").run(inputs)["fc1"]
        for n in (1, 2, 3)
    )
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-5, atol=1e-5)


def test_what_is_compiled_ahead_is_what_runs_take() -> None:
    graph = load("input 32x8x8; conv1(16) -> relu -> flatten -> fc(4)")
    plain, less = (set(kernels(graph, fc_weights=kind)) for kind in (None, "int8"))
    assert less - plain == {to_bytes, to_halves, direct_short}
