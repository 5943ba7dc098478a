"""Modules written for PyTorch compute what the reference does, and read well."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_module import compare, drawn, module, run_torch

import netdsl
from netdsl import resources
from netdsl.find import graph_of, graph_of_text
from netdsl.formats.torch_module import torch_source, write_torch
from netdsl.formats.torch_module.extra import EXTRA
from netdsl.formats.torch_module.layers import LAYERS
from netdsl.graph import Graph, Labels
from netdsl.graph.build import GraphBuilder
from netdsl.ops import (
    OPS,
    AdaptiveAveragePool,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dropout,
    Join,
    MaxPool,
    Multiply,
    Op,
    Relu,
    Sigmoid,
    Tanh,
    Window,
)

WORDS = """
    conv3s2p1(6); conv3g2(6, pad_end=1); conv4same(6); conv4same(6, bias=no); conv3s2same(6)
    dwconv3p1; conv3d2p2(6); tconv3s2p1g2(6, out_pad=1); tconv3s2d2(4, bias=no)
    tconv3s2same(4); tconv4s2p1(4, pad_end=0)
    maxpool3s2p1; maxpool3s2ceil; maxpool3s2p1ceil; maxpool2s1d2; maxpool3s1same; maxpool3s2p2
    maxpool2s1same; maxpool3s2p1ceil(pad_end=0)
    avgpool2; avgpool3s2p1; avgpool3s2p1ceil; avgpool3s2ceil; avgpool3s2p1ceil(count_pad=yes)
    avgpool3s2p1(count_pad=yes); avgpool3s1same; avgpool2s1same; avgpool3s2p2; avgpool2s1d2
    avgpool3s2p2ceil(count_pad=yes); avgpool3s2p1ceil(count_pad=yes, pad_end=0)
    avgpool2s2d2p1(count_pad=yes, pad_end=2); avgpool(to=3); gap; gmp
    bn(eps=1e-3, momentum=0.3); bn(affine=no); ln; ln(affine=no); in; in(affine=no); gn2
    gn4(affine=no); gap -> in; gap -> in(affine=no); gap -> gn4; gap -> conv1x1(1) -> ln
    lrn3(alpha=1, k=1); lrn4(alpha=1); lrn(beta=0.5); gap -> flatten -> lrn3(alpha=1)
    relu; relu6; leaky(0.2); leaky; prelu; elu(0.5); elu; gelu; gelu(tanh)
    silu; hswish; sigmoid; hsigmoid; hsigmoid(slope=0.2); tanh; softmax; log_softmax
    dropout(0.3); flatten; fc(5); flatten -> fc(5, bias=no); up2; up3; up2(bilinear)
    pad(1); pad(2, mode=reflect); pad(1, end=2, mode=edge); pad(-1, end=1, value=3)
    pad(-1, end=2, mode=reflect); pad(2, end=-1, mode=edge)
    shuffle(2); flatten -> shuffle(2); [id | relu | tanh]
    [id + relu + tanh]; [id * gap -> sigmoid]; [id * relu * tanh]; gap -> flatten -> ln
    fc(6) -> bn -> prelu -> softmax; [relu -> conv1(4) + id] -> [conv1(4) -> bn | id] -> tanh
"""
CHAINS = [w.strip() for line in WORDS.splitlines() for w in line.split(";") if w.strip()]


def test_every_op_is_written_and_tested() -> None:
    assert set(LAYERS) == {*OPS, AdaptiveAveragePool}
    tried = {type(n.op) for c in CHAINS for n in netdsl.load(text=shaped(c, "4x9x7")).graph}
    assert tried >= set(LAYERS)
    written = "".join(torch_source(graph_of_text(shaped(c, "4x9x7")))[0] for c in CHAINS)
    used = {name for name in EXTRA if f"class {name}(" in written}
    assert used == {name for name in EXTRA if name not in ("MeanPool1d", "MeanPool3d")}


def shaped(chain: str, shape: str) -> str:
    rank = shape.count("x")
    return (
        f"net t; input {shape}; {chain}".replace("conv1x1", "conv1")
        if rank != 2
        else (f"net t; input {shape}; {chain}")
    )


@pytest.mark.parametrize("shape", ["4x11", "4x9x7", "4x7x6x8"])
@pytest.mark.parametrize("chain", CHAINS)
def test_every_op_in_pytorch(chain: str, shape: str) -> None:
    pytest.importorskip("torch")
    compare(graph_of_text(shaped(chain, shape)))


BLOCKS = """net blocks
input 3x16x16
every conv -> bn -> relu
def neck(w, s=1) = conv1x1(w) -> conv3x3s{s}p1(w) -> conv1x1(4*w)
def block(w) = [neck(w) + id] -> relu
def down(w, s) = [neck(w, s) + conv1x1s{s}(4*w)] -> relu
def gate(n) = [id * gap -> bare conv1x1(n) -> silu -> bare conv1x1(32) -> sigmoid]
def layer = [id | bn -> conv3x3p1(8)]
def head = gap -> flatten -> fc(4) -> relu -> fc(3)

