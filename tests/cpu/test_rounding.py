"""bfloat16: what is rounded is rounded right, and nothing else is.

A layer's outputs are compared with sums in double precision of what was rounded as they say it is,
so that only the errors of float32's sums are left; and with those of what was not rounded, from
which they are as far as two factors rounded by 2^-9 each can be.
"""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from agree import drawn_inputs, drawn_weights, poison, worst
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_plan_nets import NETS

from netdsl import cpu
from netdsl.cpu import choices, costs, factors, plan, table, thirds
from netdsl.cpu.arena import kernels
from netdsl.cpu.direct import direct_short
from netdsl.cpu.layout import aligned, fresh, image
from netdsl.cpu.matrix import matrix
from netdsl.cpu.micro import Kind, dots, matrices
from netdsl.cpu.pack import pack_pairs
from netdsl.cpu.rounding import buffer_of, round_blocks, round_planes, round_wide
from netdsl.cpu.views import call, link
from netdsl.graph import Graph
from netdsl.lang import load
from netdsl.reference import interpret

Floats = NDArray[np.float32]
ROUNDING = 2.0**-8


KINDS = {"pairs": Kind.PAIRED, "weights": Kind.HALVED, "floats": Kind.BLOCKED}
ROUNDED = ["matrices"] * matrices() + ["pairs"] * dots() + ["weights"]
"""The ways that this CPU may round by."""


@pytest.fixture(params=["matrices", *KINDS])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ways that a CPU may do it: with products of matrices or of pairs, with weights alone
    rounded, or with floats where those are faster."""
    way = str(request.param)
    if way == "matrices" and not matrices():
        pytest.skip("this CPU has no AMX, or the system gives no leave to use it")
    if way == "pairs" and not dots():
        pytest.skip("this CPU has no AVX512-BF16")
    force(monkeypatch, way)
    return way


def force(patch: pytest.MonkeyPatch, way: str) -> None:
    """Has all layers done so, whatever this CPU is faster with."""
    for module in (table, factors):
        patch.setattr(module, "dots", lambda: way in ("matrices", "pairs"))
    for module in (plan, table, choices, factors, thirds):
        patch.setattr(module, "matrices", lambda: way == "matrices")
    if way in KINDS:
        patch.setattr(factors, "cheapest", lambda task: KINDS[way])
        patch.setattr(factors, "floats_pay", lambda: way == "floats")


def half(x: Floats) -> Floats:
    """Rounded to bfloat16, by arithmetic: the last 16 bits of the significand go."""
    scale = np.float64(2.0) ** (np.frexp(x)[1] - 8)
    return (np.round(x.astype(np.float64) / scale) * scale).astype(np.float32)


def bits(x: Floats) -> NDArray[np.uint16]:
    """The upper halves of finite floats that were rounded."""
    return (half(x).view(np.uint32) >> 16).astype(np.uint16)


def awkward() -> Floats:
    """Numbers of all sizes and signs, and ties of both kinds."""
    random = np.random.default_rng(0)
    every = random.integers(0, 0x7F00, 4096).astype(np.uint32) << 16
    every = np.concatenate([every | low for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)])
    positive = every[(every >> 23) > 0].view(np.float32)
    return np.concatenate([positive, -positive])[: 16 * 2048]


def test_rounding_is_to_nearest_and_to_even() -> None:
    x = awkward()
    source = fresh(1, (16, x.size // 16))

    target = buffer_of((16, x.size // 16), 8, 1, source.halo).at(x.size)
    arena = aligned(x.size + target.floats)
    arena[: x.size] = x
    kernel, d = link(call(round_blocks, 2, target, source))
    kernel(arena, arena, d)
    found = arena[x.size :].view(np.uint16)
    np.testing.assert_array_equal(found, bits(x))


def test_what_is_no_number_stays_so() -> None:
    x = np.array([np.nan, -np.nan, np.inf, -np.inf, 3.4e38, 0.0, -0.0, 1e-40] * 2, np.float32)
    x[8:].view(np.uint32)[:2] = [0x7F800001, 0xFFFFFFFF]
    source = fresh(1, (16, 1))
    target = buffer_of((16, 1), 8, 1, source.halo).at(16)
    arena = aligned(32)
    arena[:16] = x
    kernel, d = link(call(round_blocks, 1, target, source))
    kernel(arena, arena, d)
    found = (arena[16:24].view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    assert np.isnan(found[[0, 1, 8, 9]]).all()
    np.testing.assert_array_equal(found[2:7], [np.inf, -np.inf, np.inf, 0.0, 0.0])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_planes_of_pairs(channels: int) -> None:
    shape = (channels, 3, 21)
    x = np.random.default_rng(channels).standard_normal((2, *shape), np.float32)
    source = fresh(2, shape, lanes=1)

    target = buffer_of(shape, 1, 2, source.halo).at(-(-source.floats // 16) * 16)
    arena = aligned(target.offset + target.floats)
    image(arena, source)[...] = x[:, :, None, :, :, None]
    kernel, d = link(call(round_planes, 2, target, source))
    kernel(arena, arena, d)
    found = np.ascontiguousarray(image(arena, target)[:, :, 0, :, :, 0]).view(np.uint16)
    pairs = found.reshape(2, -1, 3, 21, 2)
    for c in range(pairs.shape[1] * 2):
        wanted = bits(x[:, c]) if c < channels else 0
        np.testing.assert_array_equal(pairs[:, c // 2, ..., c % 2], wanted)


def sizes(graph: Graph, weights: dict[str, Floats], inputs: dict[str, Floats]) -> Floats:
    """The sums of the products' sizes: what errors are measured by."""
    weights = {name: np.abs(w) for name, w in weights.items()}
    inputs = {name: np.abs(x) for name, x in inputs.items()}
    return next(iter(interpret(graph, weights, inputs).values()))


