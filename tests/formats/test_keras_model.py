"""Models written for Keras compute what the reference does."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from test_torch_module import BLOCKS, CHAINS, HOSTILE, SEVERAL, graphs, hostile, shaped
from written_module import drawn, namespace

import netdsl
from netdsl import NetError, resources
from netdsl.find import graph_of, graph_of_text
from netdsl.formats.keras_model import keras_source, write_keras
from netdsl.formats.keras_model.extra import EXTRA
from netdsl.formats.keras_model.layers import LAYERS
from netdsl.formats.keras_model.write import arranged_weights
from netdsl.graph import Graph
from netdsl.graph.weights import Floats
from netdsl.ops import OPS, AdaptiveAveragePool
from netdsl.reference import interpret

REFUSED = (
    "maxpool2s1d2",
    "avgpool2s1d2",
    "avgpool2s2d2p1(count_pad=yes, pad_end=2)",
    "tconv3s2p1g2(6, out_pad=1)",
    "tconv3s2d2(4, bias=no)",
    "pad(1, end=2, mode=edge)",
    "pad(2, end=-1, mode=edge)",
)


def keras() -> Any:
    """Keras, where it is and has a backend."""
    pytest.importorskip("torch")
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")


def last(x: Floats) -> Floats:
    """Channels last."""
    return np.moveaxis(x, 1, -1)


def run_keras(
    graph: Graph, weights: Mapping[str, Floats], inputs: Mapping[str, Floats]
) -> list[Floats]:
    """The model's results with these weights, channels first."""
    text, _ = keras_source(graph)
    keras().backend.clear_session()
    model = namespace(text)["build_model"]()
    values = arranged_weights(graph, weights)
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(values.pop(f"{layer.name}.{variable.name}"))
    assert not values
    given = [last(inputs[name]) for name in graph.inputs]
    found = model(given if len(given) > 1 else given[0], training=False)
    found = found if isinstance(found, list) else [found]
    return [np.moveaxis(x.detach().numpy(), -1, 1) for x in found]


def compare(graph: Graph) -> None:
    weights = drawn(graph)
    numbers = np.random.default_rng(1)
    inputs = {
        name: numbers.standard_normal((2, *graph[name].shape)).astype(np.float32)
        for name in graph.inputs
    }
    theirs = run_keras(graph, weights, inputs)
    ends = [*graph.outputs, *(aux.output for aux in graph.aux)]
    ours = interpret(graph, weights, inputs, aux=True)
    assert len(theirs) == len(ends)
    for name, values in zip(ends, theirs, strict=True):
        scale = max(float(np.abs(ours[name]).max()), 1e-3)
        np.testing.assert_allclose(values, ours[name], rtol=1e-4, atol=1e-4 * scale)


def test_every_op_is_written() -> None:
    assert set(LAYERS) == {*OPS, AdaptiveAveragePool}
    chains = [chain for chain in CHAINS if chain not in REFUSED]
    written = "".join(keras_source(graph_of_text(shaped(c, "4x9x7")))[0] for c in chains)
    assert all(f"def {name}(" in written for name in EXTRA)


def lacks(chain: str, shape: str) -> bool:
    rank = shape.count("x")
    images = rank == 2 or chain != "up2(bilinear)"
    flat = rank < 3 or "reflect" not in chain
    return chain in REFUSED or not images or not flat


SHAPES = ("4x11", "4x9x7", "4x7x6x8")
PAIRS = [(c, s) for c in CHAINS for s in SHAPES]


@pytest.mark.parametrize(("chain", "shape"), [pair for pair in PAIRS if lacks(*pair)])
def test_what_keras_lacks_is_refused(chain: str, shape: str) -> None:
    with pytest.raises(NetError, match="Keras"):
        keras_source(graph_of_text(shaped(chain, shape)))


@pytest.mark.slow
@pytest.mark.parametrize(("chain", "shape"), [pair for pair in PAIRS if not lacks(*pair)])
def test_every_op_in_keras(chain: str, shape: str) -> None:
    keras()
    compare(graph_of_text(shaped(chain, shape)))


def test_what_keras_lacks_is_said_at_once(tmp_path: Path) -> None:
    graph = graph_of_text("input 4x9x9; pad(1, mode=edge) -> relu -> maxpool2s1d2")
    with pytest.raises(NetError) as caught:
        write_keras(graph, None, tmp_path / "net.py")
    told = str(caught.value)
    assert "pad(1, mode=edge)" in told
    assert "maxpool2s1d2" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", [BLOCKS, SEVERAL])
def test_blocks_and_several_inputs(text: str) -> None:
    keras()
    compare(graph_of_text(text))


@pytest.mark.parametrize("name", sorted(resources.zoo()))
def test_the_zoo_reads_well(name: str) -> None:
    graph = graph_of(name)
    text, states = keras_source(graph, ".keras.safetensors")
    tree = ast.parse(text)
    assert len(text.splitlines()) < 140
    assert max(map(len, text.splitlines())) <= 88
    assert {ours for _, ours in states} == set(graph.all_parameters())
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imports = (n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom))
    assert {a.asname or a.name for n in imports for a in n.names} <= used


def test_a_file_in_full() -> None:
    text, _ = keras_source(graph_of_text("net t; input 1x8x8; conv3x3p1(4) -> relu -> fc(2)"))
    assert text == SMALL


SMALL = '''"""t, written by netdsl.

Channels come last: an input of 1x8x8 is an array (N, 8, 8, 1).
"""

import keras
from keras import layers


def build_model() -> keras.Model:
    """The model, with new weights."""
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv1")(x)
    x = layers.Permute((3, 1, 2))(x)
    x = layers.Flatten()(x)
    x = layers.Dense(2, name="fc1")(x)
    return keras.Model(inputs, x, name="t")
'''


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(resources.zoo()))
def test_the_zoo_in_keras(name: str) -> None:
    keras()
    net = netdsl.load(name)
    inputs = {
        n: np.random.default_rng(0).random((1, *s), np.float32) for n, s in net.inputs.items()
    }
    theirs = run_keras(net.graph, net.weights, inputs)
    ours = list(net.run(inputs, exact=True, aux=True).values())
    for x, y in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4 * float(np.abs(y).max()))


def test_through_files(tmp_path: Path) -> None:
    net = netdsl.load("lenet5")
    files = write_keras(net.graph, net.weights, tmp_path / "net.py")
    assert [f.name for f in files] == ["net.py", "net.keras.safetensors"]
    keras()
    found = namespace(files[0].read_text())
    model = found["load_weights"](found["build_model"](), files[1])
    x = np.random.default_rng(0).random((3, 1, 28, 28), np.float32)
    theirs = model(last(x), training=False).detach().numpy()
    np.testing.assert_allclose(theirs, net.run(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_is_code(name: str) -> None:
    graph = hostile(name)
    text, states = keras_source(graph, ".keras.safetensors")
    tree = ast.parse(text)
    kinds = [type(node) for node in tree.body]
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.FunctionDef)
    assert all(issubclass(kind, allowed) for kind in kinds[1:])
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"os", "__import__"}
    assert len({theirs for theirs, _ in states}) == len(graph.all_parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_serves(name: str) -> None:
    keras()
    compare(hostile(name))


@pytest.mark.slow
@settings(max_examples=30)
@given(graphs())
def test_any_graph(graph: Graph) -> None:
    keras()
    compare(graph)
