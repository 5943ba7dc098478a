"""Weights of fully connected layers in fewer bits with all of their digits: each weight comes out
bit by bit as it was, whatever it is, and layers are the sums that they were.

Which layers have such weights hangs on their size and on the CPU; here all have, but where it is
said otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from agree import drawn_inputs, drawn_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from layer import Layer, connected
from numpy.typing import NDArray

from netdsl import cpu
from netdsl.cpu import dense, factors, plan
from netdsl.cpu.arena import kernels
from netdsl.cpu.dense import plan_dense
from netdsl.cpu.direct import block_floats
from netdsl.cpu.direct_kernel import direct, direct_tight
from netdsl.cpu.layout import Call
from netdsl.cpu.micro import Kind
from netdsl.cpu.micro.shapes import twice, wide
from netdsl.cpu.pack import packed_weights
from netdsl.cpu.task import Places, Task
from netdsl.cpu.tight import begin, pack_tight, tightened
from netdsl.lang import load
from netdsl.ops import Linear, Relu, Shape

Floats = NDArray[np.float32]
Bits = NDArray[np.uint32]


def always(task: Task) -> bool:
    return True


def plan_tight(task: Task, places: Places) -> list[Call]:
    """A layer's calls, its weights tight wherever they fit."""
    with patch.object(dense, "tight", always):
        calls = plan_dense(task, places)
    assert [call.kernel for call in calls] in ([begin, direct_tight], [direct])
    return calls


