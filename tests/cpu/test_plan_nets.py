"""Small whole nets with every fusion equal the reference, in memory where nothing was written."""

from __future__ import annotations

import numpy as np
import pytest
from agree import drawn_inputs, drawn_weights, poison, worst
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netdsl import cpu
from netdsl.cpu import place
from netdsl.cpu.layout import Halo
from netdsl.faults import NetError
from netdsl.graph.fused import Fused
from netdsl.lang import load

NETS = {
    "plain": """
        input 3x17x19
        conv3p1(20) -> relu -> maxpool2 -> conv5p2(33) -> relu6 -> gap -> fc(7)
    """,
    "flattened": """
        input 3x9x9
        conv3(20) -> relu -> maxpool2
        flatten -> fc(40) -> relu -> dropout -> fc(5) -> softmax
    """,
    "residual": """
        input 3x12x12
        every conv(bias=no) -> bn
        conv3p1(32) -> relu
        [conv3p1(32) -> relu -> conv3p1(32) + id] -> relu
        [conv3s2p1(48) -> relu -> conv3p1(48) + conv1s2(48)] -> relu
        gap
    """,
    "added to its input": """
        input 3x9x8
        [conv3p1(3) + id] -> relu -> conv1(4)
    """,
    "inception": """
        input 16x9x9
        every conv -> relu
        [conv1(16) | conv1(12) -> conv3p1(32) | conv1(8) -> conv5p2(20) | maxpool3s1p1 -> conv1(16)]
        [conv3p1(16) | avgpool3s1p1]
        bare conv1(4)
    """,
    "dense": """
        input 32x8x8
        def layer = [id | bn -> relu -> conv1(24) -> bn -> relu -> conv3p1(16)]
        layer x2 -> bn -> relu
        gap -> fc(3)
    """,
    "unet": """
        input 1x16x16
        every conv -> relu
        conv3p1(16) as a -> maxpool2 -> conv3p1(32) as b -> maxpool2 -> conv3p1(64)
        [b | tconv2s2(32)] -> conv3p1(32)
        [a | tconv2s2(16)] -> conv3p1(16) -> bare conv1(2)
    """,
    "mobile": """
        input 24x10x10
        every conv(bias=no) -> bn
        every dwconv(bias=no) -> bn
        [id + conv1(40) -> relu6 -> dwconv3p1 -> relu6 -> conv1(24)]
        dwconv3s2p1 -> hswish -> conv1g4(48) -> shuffle(4)
    """,
    "gates": """
        input 20x8x8
        conv3p1(20) -> silu
        [id * gap -> conv1(4) -> relu -> conv1(20) -> sigmoid] -> gelu
    """,
    "sound": """
        input 1x400
        conv16s4(20) -> bn -> relu -> maxpool4
        conv3p1(30) -> in -> leaky(0.2) -> gap -> fc(4)
    """,
    "video": """
        input 3x6x14x14
        conv3p1(20) -> relu -> maxpool1x2x2
        conv3s2p1(33) -> gn3 -> relu -> gap -> fc(4)
    """,
    "responses": """
        input 3x24x24
        conv5s2p2(24) -> relu -> lrn -> maxpool3s2ceil
        conv3p1g2(32) -> relu -> lrn(k=1)
    """,
    "upward": """
        input 12x5x5
        tconv4s2p1(20, bias=no) -> bn -> relu -> up2
        conv3p1(9) -> tanh -> pad(1, mode=reflect) -> conv3(3)
    """,
    "slopes": """
        input 12x6x6
        conv3p1(20) -> prelu -> conv3p1(20) -> elu -> conv1(5) -> log_softmax
    """,
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("batch", [1, 3])
def test_small_nets(name: str, batch: int) -> None:
    assert worst(NETS[name], batch=batch) < 2e-5


@pytest.mark.parametrize("name", ["residual", "inception", "unet", "plain"])
def test_exactly(name: str) -> None:
    assert worst(NETS[name], exact=True, threads=1) < 5e-6


def test_auxiliary_heads_when_asked() -> None:
    text = (
        "input 3x12x12; conv3p1(20) -> relu -> aux(weight=0.3) { gap -> fc(4) } -> conv3(8) -> gap"
    )
    assert worst(text, aux=True) < 1e-5
    graph = load(text)
    weights = drawn_weights(graph)
    without = {name: w for name, w in weights.items() if not name.startswith("aux")}
    plan = cpu.compile(graph, without, batch=1)
    assert [port.name for port in plan.outputs] == list(graph.outputs)


def steps(text: str) -> list[str]:
    graph = load(text)
    return [step.word for step in cpu.compile(graph, drawn_weights(graph), batch=1).steps]


def test_norms_sums_and_activations_cost_no_step() -> None:
    assert len(steps(NETS["residual"])) == 7
    assert steps(NETS["residual"])[2] == "conv3x3p1(32) -> + -> relu"


def test_concatenations_cost_no_step_where_channels_fill_blocks() -> None:
    words = steps("input 16x6x6; [conv1x1(16) | conv3p1(32) | maxpool3s1p1] -> gap")
    assert words == ["conv1x1(16)", "conv3x3p1(32)", "maxpool3s1p1", "gap"]
    assert "concat" in steps("input 16x6x6; [conv1x1(10) | conv3p1(32)] -> gap")


def test_a_dense_block_lies_in_one_buffer() -> None:
    graph = load(NETS["dense"])
    plan = cpu.compile(graph, drawn_weights(graph), batch=1)
    first, last = (node.name for node in graph if node.op.head == "concat")
    places = {plan.placement.buffers[name].offset for name in ("input", first, last)}
    assert len(places) == 1
    assert not any(step.word == "concat" for step in plan.steps)


@st.composite
def nets(draw: st.DrawFn) -> str:
    """A random chain of layers, skips and brackets on a small image."""
    layers = st.sampled_from(
        (
            "conv3p1(16)",
            "conv1x1(20)",
            "conv3p1(16) -> relu",
            "conv3p1 -> bn -> relu",
            "dwconv3p1",
            "relu",
            "sigmoid",
            "maxpool3s1p1",
            "avgpool3s1p1",
            "bn -> relu",
            "lrn",
            "tconv3p1(16) -> relu",
            "[id + conv3p1] -> relu",
            "[conv1x1 + conv3p1 -> relu]",
            "[id | conv1x1(16)]",
            "[conv1x1(16) | id | relu]",
            "[id | id]",
            "[id * gap -> sigmoid]",
            "[relu + id + tanh]",
        )
    )
    chain = draw(st.lists(layers, min_size=2, max_size=7))
    labelled = draw(st.integers(0, len(chain) - 1))
    chain[labelled] += " as t"
    ending = draw(st.sampled_from(("", "; [id | t]", "; output t, {}", "; [id | t] -> conv3p1(5)")))
    channels = draw(st.sampled_from((3, 16, 20, 32)))
    text = f"input {channels}x5x6; " + " -> ".join(chain)
    if "output" in ending:
        return f"{text} as last; output t, last" if labelled < len(chain) - 1 else text
    return text + ending


@settings(max_examples=60)
@given(nets(), st.integers(1, 2))
def test_any_net(text: str, batch: int) -> None:
    assert worst(text, batch=batch) < 5e-5


def test_an_input_that_is_added_to_what_is_made_of_it_lies_in_blocks() -> None:
    assert worst("input 3x5x6; [id + conv3p1] -> relu -> conv3p1(16)") < 5e-5
    assert worst("input 3x9x8; [conv3p1 + id] -> relu -> maxpool2") < 5e-5


def test_memory_is_used_again() -> None:
    graph = load("input 16x32x32; " + " -> ".join(["conv3p1(16) -> relu"] * 12))
    plan = cpu.compile(graph, drawn_weights(graph), batch=1, exact=True)
    image = plan.placement.buffers["relu2"].floats * 4
    assert plan.arena_bytes < 3.5 * image
    assert plan.placement.buffers["relu2"].halo != Halo()


DEEPER = "input 3x20x23; conv3p1(16) -> relu -> conv3p1(20) -> maxpool2 -> conv5p2(32) -> relu"
SHAPES = {
    "a row": f"{DEEPER} -> maxpool2s1 -> conv3p1(16) -> relu -> conv3p1(7) -> gap",
    "joined": f"{DEEPER} -> [conv3p1(16) | conv1x1(32) -> conv3p1(16)] -> conv5p2(18) -> conv3p1",
    "back up": f"{DEEPER} -> conv3p1(32) as c -> up2 -> conv3p1(16) -> [id | tanh] -> conv3p1(5)",
    "a volume": "input 4x8x12x11; conv3x3x3p1(32) -> relu -> maxpool2 -> conv3x3x3p1(16) -> "
    "maxpool2 -> conv3x3x3p1(16) -> conv3x3x3p1(8)",
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", SHAPES)
def test_memory_is_shared_where_halos_are_cleared(
    name: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = load(SHAPES[name])
    apart = cpu.compile(graph, drawn_weights(graph), batch=batch, exact=True)
    monkeypatch.setattr(place, "SHARED", 0)
    monkeypatch.setattr(place, "FRAME", 1.0)
    plan = cpu.compile(graph, drawn_weights(graph), batch=batch, exact=True)
    assert len(plan.placement.cleared) > 2
    assert plan.arena_bytes < apart.arena_bytes
    assert worst(SHAPES[name], batch=batch, exact=True) < 5e-5
    assert worst(SHAPES[name], batch=batch) < 5e-5


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nets(), st.integers(1, 2))
def test_any_net_shares_memory(monkeypatch: pytest.MonkeyPatch, text: str, batch: int) -> None:
    monkeypatch.setattr(place, "SHARED", 0)
    monkeypatch.setattr(place, "FRAME", 1.0)
    assert worst(text, batch=batch) < 5e-5


def test_a_plan_too_large_is_refused() -> None:
    graph = load("input 64x512x512; relu")
    with pytest.raises(NetError, match="100000 samples at once needs"):
        cpu.compile(graph, {}, batch=100_000)


def test_missing_weights_are_named() -> None:
    graph = load("input 3x5x5; conv3(4)")
    with pytest.raises(NetError, match=r"conv1\.weight"):
        cpu.compile(graph, {}, batch=1)


def test_fused_layers_keep_their_layers_name() -> None:
    graph = load("input 3x5x5; conv3(4) -> bn -> relu")
    (step,) = cpu.compile(graph, drawn_weights(graph), batch=1).steps
    assert (step.name, step.word) == ("conv1", "conv3x3(4) -> relu")
    assert step.macs == 4 * 9 * 27


def test_runs_do_not_mix() -> None:
    graph = load(NETS["inception"])
    weights = drawn_weights(graph)
    plan = cpu.compile(graph, weights, batch=1)
    a, b = drawn_inputs(graph, 1, seed=1), drawn_inputs(graph, 1, seed=2)
    alone = plan.run(a)
    plan.run(b)
    poison(plan)
    for name, values in plan.run(a).items():
        np.testing.assert_array_equal(values, alone[name])


def test_only_lowered_graphs_hold_fused_layers() -> None:
    graph = load(NETS["plain"])
    cpu.compile(graph, drawn_weights(graph), batch=1)
    assert not any(isinstance(node.op, Fused) for node in graph)
