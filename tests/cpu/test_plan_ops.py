"""Every op but the convolutions equals the reference, on shapes of any rank."""

from __future__ import annotations

import numpy as np
import pytest
from agree import difference, drawn_inputs, drawn_weights, padding_lanes, poison, worst
from hypothesis import given
from hypothesis import strategies as st

from netdsl import cpu
from netdsl.faults import NetError
from netdsl.lang import load
from netdsl.reference import interpret

POINTWISE = (
    "relu",
    "relu6",
    "leaky(0.1)",
    "prelu",
    "elu(0.7)",
    "gelu",
    "gelu(tanh)",
    "silu",
    "hswish",
    "sigmoid",
    "hsigmoid",
    "hsigmoid(slope=0.2, offset=0.4)",
    "tanh",
    "bn",
    "bn(affine=no)",
    "softmax",
    "log_softmax",
    "ln",
    "lrn3(beta=0.6, alpha=1)",
    "lrn4(k=1, alpha=0.5)",
    "lrn",
    "lrn40(alpha=1)",
)

shapes = st.builds(
    lambda channels, spatial: "x".join(map(str, (channels, *spatial))),
    st.integers(1, 40),
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
)
batches = st.integers(1, 3)
threads = st.integers(1, 2)


@given(st.sampled_from(POINTWISE), shapes, batches, threads)
def test_what_keeps_the_shape(word: str, shape: str, batch: int, count: int) -> None:
    assert worst(f"input {shape}; {word}", batch=batch, threads=count) < 1e-6


@given(st.sampled_from(POINTWISE), st.integers(1, 40))
def test_vectors(word: str, size: int) -> None:
    assert worst(f"input {size}; {word}") < 1e-6


@st.composite
def pools(draw: st.DrawFn) -> tuple[str, str]:
    """A shape and a pool that fits it."""
    kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    extent = dilation * (kernel - 1) + 1
    pad, stride = draw(st.integers(0, extent - 1)), draw(st.integers(1, 4))
    sizes = draw(st.lists(st.integers(extent, extent + 6), min_size=1, max_size=3))
    channels = draw(st.integers(1, 35))
    head = draw(st.sampled_from(("maxpool", "avgpool")))
    word = f"{head}{kernel}s{stride}p{pad}d{dilation}" + draw(st.sampled_from(("", "ceil")))
    if head == "avgpool" and draw(st.booleans()):
        word += "(count_pad=yes)"
    return "x".join(map(str, (channels, *sizes))), word


@given(pools(), batches, threads)
def test_sliding_pools(pool: tuple[str, str], batch: int, count: int) -> None:
    shape, word = pool
    assert worst(f"input {shape}; {word}", batch=batch, threads=count) < 1e-6


@given(shapes, st.integers(1, 5), st.sampled_from(("gap", "gmp", "avgpool(to={})")), batches)
def test_pools_to_a_size(shape: str, to: int, word: str, batch: int) -> None:
    assert worst(f"input {shape}; {word.format(to)}", batch=batch) < 1e-6


@pytest.mark.parametrize("size", [500, 1001])
def test_a_mean_of_many_keeps_its_digits(size: int) -> None:
    """Of a long row, off by half of what one sum after the other would be."""
    graph = load(f"input 64x{size}; gap")
    x = np.random.default_rng(size).random((4, 64, size), np.float32)
    found = cpu.compile(graph, {}, batch=4).run({"input": x})["gap1"][..., 0]
    wanted = x.mean(-1, dtype=np.float64)
    plain = np.add.accumulate(x, -1, dtype=np.float32)[..., -1] / np.float32(size)
    off, plainly_off = (np.sqrt(np.mean((y - wanted) ** 2)) for y in (found, plain))
    assert off < plainly_off / 2


@given(
    st.sampled_from(("in", "in(affine=no)", "gn1", "gn2", "gn4", "gn8", "gn24", "gn48")),
    st.sampled_from(("48x5x6", "48x9", "48x2x3x4")),
    batches,
    threads,
)
def test_norms_of_groups(word: str, shape: str, batch: int, count: int) -> None:
    assert worst(f"input {shape}; {word}", batch=batch, threads=count) < 1e-6


@pytest.mark.parametrize("word", ["ln", "in", "gn3"])
def test_norms_of_numbers_far_from_zero(word: str) -> None:
    # A single pass in float32 would have no digit left.
    text = f"input 9x20x20; {word}"
    x = drawn_inputs(load(text), 2)["input"] + np.float32(3000.0)
    assert worst(text, inputs={"input": x}) < 1e-6


@given(
    st.sampled_from(
        (
            "up2",
            "up3",
            "up2(bilinear)",
            "up3(bilinear)",
            "pad(2)",
            "pad(1, end=2, value=3.5)",
            "pad(0, end=1, value=-1)",
            "pad(2, mode=reflect)",
            "pad(2, mode=edge)",
            "pad(-1)",
            "shuffle(1)",
            "flatten -> relu",
            "flatten",
        )
    ),
    st.integers(1, 35),
    st.lists(st.integers(3, 6), min_size=1, max_size=3),
    batches,
)
def test_what_moves_values(word: str, channels: int, spatial: list[int], batch: int) -> None:
    shape = "x".join(map(str, (channels, *spatial)))
    assert worst(f"input {shape}; {word}", batch=batch) < 1e-6