def decoded(packed: Floats, rows: int, scale: float) -> Bits:
    """What a block of filters' packed weights say, by the words of micro/tight.py: (rows, 16)."""
    seven = packed[: rows // 8 * 7 * 16].view(np.uint32).reshape(-1, 7, 16).astype(np.uint64)
    last = sum((seven[:, k] >> 27 & 15) << 4 * k for k in range(7))
    last = last >> 1 | (last & 1) << 31
    bits = np.concatenate([seven & 0x87FFFFFF, last[:, None]], 1).astype(np.uint32)
    return (bits.view(np.float32) * np.float32(scale)).view(np.uint32).reshape(rows, 16)


def normal(random: np.random.Generator, shape: Shape) -> Floats:
    return random.standard_normal(shape).astype(np.float32)


def sparse(random: np.random.Generator, shape: Shape) -> Floats:
    """Mostly zeros, of either sign."""
    signs = random.choice(np.array([-1, 1], np.float32), shape)
    return signs * (random.random(shape) < 0.02) * normal(random, shape)


def alike(random: np.random.Generator, shape: Shape) -> Floats:
    return np.full(shape, random.standard_normal(), np.float32)


def evenly(random: np.random.Generator, shape: Shape) -> Floats:
    """Of every exponent that there is room for, to both ends."""
    exponents = random.integers(-20, -5, shape)
    return np.ldexp(1 + random.random(shape), exponents).astype(np.float32)


def whole(random: np.random.Generator, shape: Shape) -> Floats:
    """Powers of two: a mantissa of zeros, which zero has too."""
    return np.ldexp(1.0, random.integers(-10, 4, shape)).astype(np.float32)


def zeros(random: np.random.Generator, shape: Shape) -> Floats:
    return np.zeros(shape, np.float32)


def tiny(random: np.random.Generator, shape: Shape) -> Floats:
    """The smallest exponents that floats have."""
    return np.ldexp(1 + random.random(shape), -126 + random.integers(0, 12, shape)).astype("f4")


FITTING = (normal, sparse, alike, evenly, whole, zeros, tiny)
ODD = (1e30, -3e38, 1e-30, 1e-40, -1e-45, 2.0**-126, 70000.0)
"""Weights that are misfits among most others."""


@settings(max_examples=60)
@given(
    kind=st.sampled_from(FITTING),
    filters=st.integers(1, 60),
    channels=st.integers(1, 70),
    taps=st.sampled_from((1, 4, 9)),
    odd=st.integers(0, 3),
    threads=st.integers(1, 3),
    seed=st.integers(0, 999),
)
def test_each_weight_is_what_it_was(kind, filters, channels, taps, odd, threads, seed):
    """Decoded by NumPy, with the misfits put in: bit by bit, signs of zeros too."""
    random = np.random.default_rng(seed)
    weights = kind(random, (filters, channels, taps))
    blocks, rows = -(-filters // 16), -(-channels // 16) * 16 * taps
    for _ in range(min(odd, rows * 16 // 256)):
        place = tuple(random.integers(n) for n in weights.shape)
        weights[place] = random.choice(ODD)
    weights.flags.writeable = False
    block = block_floats(rows // 16, Kind.TIGHT)
    found = tightened(weights, block, threads)
    if found is None:  # the odd ones alone may be too many for a filter
        assert odd
        return
    plain = packed_weights(weights, Kind.BLOCKED, rows * 16, 1).view(np.uint32)
    plain = plain.reshape(blocks, rows, 16)
    made = np.stack(
        [decoded(found.packed[b * block :], rows, found.scale) for b in range(blocks)]
    ).copy()
    put = found.misfits
    assert not (made[put.filters // 16, put.rows, put.filters % 16] << 1).any()
    made[put.filters // 16, put.rows, put.filters % 16] = put.values.view(np.uint32)
    np.testing.assert_array_equal(made, plain)


@pytest.mark.parametrize("kind", FITTING)
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 90])
def test_tiles_read_what_was_written(kind, batch):
    """Inputs that are zeros but for a one give back a weight, exactly."""
    layer = Layer(Linear(64, bias=False), (90,), batch)
    weights = kind(np.random.default_rng(batch), (64, 90))
    weights[5, 7:9] = 1e30, 1e-40
    layer.weights["weight"] = weights
    found = []
    for first in range(0, 90, batch):
        chosen = np.arange(first, first + batch) % 90
        layer.arrays[0] = np.eye(90, dtype=np.float32)[chosen]
        found.append(layer.run(plan_tight))
        np.testing.assert_array_equal(found[-1], weights.T[chosen])


def check(layer: Layer) -> None:
    """Runs a layer and holds it to what its sums in single precision may be off by."""
    found, wanted = layer.run(plan_tight), connected(layer)
    weights = layer.weights["weight"].astype(np.float64)
    sizes = np.abs(layer.arrays[0].reshape(layer.batch, -1)) @ np.abs(weights).T
    rest = np.abs(wanted) + 2 + sum(np.abs(x) for x in layer.arrays[1:])
    terms = weights.shape[1] + 6
    assert np.all(np.abs(found - wanted) <= 2**-24 * terms * (1.01 * sizes + rest))


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(
    ("shape", "filters"),
    [((128,), 16), ((300,), 70), ((16, 5, 7), 50), ((33, 3), 1000), ((5000,), 130), ((40,), 64)],
)
def test_layers(shape: Shape, filters: int, batch: int) -> None:
    layer = Layer(Linear(filters), shape, batch, activation=Relu())
    some = layer.weights["weight"]
    some[3, 1], some[-1, -1], some[0, 0] = 7e4, -1e9, 1e-42
    check(layer)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_what_is_fused(bias: bool, residual: bool, batch: int) -> None:
    layer = Layer(Linear(40, bias=bias), (2700,), batch, residual, Relu())
    layer.weights["weight"][[2, 39], [2000, 5]] = 300, -1e5
    check(layer)


@settings(max_examples=25)
@given(
    channels=st.integers(1, 300),
    filters=st.integers(1, 200),
    size=st.sampled_from(((), (3,), (2, 5), (2, 3, 2))),
    batch=st.integers(1, 9),
    threads=st.integers(1, 3),
    residual=st.booleans(),
    seed=st.integers(0, 99),
)
def test_odd_shapes(channels, filters, size, batch, threads, residual, seed):
    op = Linear(filters)
    check(Layer(op, (channels, *size), batch, residual, threads=threads, seed=seed))


NET = "input 40x5x5; flatten -> fc(150, bias=no)"


def compiled(weights: Floats, batch: int = 1, **how: object) -> cpu.Plan:
    """A plan of a layer of 150 filters and 1000 inputs."""
    with patch.object(dense, "tight", always):
        return cpu.compile(load(NET), {"fc1.weight": weights}, batch=batch, **how)


def outputs(plan: cpu.Plan, x: Floats) -> Floats:
    return plan.run({"input": x})["fc1"]


@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_spoils_its_filter_alone(what: float) -> None:
    weights = normal(np.random.default_rng(1), (150, 1000))
    x = normal(np.random.default_rng(2), (1, 40, 5, 5))
    plain = outputs(compiled(weights), x)
    weights[3, 200] = what
    found = outputs(compiled(weights), x)
    others = np.arange(150) != 3
    np.testing.assert_array_equal(found[:, others], plain[:, others])
    wanted = what * x.reshape(-1)[200]
    np.testing.assert_array_equal(found[0, 3], wanted)


def test_threads_change_nothing() -> None:
    """A filter's sums are one thread's, whichever it is."""
    random = np.random.default_rng(5)
    weights, x = normal(random, (150, 1000)), normal(random, (3, 40, 5, 5))
    weights[::7, 13] *= 1e20
    first, *others = (outputs(compiled(weights, 3, threads=n), x) for n in (1, 2, 3))
    for other in others:
        np.testing.assert_array_equal(other, first)


def scattered(random: np.random.Generator, shape: Shape) -> Floats:
    """Of more exponents than there is room for."""
    return np.ldexp(normal(random, shape), random.integers(-30, 30, shape)).astype(np.float32)


def large(random: np.random.Generator, shape: Shape) -> Floats:
    """Too large for a power of two that is a float."""
    return normal(random, shape) * np.float32(1e10)


def one_filter(random: np.random.Generator, shape: Shape) -> Floats:
    """One filter's alone do not fit."""
    weights = normal(random, shape)
    weights[-1] *= 1e-20
    return weights


@pytest.mark.parametrize("kind", [scattered, large, one_filter])
def test_weights_that_do_not_fit_stay_floats(kind) -> None:
    random = np.random.default_rng(7)
    weights, x = kind(random, (150, 1000)), normal(random, (1, 40, 5, 5))
    plain = cpu.compile(load(NET), {"fc1.weight": weights}, batch=1)
    found = compiled(weights)
    assert found.params_bytes == plain.params_bytes
    np.testing.assert_array_equal(outputs(found, x), outputs(plain, x))


def test_they_take_less_memory() -> None:
    weights = normal(np.random.default_rng(8), (4096, 2048))
    graph, given_ = load("input 2048; fc(4096)"), {"fc1.weight": weights}
    given_["fc1.bias"] = np.zeros(4096, np.float32)
    assert 2048 * 4096 * 4 > 16 << 20
    tight_ = cpu.compile(graph, given_, batch=1, threads=2)
    with patch.object(dense, "tight", lambda task: False):
        plain = cpu.compile(graph, given_, batch=1, threads=2)
    share = tight_.params_bytes / plain.params_bytes
    # A misfit takes 8 bytes, of which there are some 1 in 10,000.
    assert 0.875 < share < 0.877


def task_of(text: str, batch: int, threads: int = 2, **how: object) -> Task:
    graph = load(text)
    (node,) = (n for n in graph if isinstance(n.op, Linear))
    task = Task(node, graph.input_shapes(node), batch, threads, False)
    return replace(task, **how)


LARGE = "input 256x6x6; flatten -> fc(4096)"


def test_large_layers_of_few_samples_have_them() -> None:
    assert factors.tight(task_of(LARGE, 1))
    assert factors.tight(task_of(LARGE, 4)) is wide()
    assert factors.tight(task_of(LARGE, 8, 8)) is wide()
    assert factors.tight(task_of(LARGE, 8, 2)) is twice()
    assert factors.tight(task_of(LARGE, 4, 1)) is twice()
    assert not factors.tight(task_of(LARGE, 8, 1))
    assert not factors.tight(task_of(LARGE, 5, 8))
    assert not factors.tight(task_of(LARGE, 16, 8))
    assert not factors.tight(task_of("input 4096; fc(1000)", 1))
    assert not factors.tight(task_of(LARGE, 1, fc_weights="int8"))
    assert not factors.tight(task_of(LARGE, 1, fc_weights="bf16"))
    assert not factors.tight(task_of(LARGE, 1, precision="bf16"))
    assert factors.tight(task_of(LARGE, 1, precision="bf16", fc_weights="fp32"))
    assert not factors.tight(task_of("input 9216; fc(4016)", 2, 8))


def test_what_is_compiled_ahead_is_what_runs_take() -> None:
    graph = load("input 32x8x8; conv1(16) -> relu -> flatten -> fc(4)")
    before = set(kernels(graph))
    with patch.object(plan, "tight", lambda task: isinstance(task.whole.base, Linear)):
        assert set(kernels(graph)) - before == {pack_tight, begin, direct_tight}


def test_a_net_gives_the_same() -> None:
    graph = load("input 20x6x6; conv3p1(64) -> relu -> flatten -> fc(2000) -> relu -> fc(64)")
    weights, inputs = drawn_weights(graph), drawn_inputs(graph, 2)
    plain = cpu.compile(graph, weights, batch=2).run(inputs)
    with patch.object(dense, "tight", always):
        found = cpu.compile(graph, weights, batch=2).run(inputs)
    for name, values in plain.items():
        scale = np.abs(values).max()
        np.testing.assert_allclose(found[name], values, rtol=0, atol=3e-6 * scale)