def check(text: str, batch: int, way: str) -> list[str]:
    """Runs one layer, holds its outputs to both bounds, and gives the words of its steps."""
    graph = load(text)
    weights, inputs = drawn_weights(graph), drawn_inputs(graph, batch)
    with pytest.MonkeyPatch.context() as patch:
        # By direct sums: what Winograd's algorithm does stays in single precision.
        patch.setattr(choices, "_sizes", lambda op, channels: [])
        made = cpu.compile(graph, weights, batch=batch, precision="bf16")
    poison(made)
    found = next(iter(made.run(inputs).values()))
    words = [step.word for step in made.steps]
    name, node = next((n.name, n) for n in graph if graph.parameters(n))
    plain = next(iter(interpret(graph, weights, inputs).values()))
    seen, used = dict(inputs), dict(weights)
    if "to bf16" in words:
        seen = {n: half(x) for n, x in inputs.items()}
    # What is read in planes, and not in pairs, keeps its weights.
    floats = way == "floats" or graph[graph.inputs[0]].shape[0] <= costs.PLANAR
    if "to bf16" in words or not floats:
        used[f"{name}.weight"] = half(weights[f"{name}.weight"])
    exact = next(iter(interpret(graph, used, seen).values()))
    size = sizes(graph, weights, inputs)
    terms = prod(weights[f"{name}.weight"].shape[1:]) + 2
    # An error of every sum so far, at each step; what two steps round at once, a pair does.
    assert np.all(np.abs(found - exact) <= 2**-24 * terms * 1.02 * size + 1e-30), node.op.word()
    assert np.all(np.abs(found - plain) <= (2.01 * ROUNDING + 2**-24 * terms) * size)
    return words


LAYERS = [
    "input 20x9x11; conv1(33)",
    "input 32x8x8; conv1(64, bias=no)",
    "input 33x15x14; conv3s2p1(20)",
    "input 16x13x13; conv3p2d2(16)",
    "input 64x12x12; conv3s2p1g4(64)",
    "input 24x7x7; conv3s2p1g6(36)",
    "input 3x23x21; conv7s2p3(40)",
    "input 1x19x19; conv5s3(17)",
    "input 20x50; conv5s2(30)",
    "input 18x4x9x9; conv3s2p1(20)",
    "input 600x5x5; conv1(40)",
    "input 300; fc(70)",
    "input 20x5x7; flatten -> fc(50)",
]


@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("text", LAYERS)
def test_layers(text: str, batch: int, way: str) -> None:
    words = check(text, batch, way)
    alone = way in ("weights", "floats") or ("fc" in text and batch == 1)
    assert ("to bf16" in words) is not alone


def test_long_sums_in_parts(way: str) -> None:
    """More terms than are summed at once, which pass through the output in single precision."""
    check("input 1200x4x4; flatten -> fc(40)", 6, way)
    check("input 1200x4x4; flatten -> fc(40)", 1, way)


@settings(max_examples=25)
@given(
    channels=st.integers(1, 40),
    filters=st.integers(1, 70),
    size=st.tuples(st.integers(5, 17), st.integers(5, 17)),
    kernel=st.sampled_from(("1", "1s2", "3s2p1", "2", "2s2", "5s2p2", "1x5s2")),
    batch=st.integers(1, 3),
    way=st.sampled_from(ROUNDED),
)
def test_odd_shapes(
    channels: int, filters: int, size: tuple[int, int], kernel: str, batch: int, way: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        force(patch, way)
        check(f"input {channels}x{size[0]}x{size[1]}; conv{kernel}({filters})", batch, way)


@pytest.mark.parametrize("name", NETS)
def test_small_nets(name: str, way: str) -> None:
    """Every kernel beside, fused and in place, in memory where nothing was written; the bound is
    what a handful of layers of rounded factors add up to."""
    assert 0 < worst(NETS[name], batch=2, precision="bf16") < 2e-2


def test_a_tensor_is_rounded_once_for_all_that_read_it(way: str) -> None:
    graph = load("input 32x9x9; [conv1(16) | conv1(16) | maxpool3s1p1 -> conv1(16)]")
    plan = cpu.compile(graph, drawn_weights(graph), batch=1, precision="bf16")
    rounded = [step.word for step in plan.steps].count("to bf16")
    # With products of matrices, the pool reads and writes what is rounded.
    assert rounded == {"floats": 0, "weights": 0, "pairs": 2, "matrices": 1}[way]


def test_winograd_and_depthwise_layers_stay_as_they_are(way: str) -> None:
    """Where the CPU multiplies matrices, direct sums are faster than Winograd's."""
    first = "" if way == "matrices" else "conv3p1(64) -> relu -> "
    text = f"input 64x30x30; {first}dwconv3p1 -> relu"
    assert worst(text, precision="bf16") == worst(text)


def test_rounded_weights_take_half_the_memory(way: str) -> None:
    graph = load("input 256x8x8; conv1(256) -> relu -> flatten -> fc(64)")
    whole, less = (
        cpu.compile(graph, drawn_weights(graph), batch=8, precision=precision).params_bytes
        for precision in ("fp32", "bf16")
    )
    assert less == whole if way == "floats" else less < 0.51 * whole


def test_what_is_compiled_ahead_is_what_runs_take() -> None:
    graph = load("input 32x8x8; conv1(16) -> relu -> flatten -> fc(4)")
    plain, less = (set(kernels(graph, precision)) for precision in ("fp32", "bf16"))
    assert {pack_pairs, direct_short} <= less - plain
    assert (round_blocks in less) is (dots() and (matrices() or not factors.floats_pay()))
    assert ({matrix, round_wide} <= less) is matrices()
