"""Models written for TensorFlow Lite compute what the reference does, in LiteRT."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from test_torch_module import BLOCKS, CHAINS, SEVERAL, graphs, hostile, shaped
from written_module import drawn

import netdsl
from netdsl import NetError, resources
from netdsl.find import graph_of_text
from netdsl.formats.tflite import model_of, write, write_tflite
from netdsl.formats.tflite.layers import WRITE
from netdsl.graph import Graph
from netdsl.graph.build import GraphBuilder
from netdsl.graph.weights import Floats
from netdsl.ops import JOINS, OPS, AdaptiveAveragePool, Dropout, Relu, Upsample
from netdsl.reference import interpret

REFUSED = {
    "maxpool2s1d2": "without dilation",
    "avgpool2s1d2": "without dilation",
    "avgpool2s2d2p1(count_pad=yes, pad_end=2)": "without dilation",
    "lrn4(alpha=1)": "windows are odd",
}
UNEVEN = "avgpool(to=3)"
"""Whose windows are of two sizes on an axis of 11 cells, and of one on 9 and 7."""


def litert() -> Any:
    return pytest.importorskip("ai_edge_litert.interpreter")


class Model:
    """A model in LiteRT, with XNNPACK or with the runtime's own kernels."""

    def __init__(self, model: bytes, *, plain: bool = False) -> None:
        kinds = litert().OpResolverType
        kind = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if plain else kinds.AUTO
        self.net = litert().Interpreter(
            model_content=model, num_threads=2, experimental_op_resolver_type=kind
        )
        self.net.allocate_tensors()

    def operators(self) -> list[str]:
        """Those of the file, then the delegates that took some of them over."""
        return [op["op_name"] for op in self.net._get_ops_details()]

    def run(self, graph: Graph, inputs: Mapping[str, Floats]) -> list[Floats]:
        """The outputs in our shapes."""
        for name, at in zip(graph.inputs, self.net.get_input_details(), strict=True):
            x = np.ascontiguousarray(np.moveaxis(inputs[name], 1, -1))
            self.net.set_tensor(at["index"], x.reshape(at["shape"]))
        self.net.invoke()
        found = []
        for name, at in zip(graph.outputs, self.net.get_output_details(), strict=True):
            y = np.moveaxis(self.net.get_tensor(at["index"]), -1, 1)
            found.append(y.reshape(len(y), *graph[name].shape))
        return found


def written(graph: Graph, weights: Mapping[str, Floats], batch: int = 1) -> bytes:
    return b"".join(model_of(graph, weights, batch))


def noise(graph: Graph, batch: int, seed: int = 1) -> dict[str, Floats]:
    numbers = np.random.default_rng(seed)
    return {
        name: numbers.standard_normal((batch, *graph[name].shape)).astype(np.float32)
        for name in graph.inputs
    }


def compare(graph: Graph, *, plain: bool = False) -> list[str]:
    """The operators of the model, which was found to compute what the reference does."""
    weights, inputs = drawn(graph), noise(graph, 2)
    model = Model(written(graph, weights, 2), plain=plain)
    theirs = model.run(graph, inputs)
    ours = interpret(graph.without_aux(), weights, inputs)
    for name, values in zip(graph.outputs, theirs, strict=True):
        # Sums of up to some hundred terms in single precision, layer upon layer.
        scale = max(float(np.abs(ours[name]).max()), 1e-3)
        np.testing.assert_allclose(values, ours[name], rtol=0, atol=3e-6 * scale)
    return model.operators()


def test_every_op_is_written() -> None:
    assert set(WRITE) == {*OPS, *JOINS.values(), AdaptiveAveragePool} - {Dropout}


SHAPES = ("4x11", "4x9x7")
PAIRS = [(c, s) for c in CHAINS for s in SHAPES if c not in REFUSED and (c, s) != (UNEVEN, "4x11")]


@pytest.mark.parametrize("plain", [False, True], ids=["xnnpack", "plain"])
@pytest.mark.parametrize(("chain", "shape"), PAIRS)
def test_every_op_in_litert(chain: str, shape: str, plain: bool) -> None:
    compare(graph_of_text(shaped(chain, shape)), plain=plain)


@pytest.mark.parametrize("text", [BLOCKS, SEVERAL])
def test_blocks_and_several_inputs(text: str) -> None:
    compare(graph_of_text(text))


@pytest.mark.parametrize("name", ["x\x00y", "日本\u202e", "", "a/flat"])
def test_any_name_serves(name: str) -> None:
    compare(hostile(name))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(graphs())
def test_any_graph(graph: Graph) -> None:
    compare(graph)


@pytest.mark.parametrize("word", ["conv", "dwconv", "tconv", "maxpool", "avgpool"])
@pytest.mark.parametrize("seed", range(6))
def test_windows(word: str, seed: int) -> None:
    """Kernels, strides and paddings as they come: SAME, VALID, or an operator that pads."""
    draw = np.random.default_rng([seed, len(word)])
    height, width = draw.integers(7, 20, 2)
    kernel, stride = draw.integers(1, 6), draw.integers(1, 5)
    padding, end = draw.integers(0, kernel, 2)
    settings = [f"pad_end={end}"]
    if word.endswith("conv"):
        settings.insert(0, str(4 * draw.integers(1, 4)))
    net = f"input 4x{height}x{width}; {word}{kernel}s{stride}p{padding}({', '.join(settings)})"
    compare(graph_of_text(net))


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("word", ["conv3s2p1", "tconv3s2p1"])
def test_groups(word: str, groups: int) -> None:
    compare(graph_of_text(f"input 8x9x7; {word}g{groups}(16) -> relu6"))


