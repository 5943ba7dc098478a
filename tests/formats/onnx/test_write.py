"""Graphs written as ONNX: valid, the same in onnxruntime, and the same graph when read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import netdsl
from netdsl import NetError
from netdsl.formats.onnx import import_onnx, read_onnx, to_onnx, write_onnx
from netdsl.graph import Graph
from netdsl.graph.weights import Floats, initialise
from netdsl.reference import interpret

WORDS = """
    conv3s2p1(6); conv3g2(6, pad_end=1); dwconv3p1; tconv3s2p1g2(6, out_pad=1);
    tconv3s2d2(4, bias=no)
    maxpool3s2p1; maxpool3s2ceil; maxpool3s2p1ceil; maxpool2s1d2; avgpool3s2p1; avgpool3s2p1ceil
    avgpool3s2p1ceil(count_pad=yes); avgpool3s2p1(count_pad=yes); avgpool3s1same; avgpool(to=3)
    gap; gmp; bn(eps=1e-3, momentum=0.3); bn(affine=no); ln; ln(affine=no); in; in(affine=no); gn2
    gn4(affine=no); lrn3(alpha=1, k=1); relu; relu6; leaky(0.2); prelu; elu(0.5); gelu; gelu(tanh)
    silu; hswish; sigmoid; hsigmoid; hsigmoid(slope=0.2); tanh; softmax; log_softmax; dropout(0.3)
    flatten; fc(5); flatten -> fc(5, bias=no); up2; up3; up2(bilinear); pad(1); pad(2, mode=reflect)
    pad(1, end=2, mode=edge); pad(-1, end=1, value=3); shuffle(2); [id | relu | tanh]
    [id + relu + tanh]; [id * gap -> sigmoid]; [id * relu * tanh]; gap -> flatten -> ln
    fc(6) -> bn -> prelu -> softmax
"""
CHAINS = [w.strip() for line in WORDS.splitlines() for w in line.split(";") if w.strip()]


def drawn(graph: Graph) -> dict[str, Floats]:
    """Weights none of which is 0 or 1."""
    numbers = np.random.default_rng(0)
    return {
        name: (values + numbers.uniform(0.1, 1, values.shape)).astype(np.float32)
        for name, values in initialise(graph).items()
    }


def same(found: Graph, graph: Graph) -> None:
    assert found.nodes == graph.nodes
    assert (found.inputs, found.outputs) == (graph.inputs, graph.outputs)
    assert (found.labels, found.meta) == (graph.labels, graph.meta)


def same_bits(found: dict[str, Floats], weights: dict[str, Floats]) -> None:
    assert set(found) == set(weights)
    for name, values in found.items():
        assert values.dtype == np.float32
        assert values.tobytes() == weights[name].tobytes()


@pytest.mark.parametrize("shape", ["4x11", "4x9x7", "4x7x6x8"])
@pytest.mark.parametrize("chain", CHAINS)
def test_every_op_there_and_back(chain: str, shape: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    graph = netdsl.load(text=f"input {shape}; {chain}").graph
    weights = drawn(graph)
    model = to_onnx(graph, weights)
    onnx.checker.check_model(model, full_check=True)
    found = import_onnx(model)
    same(found.graph, graph)
    same_bits(found.weights, weights)
    x = np.random.default_rng(1).standard_normal((2, *graph["input"].shape)).astype(np.float32)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    ours = interpret(graph, weights, {"input": x})
    for name, theirs in zip(graph.outputs, session.run(None, {"input": x}), strict=True):
        np.testing.assert_allclose(theirs, ours[name], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    "name", ["lenet5", "googlenet", "googlenet_torchvision", "mobilenet_v2", "unet", "m5"]
)
def test_the_zoo_there_and_back(name: str) -> None:
    graph = netdsl.load(name).graph.without_aux()
    zero = np.zeros(1, np.float32)
    weights = {n: np.broadcast_to(zero, p.shape) for n, p in graph.all_parameters().items()}
    model = to_onnx(graph, weights)
    if model.ByteSize() < 1 << 26:
        onnx.checker.check_model(model, full_check=True)
    same(import_onnx(model).graph, graph)


def test_through_a_file(tmp_path: Path) -> None:
    graph = netdsl.load(text="input 3x8x8 as a; input 3x8x8 as b; [a + b] -> conv3(4)").graph
    weights = drawn(graph)
    write_onnx(graph, weights, tmp_path / "net.onnx")
    found, values = read_onnx(tmp_path / "net.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    same(found, graph)
    same_bits(values, weights)


def test_large_weights_go_to_a_file_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from netdsl.formats.onnx import write

    monkeypatch.setattr(write, "LARGEST", 1000)
    graph = netdsl.load(text="input 3x8x8; conv3(40) -> gap -> flatten -> fc(10)").graph
    weights = drawn(graph)
    for _ in range(2):
        write_onnx(graph, weights, tmp_path / "net.onnx")
        onnx.checker.check_model(str(tmp_path / "net.onnx"), full_check=True)
        assert (tmp_path / "net.onnx.data").stat().st_size < 10_000
        found, values = read_onnx(tmp_path / "net.onnx")
        same(found, graph)
        same_bits(values, weights)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    graph = netdsl.load(text="input 3x8x8; conv3(4)").graph
    with pytest.raises(NetError, match=r"lack conv1\.weight"):
        write_onnx(graph, {}, tmp_path / "net.onnx")
    with pytest.raises(NetError, match="cannot be written"):
        write_onnx(graph, drawn(graph), tmp_path / "nowhere" / "net.onnx")


AUX = "input 4; fc(3) as a -> aux(weight=0.3) { fc(2) } -> relu -> fc(1)"


def test_auxiliary_heads_are_left_out() -> None:
    graph = netdsl.load(text=AUX).graph
    model = to_onnx(graph, drawn(graph))
    assert [output.name for output in model.graph.output] == list(graph.outputs)
    same(import_onnx(model).graph, graph.without_aux())


@pytest.mark.parametrize("name", ["", "googlenet", "googlenet_torchvision"])
def test_auxiliary_heads_there_and_back(name: str) -> None:
    graph = netdsl.load(name).graph if name else netdsl.load(text=AUX).graph
    zero = np.zeros(1, np.float32)
    weights = {n: np.broadcast_to(zero, p.shape) for n, p in graph.all_parameters().items()}
    model = to_onnx(graph, weights, aux=True)
    onnx.checker.check_model(model, full_check=True)
    heads = [head.output for head in graph.aux]
    assert [output.name for output in model.graph.output] == [*graph.outputs, *heads]
    found = import_onnx(model).graph
    assert sorted(found.nodes, key=str) == sorted(graph.nodes, key=str)
    assert (found.outputs, found.aux) == (graph.outputs, graph.aux)


@pytest.mark.parametrize("change", [("fc1", "fc9"), ('"weight": 0.3', '"weight": 1e999')])
def test_heads_that_the_model_lacks(change: tuple[str, str]) -> None:
    graph = netdsl.load(text=AUX).graph
    model = to_onnx(graph, drawn(graph), aux=True)
    (entry,) = model.metadata_props
    changed = entry.value.replace(*change)
    assert changed != entry.value
    entry.value = changed
    with pytest.raises(NetError, match="metadata are damaged"):
        import_onnx(model)
