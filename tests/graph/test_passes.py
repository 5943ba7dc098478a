"""Passes keep what a network computes, and drop what does nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from netdsl.graph import Graph
from netdsl.graph.fused import Fused, fuse, fuse_pools
from netdsl.graph.lifetimes import Lifetime, inner, lifetimes, lowest
from netdsl.graph.passes import fold_batch_norm, without_dropout, without_flatten
from netdsl.lang import load
from netdsl.ops import Activation, Add, Conv, Op, Relu
from netdsl.reference import interpret


def drawn(graph: Graph) -> dict[str, np.ndarray]:
    """Weights at no value that hides a mistake."""
    random = np.random.default_rng(0)
    return {
        name: random.uniform(0.5, 2.0, what.shape).astype(np.float32)
        for name, what in graph.all_parameters().items()
    }


def heads(graph: Graph) -> list[str]:
    return [node.op.head for node in graph]


@pytest.mark.parametrize(
    "layer",
    [
        "conv3p1(6)",
        "conv3p1(6, bias=no)",
        "conv3p1g2(6)",
        "dwconv3",
        "tconv2s2(6)",
        "tconv2s2g2(6, bias=no)",
        "fc(6)",
        "fc(6, bias=no)",
    ],
)
@pytest.mark.parametrize("norm", ["bn", "bn(affine=no, eps=0.1)"])
def test_a_folded_batch_norm_computes_the_same(layer: str, norm: str) -> None:
    graph = load(f"input 4x5x6; {layer} -> {norm} -> relu")
    weights = drawn(graph)
    x = {"input": np.random.default_rng(1).normal(size=(2, 4, 5, 6)).astype(np.float32)}
    folded, fresh = fold_batch_norm(graph, weights)
    assert "bn" not in heads(folded)
    before, after = interpret(graph, weights, x)["relu1"], interpret(folded, fresh, x)["relu1"]
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    assert set(fresh) >= set(folded.all_parameters())


def test_a_batch_norm_stays_where_its_layer_is_read_elsewhere_or_shown() -> None:
    read = load("input 4x5x5; conv3p1(4) as c -> bn -> relu; [id + c]")
    assert "bn" in heads(fold_batch_norm(read, drawn(read))[0])
    shown = load("input 4x5x5; conv3p1(4) as c -> bn as b; output b, c")
    assert "bn" in heads(fold_batch_norm(shown, drawn(shown))[0])
    first = load("input 4x5x5; bn -> conv3p1(4)")
    assert "bn" in heads(fold_batch_norm(first, drawn(first))[0])


def test_folding_leaves_the_given_weights_alone() -> None:
    graph = load("input 4x5x5; conv3(4) -> bn")
    weights = drawn(graph)
    before = {name: values.copy() for name, values in weights.items()}
    fold_batch_norm(graph, weights)
    for name, values in before.items():
        np.testing.assert_array_equal(weights[name], values)


def test_a_norms_weights_are_made_when_asked_for_and_told_of() -> None:
    graph = load("input 4x5x5; conv3(4, bias=no) -> bn -> conv3(4)")
    weights, used = drawn(graph), []
    _, fresh = fold_batch_norm(graph, weights, used.append)
    assert "conv1.bias" in fresh
    assert len(fresh) == len(set(fresh)) == len(weights) + 1
    assert used == []
    first, second = fresh["conv1.weight"], fresh["conv1.weight"]
    np.testing.assert_array_equal(first, second)
    assert first is not second
    assert [array is weights["conv1.weight"] for array in used] == [True, True]
    assert fresh["conv2.weight"] is weights["conv2.weight"]


def test_dropout_goes_and_labels_and_outputs_follow() -> None:
    graph = load("input 8; fc(4) as a -> dropout as b -> relu -> dropout")
    slim = without_dropout(graph)
    assert heads(slim) == ["input", "fc", "relu"]
    assert slim.outputs == ("relu1",)
    assert slim.names["b"] == "a"


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("input 4x5x5; flatten -> fc(3)", False),
        ("input 4x5x5; gap -> flatten -> softmax", False),
        ("input 4x5x5; relu -> flatten", False),
        ("input 4x5x5; flatten -> softmax", True),
        ("input 4x5x5; flatten as f -> fc(3); [f | fc(3)]", True),
    ],
)
def test_a_flatten_goes_where_it_moves_nothing(text: str, stays: bool) -> None:
    graph = load(text)
    assert ("flatten" in heads(without_flatten(without_dropout(graph)))) is stays


def all_of(base: Op, residual: bool, activation: Activation | None) -> bool:
    """A device whose convolutions take all, its sums a relu."""
    if isinstance(base, Add):
        return not residual and isinstance(activation, Relu)
    return isinstance(base, Conv)


def test_a_layer_takes_its_activation() -> None:
    graph = fuse(load("input 3x8x8; conv3(4) -> relu -> maxpool2"), all_of)
    assert heads(graph) == ["input", "fused", "maxpool"]
    whole = graph["relu1"].op
    assert isinstance(whole, Fused)
    assert (whole.source, whole.members, whole.residual) == ("conv1", ("conv1", "relu1"), False)
    assert whole.activation == Relu()
    assert whole.word() == "conv3x3(4) -> relu"
    assert whole.macs(graph.input_shapes(graph["relu1"])) == 4 * 36 * 27


def test_the_later_layer_of_a_sum_takes_the_other_and_the_activation() -> None:
    text = "input 4x8x8; [conv3p1(4) -> conv3p1(4) + conv1x1(4)] -> relu"
    graph = fuse(load(text), all_of)
    assert heads(graph) == ["input", "conv", "conv", "fused"]
    node = graph["relu1"]
    assert isinstance(node.op, Fused)
    assert node.op.residual
    assert node.op.members == ("conv3", "add1", "relu1")
    assert node.inputs == ("input", "conv2")
    assert graph.parameters(node) == load(text).parameters(load(text)["conv3"])


@pytest.mark.parametrize(
    "text",
    [
        "input 4x8x8; conv3p1(4) as c -> relu as r; output c, r",
        "input 4x8x8; conv3p1(4) as c -> relu -> [id | c]",
        "input 4x8x8; conv3p1(4) as c; [c + c]",
        "input 4x8x8; [conv3p1(4) as c -> sigmoid | c]",
    ],
)
def test_what_is_read_elsewhere_is_not_fused(text: str) -> None:
    assert "fused" not in heads(fuse(load(text), all_of))


def test_a_layer_takes_the_pool_after_its_activation() -> None:
    graph = fuse(load("input 3x8x8; conv3(4) -> relu -> maxpool2 -> maxpool2"), all_of)
    whole = fuse_pools(graph, lambda graph, layer, pool: "fused" in layer.op.heads)
    assert heads(whole) == ["input", "fused", "maxpool"]
    (op,) = [node.op for node in whole if isinstance(node.op, Fused)]
    assert (op.members, op.word()) == (
        ("conv1", "relu1", "maxpool1"),
        "conv3x3(4) -> relu -> maxpool2",
    )


def test_a_sum_of_three_keeps_apart_from_its_layers() -> None:
    graph = fuse(load("input 4x8x8; [conv1x1(4) + conv1x1(4) + id] -> relu"), all_of)
    assert heads(graph) == ["input", "conv", "conv", "fused"]
    assert isinstance(graph.nodes[-1].op.base, Add)  # type: ignore[attr-defined]


def test_lifetimes_reach_to_the_last_reader() -> None:
    graph = load("input 4x8x8; relu as a -> tanh -> [id | a] -> gap")
    life = lifetimes(graph)
    order = [node.name for node in graph]
    assert life["input"] == Lifetime(-1, order.index("a"))
    assert life["a"] == Lifetime(order.index("a"), order.index("concat1"))
    assert life["gap1"].dies == len(graph)
    assert life["a"].overlaps(life["tanh1"])
    assert not life["input"].overlaps(life["tanh1"])
    shown = replace(graph, outputs=("a",))
    assert lifetimes(shown)["a"].dies == len(graph)


def test_nodes_computed_at_once_are_alive_together() -> None:
    graph = load("input 3x8x8; conv3p1(4) as a -> conv3p1(4) as b -> conv3p1(4) as c -> relu as d")
    life = lifetimes(graph, [("a", "b", "c")])
    assert life["input"] == (-1, 3)
    assert life["a"] == life["b"] == (1, 3)
    assert life["c"] == (1, 4)
    assert life["d"].born == 4


def test_what_goes_in_and_out_of_turns_is_alive_in_all_of_them() -> None:
    graph = load(
        "input 4x8x8; relu as a -> tanh as b -> sigmoid as c -> [id | b] as d -> relu as e -> gap"
    )
    life, whole = lifetimes(graph, by_turns=[("b", "c", "d")]), lifetimes(graph)
    order = [node.name for node in graph]
    assert life["a"] == (order.index("a"), order.index("d"))
    assert life["d"] == (order.index("b"), order.index("e"))
    for name in ("b", "c", "e"):
        assert life[name] == whole[name]
    assert inner(graph, ("b", "c", "d")) == {"b", "c"}
    assert inner(replace(graph, outputs=("b",)), ("b", "c", "d")) == {"c"}


def test_the_lowest_place_is_free_and_none_below_it_is() -> None:
    """Beside every place tried in turn, with stretches that overlap and touch."""
    random = np.random.default_rng()
    for _ in range(200):
        lows, sizes = random.integers(0, 30, 4), random.integers(1, 9, 4)
        taken = [(int(low), int(low + size)) for low, size in zip(lows, sizes, strict=True)]
        size, start = int(random.integers(1, 9)), int(random.integers(0, 20))
        free = (
            at
            for at in range(start, 60)
            if all(at + size <= low or high <= at for low, high in taken)
        )
        assert lowest(taken, size, start) == next(free), (taken, size, start)