ENDS = """input 4x5x5 as a; input 3 as unread
a -> relu as x -> dropout as y -> flatten as z
output a, x, y, z
"""


def test_what_is_given_back_as_it_is() -> None:
    compare(graph_of_text(ENDS))
    builder = GraphBuilder("twice")
    x = builder.add(Relu(), builder.input((4, 3, 3)))
    compare(builder.finish([x, x]))


def test_layers_take_over_what_follows() -> None:
    """Norms and ReLUs are part of layers, and a ReLU's padded max pool is XNNPACK's."""
    text = "input 3x32x32; conv7s2p3(8) -> bn -> relu -> maxpool3s2p1 -> conv3p1(8) -> bn -> relu"
    found = compare(graph_of_text(text))
    assert found == ["PAD", "CONV_2D", "PAD", "MAX_POOL_2D", "CONV_2D", "DELEGATE"]
    below = compare(graph_of_text(text.replace("relu -> maxpool", "tanh -> maxpool")))
    assert "PADV2" in below


@pytest.mark.parametrize("chain", REFUSED)
def test_what_is_lacking_is_refused(chain: str, tmp_path: Path) -> None:
    graph = graph_of_text(shaped(chain, "4x9x7"))
    with pytest.raises(NetError, match=f"TensorFlow Lite.*\n.*{REFUSED[chain]}"):
        write_tflite(graph, drawn(graph), tmp_path / "net.tflite")
    assert not list(tmp_path.iterdir())


def test_what_is_lacking_is_said_at_once() -> None:
    graph = graph_of_text("input 4x13x13; maxpool2s1d2 -> relu -> avgpool(to=3) -> lrn4")
    with pytest.raises(NetError, match="3 ops cannot be said in TensorFlow Lite") as caught:
        model_of(graph, drawn(graph))
    assert all(word in str(caught.value) for word in ("maxpool2s1d2", "avgpool(to=3)", "lrn4"))


def test_volumes_and_endless_axes_are_refused() -> None:
    graph = graph_of_text("input 2x4x4x4; gap")
    with pytest.raises(NetError, match="input has 3 spatial axes"):
        model_of(graph, {})
    builder = GraphBuilder("endless")
    wide = builder.add(Upsample((1, 2**20)), builder.input((1, 4, 4)))
    graph = builder.finish([builder.add(Upsample((1, 2**20)), wide)])
    with pytest.raises(NetError, match="longer than 2,147,483,647"):
        model_of(graph, {})


def test_large_weights_lie_behind_the_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of_text(BLOCKS)
    weights, inputs = drawn(graph), noise(graph, 1)
    within = written(graph, weights)
    monkeypatch.setattr(write, "LARGEST", 0)
    behind = written(graph, weights)
    assert within != behind
    for one, other in zip(*(Model(m).run(graph, inputs) for m in (within, behind)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_file(tmp_path: Path) -> None:
    net = netdsl.load("lenet5")
    path = tmp_path / "net.tflite"
    assert write_tflite(net.graph, net.weights, path) == [path]
    data = path.read_bytes()
    assert data[4:8] == b"TFL3"
    assert b"lenet5, written by netdsl." in data
    assert b"an input of 1x28x28 is an array (1, 28, 28, 1)." in data
    x = np.random.default_rng(0).random((1, 1, 28, 28), np.float32)
    run = litert().Interpreter(str(path)).get_signature_runner("serving_default")
    (name,), (output,) = net.graph.inputs, net.graph.outputs
    found = run(**{name: x.reshape(1, 28, 28, 1)})
    np.testing.assert_allclose(found[output], net.run(x), rtol=0, atol=1e-5)


def test_another_batch() -> None:
    """A runtime may be asked for more samples at once than the file says."""
    graph = graph_of_text(
        "input 4x6x6; conv3p1(4) -> gn2 -> shuffle(2) -> flatten -> relu -> fc(3)"
    )
    weights, inputs = drawn(graph), noise(graph, 5)
    net = litert().Interpreter(model_content=written(graph, weights))
    net.resize_tensor_input(net.get_input_details()[0]["index"], (5, 6, 6, 4))
    net.allocate_tensors()
    net.set_tensor(net.get_input_details()[0]["index"], np.moveaxis(inputs["input"], 1, -1).copy())
    net.invoke()
    (wanted,) = interpret(graph, weights, inputs).values()
    found = net.get_tensor(net.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-6 * float(np.abs(wanted).max()))


QUICK = ("lenet5", "m5", "mobilenet_v2", "squeezenet1_1")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in sorted(resources.zoo())
        if name != "c3d"
    ],
)
def test_the_zoo_in_litert(name: str) -> None:
    net = netdsl.load(name)
    inputs = noise(net.graph, 1)
    (found,) = Model(written(net.graph, net.weights)).run(net.graph, inputs)
    ours = net.run(inputs)
    assert isinstance(ours, np.ndarray)
    np.testing.assert_allclose(found, ours, rtol=0, atol=2e-5 * float(np.abs(ours).max()))
