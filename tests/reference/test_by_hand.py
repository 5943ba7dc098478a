"""The reference against values worked out by hand or by loops that share nothing with it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import erf, exp, log, sqrt, tanh

import numpy as np
import pytest

import netdsl
from netdsl import NetError
from netdsl.graph import Graph, Node
from netdsl.ops import (
    AveragePool,
    BatchNorm,
    Conv,
    ConvTranspose,
    GroupNorm,
    Input,
    InstanceNorm,
    LayerNorm,
    LocalResponseNorm,
    Multiply,
    Op,
    Window,
)
from netdsl.reference import initialise, interpret
from netdsl.reference.interpret import TABLE

ONES = np.ones


def apply(op: Op, *inputs: np.ndarray, **params: np.ndarray) -> np.ndarray:
    """One op on arrays (N, C, *spatial), through the whole interpreter."""
    names = [f"x{i}" for i in range(len(inputs))]
    shapes = tuple(x.shape[1:] for x in inputs)
    nodes = [Node(n, Input(s), (), s) for n, s in zip(names, shapes, strict=True)]
    nodes.append(Node("op", op, tuple(names), op.output(shapes)))
    graph = Graph("one", tuple(nodes), tuple(names), ("op",))
    weights = {f"op.{name}": values for name, values in params.items()}
    found = interpret(graph, weights, dict(zip(names, inputs, strict=True)))["op"]
    assert found.shape == (len(inputs[0]), *op.output(shapes))
    assert found.dtype == np.float64
    return found


def word(text: str, *inputs: np.ndarray, **params: np.ndarray) -> np.ndarray:
    """A word of the language on an array."""
    net = netdsl.load(text=f"input {'x'.join(map(str, inputs[0].shape[1:]))}; {text}")
    return apply(net.graph.nodes[-1].op, *inputs, **params)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_every_op_has_its_function() -> None:
    from netdsl.ops import JOINS, OPS, AdaptiveAveragePool

    assert set(TABLE) == {*OPS, *JOINS.values(), AdaptiveAveragePool}


@pytest.mark.parametrize(
    ("op", "size", "expected"),
    [
        ("maxpool3s2ceil", 112, 56),
        ("maxpool3s2p1ceil", 112, 57),
        ("maxpool1s2ceil", 32, 16),
        ("maxpool2s3ceil", 6, 2),
    ],
)
def test_ceil_drops_windows_that_start_in_the_end_padding(
    op: str, size: int, expected: int
) -> None:
    x = np.arange(size, dtype=float).reshape(1, 1, size)
    y = word(op, x)
    assert y.shape == (1, 1, expected)
    assert np.isfinite(y).all()


def test_max_pool_pads_with_minus_infinity_and_passes_nan_on() -> None:
    x = np.array([[[-5.0, -3.0, np.nan, -1.0]]])
    y = word("maxpool2s1p1", x)
    np.testing.assert_array_equal(y, [[[-5, -3, np.nan, np.nan, -1]]])


def test_average_pool_counts_padding_only_when_told_and_never_what_is_beyond_it() -> None:
    x = np.array([[[1.0, 2.0, 3.0, 4.0, 5.0]]])
    np.testing.assert_allclose(word("avgpool3s2p1", x), [[[1.5, 3, 4.5]]])
    np.testing.assert_allclose(word("avgpool3s2p1(count_pad=yes)", x), [[[1, 3, 3]]])
    # Windows of 4 from -1, 2, 5 would read cells -1..8; padding ends at 5.
    x = np.array([[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]])
    y = word("avgpool4s3p1ceil(count_pad=yes)", x)
    np.testing.assert_allclose(y, [[[6 / 4, (3 + 4 + 5 + 6) / 4, 6 / 2]]])
    np.testing.assert_allclose(word("avgpool4s3p1ceil", x), [[[6 / 3, 18 / 4, 6]]])


def test_adaptive_pool_windows_overlap_where_sizes_do_not_divide() -> None:
    x = np.arange(5.0).reshape(1, 1, 5)
    np.testing.assert_allclose(word("avgpool(to=3)", x), [[[0.5, 2, 3.5]]])


def test_lrn_of_an_even_window_reaches_further_up() -> None:
    x = np.arange(1.0, 7.0).reshape(1, 6)
    y = apply(LocalResponseNorm(2, 1.0, 0.75, 1.0), x)
    assert y[0, 0] == pytest.approx(0.390795, abs=1e-6)
    assert y[0, 5] == pytest.approx(6 / (1 + 36 / 2) ** 0.75)


def naive_conv(x: np.ndarray, weight: np.ndarray, w: Window, groups: int) -> np.ndarray:
    """A convolution by seven loops."""
    out = w.output(x.shape[2:])
    y = np.zeros((len(x), len(weight), *out))
    each = len(weight) // groups
    for n, f, at in product(range(len(x)), range(len(weight)), product(*map(range, out))):
        for c, tap in product(range(weight.shape[1]), product(*map(range, w.kernel))):
            cell = [
                a * s + t * d - lo
                for a, s, t, d, (lo, _) in zip(
                    at, w.stride, tap, w.dilation, w.padding, strict=True
                )
            ]
            if all(0 <= i < size for i, size in zip(cell, x.shape[2:], strict=True)):
                channel = f // each * weight.shape[1] + c
                y[(n, f, *at)] += weight[(f, c, *tap)] * x[(n, channel, *cell)]
    return y


WINDOWS = [
    (1, Window((3,), (2,), ((1, 2),), (2,)), (9,)),
    (2, Window((3, 2), (1, 2), ((1, 0), (0, 1)), (1, 1)), (5, 6)),
    (2, Window((1, 1), (3, 1), ((0, 0), (0, 0)), (1, 1)), (4, 3)),
    (4, Window((2, 1, 3), (1, 2, 2), ((0, 1), (0, 0), (2, 1)), (2, 1, 1)), (4, 3, 4)),
]


@pytest.mark.parametrize(("groups", "window", "size"), WINDOWS)
def test_convolution_is_what_loops_say(groups: int, window: Window, size: tuple[int, ...]) -> None:
    x, weight = draw(2, 4, *size), draw(8, 4 // groups, *window.kernel, seed=1)
    bias = draw(8, seed=2)
    y = apply(Conv(8, window, groups), x, weight=weight, bias=bias)
    expected = naive_conv(x, weight, window, groups)
    expected += bias.reshape(1, 8, *(1 for _ in size))
    np.testing.assert_allclose(y, expected, atol=1e-12)


@pytest.mark.parametrize(("groups", "window", "size"), WINDOWS)
def test_transposed_convolution_is_the_transpose(
    groups: int, window: Window, size: tuple[int, ...]
) -> None:
    """<conv(x), y> = <x, tconv(y)> with one weight, so each follows from the other."""
    x, weight = draw(2, 4, *size), draw(8, 4 // groups, *window.kernel, seed=1)
    forward = apply(Conv(8, window, groups, bias=False), x, weight=weight)
    y = draw(*forward.shape, seed=3)
    plain = ConvTranspose(4, window, (0,) * len(size), groups, bias=False)
    short = plain.output((y.shape[1:],))[1:]
    out_pad = tuple(a - b for a, b in zip(size, short, strict=True))
    back = apply(ConvTranspose(4, window, out_pad, groups, bias=False), y, weight=weight)
    assert back.shape == x.shape
    assert (forward * y).sum() == pytest.approx((x * back).sum(), rel=1e-12)


def test_normalisations_by_their_statistics() -> None:
    x = draw(3, 4, 5, 2)
    plain = {"eps": 1e-3, "affine": False}

    def normal(values: np.ndarray) -> np.ndarray:
        return (values - values.mean()) / sqrt(values.var() + 1e-3)

    y = apply(LayerNorm(**plain), x)
    np.testing.assert_allclose(y[1], normal(x[1]))
    y = apply(InstanceNorm(**plain), x)
    np.testing.assert_allclose(y[1, 2], normal(x[1, 2]))
    y = apply(GroupNorm(**plain, groups=2), x)
    np.testing.assert_allclose(y[2, 2:], normal(x[2, 2:]))
    one = apply(GroupNorm(**plain, groups=1), x)
    np.testing.assert_allclose(one, apply(LayerNorm(**plain), x))
    each = apply(GroupNorm(**plain, groups=4), x)
    np.testing.assert_allclose(each, apply(InstanceNorm(**plain), x))


def test_batch_norm_uses_the_running_statistics() -> None:
    x = np.array([[3.0, 10.0], [5.0, 30.0]])
    y = apply(
        BatchNorm(eps=1.0),
        x,
        weight=np.array([2.0, 1.0]),
        bias=np.array([0.5, 0.0]),
        mean=np.array([1.0, 10.0]),
        var=np.array([3.0, 99.0]),
    )
    np.testing.assert_allclose(y, [[2.5, 0.0], [4.5, 2.0]])


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("relu", lambda x: max(x, 0)),
        ("relu6", lambda x: min(max(x, 0), 6)),
        ("leaky(0.2)", lambda x: x if x > 0 else 0.2 * x),
        ("elu(2)", lambda x: x if x > 0 else 2 * (exp(x) - 1)),
        ("gelu", lambda x: x * (1 + erf(x / sqrt(2))) / 2),
        ("gelu(tanh)", lambda x: x / 2 * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x**3)))),
        ("silu", lambda x: x / (1 + exp(-x))),
        ("hswish", lambda x: x * min(max(x + 3, 0), 6) / 6),
        ("sigmoid", lambda x: 1 / (1 + exp(-x))),
        ("hsigmoid", lambda x: min(max(x / 6 + 0.5, 0), 1)),
        ("hsigmoid(slope=0.2, offset=0.4)", lambda x: min(max(0.2 * x + 0.4, 0), 1)),
        ("tanh", tanh),
    ],
)
def test_activations_by_their_formulas(text: str, formula) -> None:
    values = [-20.0, -3.5, -3.0, -1.0, -0.1, 0.0, 0.3, 2.0, 3.0, 5.9, 6.1, 20.0]
    y = word(text, np.array([values]))
    np.testing.assert_allclose(y[0], [formula(v) for v in values], rtol=1e-12, atol=1e-14)


def test_sigmoid_and_softmax_of_large_numbers_stay_finite() -> None:
    x = np.array([[-800.0, 0.0, 800.0]])
    np.testing.assert_allclose(word("sigmoid", x), [[0, 0.5, 1]], atol=1e-300)
    np.testing.assert_allclose(word("softmax", x), [[0, 0, 1]], atol=1e-300)
    np.testing.assert_allclose(word("log_softmax", x), [[-1600, -800, 0]])


def test_softmax_is_over_the_channels_of_each_position() -> None:
    x = draw(2, 3, 4)
    y = word("softmax", x)
    total = sum(exp(v) for v in x[1, :, 2])
    assert y[1, 0, 2] == pytest.approx(exp(x[1, 0, 2]) / total)
    np.testing.assert_allclose(word("log_softmax", x), np.log(y))
    assert word("log_softmax", x)[0, 1, 3] == pytest.approx(
        x[0, 1, 3] - log(sum(exp(v) for v in x[0, :, 3]))
    )


def test_prelu_has_a_slope_a_channel() -> None:
    x = np.array([[[-1.0, 2.0], [-1.0, 2.0]]])
    y = word("prelu", x, weight=np.array([0.5, 3.0]))
    np.testing.assert_array_equal(y, [[[-0.5, 2], [-3, 2]]])


def test_fc_flattens_channel_by_channel() -> None:
    x = draw(2, 3, 2, 2)
    weight, bias = draw(5, 12, seed=1), draw(5, seed=2)
    y = word("fc(5)", x, weight=weight, bias=bias)
    assert y[1, 3] == pytest.approx(
        sum(a * b for a, b in zip(weight[3], x[1].flat, strict=True)) + bias[3]
    )


def test_upsampling() -> None:
    x = np.array([[[1.0, 3.0]]])
    np.testing.assert_array_equal(word("up3", x), [[[1, 1, 1, 3, 3, 3]]])
    np.testing.assert_allclose(word("up2(bilinear)", x), [[[1, 1.5, 2.5, 3]]])


def test_padding_and_cropping() -> None:
    x = np.array([[[1.0, 2.0, 3.0, 4.0]]])
    np.testing.assert_array_equal(word("pad(1, value=9)", x), [[[9, 1, 2, 3, 4, 9]]])
    np.testing.assert_array_equal(word("pad(2, mode=reflect)", x), [[[3, 2, 1, 2, 3, 4, 3, 2]]])
    np.testing.assert_array_equal(word("pad(1, end=2, mode=edge)", x), [[[1, 1, 2, 3, 4, 4, 4]]])
    np.testing.assert_array_equal(word("pad(-1, end=1)", x), [[[2, 3, 4, 0]]])


def test_shuffle_transposes_the_groups() -> None:
    x = np.arange(6.0).reshape(1, 6, 1)
    np.testing.assert_array_equal(word("shuffle(2)", x).ravel(), [0, 3, 1, 4, 2, 5])


def test_a_product_stretches_axes_of_one() -> None:
    x, gate = draw(2, 3, 4, 4), draw(2, 3, 1, 1, seed=1)
    np.testing.assert_array_equal(apply(Multiply(), x, gate), x * gate)


@pytest.mark.parametrize(
    "text",
    ["conv3p1(4) -> bn -> relu", "maxpool2ceil", "avgpool(to=2) -> flatten -> fc(3) -> softmax",
     "tconv2s2(2) -> ln -> gmp", "gn3 -> lrn -> gelu", "up2(bilinear) -> pad(1, mode=reflect)",
     "[in | prelu] -> shuffle(2) -> gap", "dropout -> log_softmax"],
)  # fmt: skip
def test_no_samples_give_no_results(text: str) -> None:
    graph = netdsl.load(text=f"input 3x5x5; {text}").graph
    found = interpret(graph, initialise(graph), {"input": np.zeros((0, 3, 5, 5))})
    output = graph.outputs[0]
    assert found[output].shape == (0, *graph[output].shape)


def test_what_is_kept_and_what_the_heads_give() -> None:
    text = "input 4; fc(3) as a -> aux(weight=0.3) { fc(2) } -> relu -> fc(1)"
    graph = netdsl.load(text=text).graph
    weights, x = initialise(graph), {"input": draw(2, 4)}
    assert set(interpret(graph, weights, x)) == {"fc2"} == set(graph.outputs)
    head = graph.aux[0].output
    assert set(interpret(graph, weights, x, aux=True)) == {"fc2", head}
    kept = interpret(graph, weights, x, keep=["relu1", graph.names["a"]])
    np.testing.assert_array_equal(kept["relu1"], np.maximum(kept[graph.names["a"]], 0))
    del weights[f"{head}.weight"]
    interpret(graph, weights, x)
    with pytest.raises(NetError, match=f"lack {head}.weight"):
        interpret(graph, weights, x, aux=True)


def test_weights_of_a_wrong_shape_are_refused() -> None:
    graph = netdsl.load(text="input 4; fc(3)").graph
    weights: Mapping[str, np.ndarray] = {"fc1.weight": ONES((4, 3)), "fc1.bias": ONES(3)}
    with pytest.raises(NetError, match=r"fc1.weight has shape 4x3, .* takes 3x4"):
        interpret(graph, weights, {"input": draw(1, 4)})


def test_an_average_of_a_window_is_the_same_by_a_convolution() -> None:
    w = Window((3, 2), (2, 1), ((1, 1), (0, 1)), (1, 1))
    x = draw(2, 3, 7, 5)
    counted = apply(AveragePool(w, count_pad=True), x)
    weight = np.full((3, 1, 3, 2), 1 / 6)
    np.testing.assert_allclose(counted, apply(Conv(3, w, 3, bias=False), x, weight=weight))