@given(st.sampled_from((1, 2, 3, 6, 18)), st.sampled_from(("18x5", "36x3x4", "54x2x3x3")))
def test_shuffles(groups: int, shape: str) -> None:
    assert worst(f"input {shape}; shuffle({groups})") == 0.0


BRANCHES = ("id", "relu", "sigmoid", "maxpool3s1p1", "tanh -> relu", "bn", "[id | relu]")


@given(st.sampled_from("|+*"), st.lists(st.sampled_from(BRANCHES), min_size=2, max_size=4), shapes)
def test_joins(sign: str, branches: list[str], shape: str) -> None:
    if sign != "|":
        branches = [branch for branch in branches if "|" not in branch] + ["silu"]
    if len(branches) < 2:
        branches = [*branches, "tanh"]
    text = f"input {shape}; [{f' {sign} '.join(branches)}] -> relu"
    assert worst(text) < 1e-6


@pytest.mark.parametrize(
    "text",
    [
        "input 20x4x5; [id * gap]",
        "input 20x4x5; [gap * id]",
        "input 20x4x5 as a; input 1x4x5 as b; a -> [id * b]",
        "input 20x4x1 as a; input 1x4x5 as b; a -> [id * b]",
        "input 20x1x5 as a; input 20x4x1 as b; a -> [id * b * id]",
        "input 20x3x4x5 as a; input 20x3x1x5 as b; a -> [b * id * b] -> [id + id]",
    ],
)
def test_products_stretch(text: str) -> None:
    assert worst(text) < 1e-6


@pytest.mark.parametrize("word", ["maxpool2", "avgpool2", "gap", "gmp", "relu", "relu6", "sigmoid"])
def test_nan_and_infinities_come_through(word: str) -> None:
    text = f"input 17x4x4; {word}"
    x = drawn_inputs(load(text), 1)["input"]
    x[0, 0, 0, 0], x[0, 1, 1, 1], x[0, 16, 2, 2], x[0, 3, 3, 3] = np.nan, np.inf, -np.inf, np.nan
    assert worst(text, batch=1, inputs={"input": x}) < 1e-6


@pytest.mark.parametrize(
    "word", ["sigmoid", "hsigmoid", "bn", "ln", "softmax", "log_softmax", "pad(1, value=2)", "gn2"]
)
def test_lanes_past_the_channels_stay_zero(word: str) -> None:
    graph = load(f"input 18x4x4; {word}")
    plan = cpu.compile(graph, drawn_weights(graph), batch=2)
    poison(plan)
    plan.run(drawn_inputs(graph, 2))
    assert not padding_lanes(plan, graph.outputs[0]).any()


@pytest.mark.parametrize(
    "text",
    [
        "input 3x1; maxpool2d2p1",  # windows of nothing but padding
        "input 3x1; avgpool2d2p1",
        "input 8; dropout",
        "input 3x4x4; dropout -> flatten",
        "input 5x3x3; relu as r -> dropout as q; output r, q",
        "input 16x4x4; [id | relu] as j -> tanh; [j | id]",
    ],
)
def test_odd_ends(text: str) -> None:
    assert worst(text) < 1e-6


def test_several_inputs_and_outputs() -> None:
    text = "input 4x6 as a; input 3x6 as b; a -> [id | b] as c -> relu as d; output d, c, a"
    graph = load(text)
    inputs = drawn_inputs(graph, 2)
    found = cpu.compile(graph, {}, batch=2).run(inputs)
    wanted = interpret(graph, {}, inputs)
    assert list(found) == list(graph.outputs)
    assert all(difference(found[name], wanted[name]) == 0.0 for name in wanted)


def test_arrays_of_any_make_are_taken_and_left_alone() -> None:
    graph = load("input 3x4x4; relu")
    plan = cpu.compile(graph, {}, batch=2)
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).transpose(0, 3, 1, 2)
    x.flags.writeable = False
    before = x.copy()
    np.testing.assert_array_equal(plan.run({"input": x})["relu1"], np.maximum(x, 0).astype("f4"))
    np.testing.assert_array_equal(x, before)


def test_an_empty_batch_gives_empty_outputs() -> None:
    graph = load("input 3x4x4; maxpool2")
    found = cpu.compile(graph, {}, batch=0).run({"input": np.zeros((0, 3, 4, 4), np.float32)})
    assert found["maxpool1"].shape == (0, 3, 2, 2)


def test_a_wrong_shape_is_said_with_both() -> None:
    plan = cpu.compile(load("input 3x4x4; maxpool2"), {}, batch=2)
    with pytest.raises(NetError, match=r"2x3x4x5.*2x3x4x4"):
        plan.run({"input": np.zeros((2, 3, 4, 5), np.float32)})


def test_a_profile_times_every_step() -> None:
    graph = load("input 16x8x8; maxpool2 -> softmax")
    found = cpu.compile(graph, {}, batch=2).profile(drawn_inputs(graph, 2), repeats=2)
    assert [(t.name, t.word) for t in found] == [("maxpool1", "maxpool2"), ("softmax1", "softmax")]
    assert all(0 < t.least_ms <= t.ms for t in found)