conv3x3p1(8) -> maxpool2
down(4, 1) -> block(4) x3
down(8, 2) as middle -> aux(weight=0.3) { head } -> block(8) x2 -> gate(4)
layer x4 as late -> aux(weight=0.2) { conv1x1(4) -> head }
gap -> flatten -> dropout -> fc(3)
"""


def test_blocks_become_classes() -> None:
    text, states = torch_source(graph_of_text(BLOCKS))
    tree = ast.parse(text)
    classes = {c.name: c for c in tree.body if isinstance(c, ast.ClassDef)}
    assert list(classes)[-1] == "Blocks"
    assert {"ConvBNReLU", "Neck", "Block", "Down", "Gate", "Layer", "Head"} <= set(classes)
    assert "nn.Sequential(Down(4), *(Block(4) for _ in range(3)))\n" in text
    assert "        self.middle = Down(8, stride=2)\n" in text
    assert "        self.stage2 = nn.Sequential(\n" in text
    assert "            *(Layer(channels) for channels in range(32, 64, 8)),\n" in text
    assert "        return F.relu(self.neck(x) + x)\n" in text
    assert "        return x * self.gate(x)\n" in text
    assert "        late = self.stage2(middle)\n" in text
    assert len(set(states)) == len(graph_of_text(BLOCKS).all_parameters())


def test_blocks_compute_the_same() -> None:
    pytest.importorskip("torch")
    compare(graph_of_text(BLOCKS))


def test_heads_are_given_in_training_alone() -> None:
    torch = pytest.importorskip("torch")
    text, _ = torch_source(graph_of_text(BLOCKS))
    net = module(text)
    x = torch.zeros(2, 3, 16, 16)
    assert [tuple(y.shape) for y in net.train()(x)] == [(2, 3)] * 3
    assert tuple(net.eval()(x).shape) == (2, 3)


SEVERAL = """input 4x6x6 as first; input 4x6x6 as second
def mixed(t) = [relu + t] -> conv3x3p1(4) as inside -> [inside * tanh]
first -> mixed(second) as mid -> mixed(first) -> conv1x1(2) as low
mid -> gap -> flatten as flat
output low, flat, mid
"""


def test_several_inputs_and_outputs() -> None:
    text, _ = torch_source(graph_of_text(SEVERAL))
    assert "def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:" in text
    assert text.count("class Mixed") == 1
    pytest.importorskip("torch")
    compare(graph_of_text(SEVERAL))


def source(name: str) -> str:
    return torch_source(graph_of(name), ".torch.safetensors")[0]


@pytest.mark.parametrize("name", sorted(resources.zoo()))
def test_the_zoo_reads_well(name: str) -> None:
    text = source(name)
    tree = ast.parse(text)
    assert len(text.splitlines()) < 160
    assert max(map(len, text.splitlines())) <= 88
    assert [c.name for c in tree.body if isinstance(c, ast.FunctionDef)] == ["load"]
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imported = [
        a.asname or a.name
        for n in tree.body
        if isinstance(n, ast.Import | ast.ImportFrom)
        for a in n.names
    ]
    assert set(imported) <= used


def test_lenet_in_full() -> None:
    assert source("lenet5") == LENET


LENET = '''"""lenet5, written by netdsl.

LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition,
1998.
"""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_suffix(".torch.safetensors")


class LeNet5(nn.Module):
    """(N, 1, 28, 28) -> (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 20, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 50, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(2450, 500),
            nn.ReLU(),
            nn.Linear(500, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.classifier(x)


def load(path: str | Path = WEIGHTS) -> LeNet5:
    """The net with its weights, ready to run."""
    net = LeNet5()
    net.load_state_dict(load_file(path))
    return net.eval()
'''

SMALL = ("googlenet", "resnet18", "mobilenet_v2", "squeezenet1_1", "densenet121", "m5")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(resources.zoo()))
def test_the_zoo_in_pytorch(name: str) -> None:
    pytest.importorskip("torch")
    net = netdsl.load(name)
    text, states = torch_source(net.graph)
    net.weights = drawn(net.graph) if name in SMALL else net.weights
    inputs = {
        n: np.random.default_rng(0).random((1, *s), np.float32) for n, s in net.inputs.items()
    }
    theirs = run_torch(text, states, net.graph, net.weights, inputs)
    ours = list(net.run(inputs, exact=True, aux=True).values())
    for x, y in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4 * float(np.abs(y).max()))


def test_through_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = netdsl.load("lenet5")
    files = write_torch(net.graph, net.weights, tmp_path / "net.py")
    assert [f.name for f in files] == ["net.py", "net.torch.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f.name for f in files)
    torch = pytest.importorskip("torch")
    monkeypatch.syspath_prepend(tmp_path)
    import net as written  # type: ignore[import-not-found]

    x = np.random.default_rng(0).random((3, 1, 28, 28), np.float32)
    with torch.no_grad():
        theirs = written.load()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(theirs, net.run(x), rtol=1e-4, atol=1e-4)


def test_heads_without_weights_are_left_out(tmp_path: Path) -> None:
    graph = graph_of_text(BLOCKS)
    weights = drawn(graph)
    main = graph.without_aux().all_parameters()
    write_torch(graph, {n: weights[n] for n in main}, tmp_path / "net.py")
    assert "Head" not in (tmp_path / "net.py").read_text()


HOSTILE = (
    'x"""\n__import__("os").abort()\n"""',
    "x\nimport os; os.abort()",
    "'); import os; os.abort() #",
    "{__import__('os').abort()}",
    "\\",
    'a\\"',
    "class",
    "__init__",
    "self",
    "forward",
    "nn",
    "F",
    "torch",
    "x",
    "training",
    "_modules",
    "日本\u202e",
    "K\u212a",  # normalised, a Kelvin sign is K
    "",
    " ",
    "1",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_is_code(name: str) -> None:
    graph = hostile(name)
    text, states = torch_source(graph, ".torch.safetensors")
    tree = ast.parse(text)
    kinds = [type(node) for node in tree.body]
    assert kinds[0] is ast.Expr
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.ClassDef, ast.FunctionDef)
    assert all(issubclass(kind, allowed) for kind in kinds[1:])
    assert text.isascii() or not name.isascii()
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"os", "__import__"}
    assert len({theirs for theirs, _ in states}) == len(graph.all_parameters())
    pytest.importorskip("torch")
    compare(graph)


def hostile(name: str) -> Graph:
    """A graph in which everything that has a name has this one."""
    text = """input 4x6x6 as a
input 4x6x6 as b
def pair(t) = [conv3x3p1(4) + t] -> bn -> relu -> conv3x3p1(4)
[a | b] -> conv1x1(4) as c -> aux(weight=0.3) { gap -> flatten -> fc(2) }
c -> pair(a) -> pair(b) as last -> relu -> pair(c) -> [id * last] -> gap -> fc(3)
"""
    graph = graph_of_text(text)
    own = {node.name: f"{name}{i}" for i, node in enumerate(graph)}
    scopes = {scope: f"{name}s{i}" for i, scope in enumerate(graph.blocks)}
    for node in graph:
        if node.scope:
            own[node.name] = f"{scopes[node.scope]}.{own[node.name]}"
    nodes = tuple(
        replace(n, name=own[n.name], inputs=tuple(own[i] for i in n.inputs)) for n in graph
    )
    return replace(
        graph,
        name=name,
        nodes=nodes,
        inputs=tuple(own[n] for n in graph.inputs),
        outputs=tuple(own[n] for n in graph.outputs),
        aux=tuple(a._replace(name=name, output=own[a.output]) for a in graph.aux),
        blocks=dict.fromkeys(scopes.values(), name),
        names={f"{name}{i}": own[node] for i, node in enumerate(graph.names.values())},
        meta={"paper": name, "year": name},
        labels=Labels(name, is_file=True),
    )


PLAIN: list[Op] = [
    Relu(),
    Tanh(),
    BatchNorm(),
    Dropout(),
    MaxPool(Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))),
    Conv(4, Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))),
    Conv(4, Window((1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)), bias=False),
]
JOINS: list[Join] = [Add(), Concat(), Multiply()]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Graphs of random wiring, in random blocks, with heads and a second input or output."""
    builder = GraphBuilder("any")
    nodes = [builder.input((4, 5, 5))]
    if draw(st.booleans()):
        nodes.append(builder.input((4, 5, 5), "other"))
    count = len(nodes)
    narrow = Conv(4, Window((1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)))
    scope, scopes = "", dict[str, str]()
    for _ in range(draw(st.integers(1, 25))):
        match draw(st.integers(0, 5)):
            case 0:
                scope = scope.rpartition(".")[0]
            case 1:
                block = draw(st.sampled_from(("one", "two", "class")))
                scope = f"{scope}.{block}{len(scopes)}".strip(".")
                scopes[scope] = block
        source = nodes[-1 - draw(st.integers(0, min(len(nodes) - 1, 4)))]
        if draw(st.integers(0, 2)):
            nodes.append(builder.add(draw(st.sampled_from(PLAIN)), source, scope=scope))
            continue
        second = draw(st.sampled_from(nodes))
        join = draw(st.sampled_from(JOINS))
        joined = builder.add(join, source, second, scope=scope)
        after = narrow if builder.shape(joined)[0] != 4 else Sigmoid()
        nodes.append(builder.add(after, joined, scope=scope))
    for i in range(draw(st.integers(0, 2))):
        head = builder.add(narrow, draw(st.sampled_from(nodes)))
        for _ in range(draw(st.integers(0, 3))):
            head = builder.add(draw(st.sampled_from(PLAIN)), head)
        builder.aux(head, 0.5, f"aux{i + 1}")
    outputs = [nodes[-1], draw(st.sampled_from(nodes[count:]))]
    graph = builder.finish(list(dict.fromkeys(outputs)))
    return replace(graph, blocks=scopes)


@settings(max_examples=60)
@given(graphs())
def test_any_graph(graph: Graph) -> None:
    pytest.importorskip("torch")
    compare(graph)
