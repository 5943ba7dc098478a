"""Darknet's files: the authors' own nets, round trips, the order of numbers, and broken files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from alike import pair

from netdsl import lang
from netdsl.faults import NetError
from netdsl.find import graph_of
from netdsl.formats.darknet import read_darknet, read_weights, write_darknet
from netdsl.formats.darknet.weights import ours, theirs
from netdsl.graph import Graph
from netdsl.graph.weights import initialise
from netdsl.reference import interpret


def totals(graph: Graph) -> tuple[int, int]:
    """Learned parameters and multiply-adds."""
    learned = sum(p.size for p in graph.all_parameters().values() if p.trainable)
    return learned, sum(n.op.macs(graph.input_shapes(n)) for n in graph)


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("alexnet", 62_378_344, 1_135_256_096),
        ("vgg-16", 138_357_544, 15_470_264_320),
        ("darknet53", 41_609_928, 9_285_115_904),
    ],
)
def test_the_authors_nets(name: str, parameters: int, macs: int, shared: Path) -> None:
    found = read_darknet(shared / "data" / "netdefs" / "darknet" / f"{name}.cfg")
    assert totals(found.graph) == (parameters, macs)


def test_every_net_of_the_authors_and_back(shared: Path, tmp_path: Path) -> None:
    paths = sorted((shared / "data" / "netdefs" / "darknet").glob("*.cfg"))
    assert len(paths) == 10
    for path in paths:
        found = read_darknet(path)
        (back,) = write_darknet(found.graph, None, tmp_path / path.name)
        assert pair(found.graph, read_darknet(back).graph) is not None


def test_vgg_takes_pictures_as_its_crop_says(shared: Path) -> None:
    graph = read_darknet(shared / "data" / "netdefs" / "darknet" / "vgg-16.cfg").graph
    picture = graph.input_op("input").picture
    assert (picture.resize, picture.mean, picture.std) == (256, (0.5,), (0.5,))
    assert graph["input"].shape == (3, 224, 224)


HEAD = "[net]\nheight=9\nwidth=9\nchannels=2\n"


def read(text: str, tmp_path: Path) -> Graph:
    path = tmp_path / "x.cfg"
    path.write_text(HEAD + text)
    return read_darknet(path).graph


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[maxpool]\nsize=2\nstride=2", "maxpool2ceil"),
        ("[maxpool]\nsize=3\nstride=2", "maxpool3s2p1"),
        ("[maxpool]\nsize=2\nstride=1", "maxpool2s1(pad_end=1)"),
        ("[maxpool]\nsize=3\nstride=2\npadding=0", "maxpool3s2"),
        ("[conv]\nfilters = 4 # no comment", None),
        ("[conv]\n# a comment\nfilters = 4\nsize=3\npadding=2", "conv3p2(4) -> sigmoid"),
        ("[conv]\nfilters=4\nactivation=leaky", "conv1(4) -> leaky(0.1)"),
        ("[conv]\nfilters=2\ngroups=2\nactivation=linear", "dwconv1(2)"),
        ("[deconv]\nfilters=2\nsize=2\nstride=2\nactivation=linear", "tconv2s2(2)"),
        ("[normalization]\nalpha=0.001", "lrn5(alpha=0.005, k=1)"),
        ("[conn]\noutput=3\nactivation=tanh\n[softmax]", "fc(3) -> tanh -> softmax"),
        ("[softmax]", "flatten -> softmax"),
        ("[upsample]", "up2"),
        (
            "[conv]\nfilters=2\nbatch_normalize=1\nactivation=swish\n[conv]\nfilters=2\n"
            "activation=linear\n[shortcut]\nfrom=-2\nactivation=relu\n[route]\nlayers=-1,0\n[cost]",
            "conv1(2, bias=no) -> bn(eps=1e-12) -> silu as a; [conv1(2) + a] -> relu; [id | a]",
        ),
    ],
)
def test_sections(text: str, expected: str | None, tmp_path: Path) -> None:
    if expected is None:
        with pytest.raises(NetError, match=r"'4#nocomment', but should be a whole number"):
            read(text, tmp_path)
        return
    graph = read(text, tmp_path)
    assert pair(graph, lang.load(f"input 2x9x9; {expected}")) is not None


def test_what_cannot_be_said_is_listed(tmp_path: Path) -> None:
    text = "[conv]\nactivation=mish\n[yolo]\nmask=1\n[conv]\nxnor=1\n[route]\nlayers=-2"
    with pytest.raises(NetError, match=r"3 layers .*\n.*activation mish\n.*\[yolo\].*\n.*reads"):
        read(text, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "[conv]\nsize=0",
        "[conv]\nsize=3",
        "[conv]\nfilters=99999999999",
        "[conv]\nfilters=x",
        "[conv]\nstride=-1",
        "[conv]\nfilters=3\ngroups=2",
        "[maxpool]\nsize=20\npadding=0",
        "[maxpool]\nsize=2\npadding=4",
        "[route]\nlayers=5",
        "[route]\nlayers=",
        "[shortcut]\nfrom=-9",
        "[dropout]\nprobability=2",
        "nothing",
        "",
    ],
)
def test_settings_that_make_no_sense(text: str, tmp_path: Path) -> None:
    if text == "[conv]\nsize=3":  # fits: 9 - 3 + 1
        assert read(text, tmp_path)["conv1"].shape == (1, 7, 7)
        return
    with pytest.raises(NetError):
        read(text, tmp_path)


# Weights ------------------------------------------------------------------------------------------

SMALL = (
    "input 2x6x6; every conv(bias=no) -> bn(eps=1e-12) -> leaky(0.1); conv3p1(4) as a;"
    "[conv1(4) + a] -> [id | a] -> maxpool2 -> bare conv1(3, bias=yes) -> relu -> fc(5) -> softmax"
)


def trained(graph: Graph) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        name: (random.random(p.shape) + 0.01).astype(np.float32)
        for name, p in graph.all_parameters().items()
    }


def test_the_order_of_numbers(tmp_path: Path) -> None:
    graph = lang.load("input 1x2x2; conv1(2, bias=no) -> bn(eps=1e-12) -> fc(3)")
    path = tmp_path / "x.weights"
    numbers = np.arange(1, 26, dtype=np.float32)
    path.write_bytes(struct.pack("<3iq", 0, 2, 5, 99) + numbers.tobytes() + bytes(4 * 12))
    found = read_weights(path, graph)
    assert found["bn1.bias"].tolist() == [1, 2]
    assert found["bn1.weight"].tolist() == [3, 4]
    assert found["bn1.mean"].tolist() == [5, 6]
    np.testing.assert_allclose(found["bn1.var"], [7, 8], rtol=1e-5)
    assert found["conv1.weight"].ravel().tolist() == [9, 10]
    assert found["fc1.bias"].tolist() == [11, 12, 13]
    assert found["fc1.weight"][0].tolist() == [14, 15, 16, 17, 18, 19, 20, 21]
    # An old header is four bytes shorter, and turns the weights of connected layers.
    path.write_bytes(struct.pack("<4i", 0, 1001, 5, 9) + numbers.tobytes() + bytes(4 * 12))
    turned = read_weights(path, graph)["fc1.weight"]
    assert turned[:, 0].tolist() == [14, 15, 16]


def test_there_and_back(tmp_path: Path) -> None:
    """The same graph, the file's every byte, and every bit of what is no variance."""
    graph = lang.load(SMALL)
    weights = trained(graph)
    cfg, numbers = write_darknet(graph, weights, tmp_path / "a.cfg")
    found = read_darknet(cfg)
    partner = pair(graph, found.graph)
    assert partner is not None
    back = read_weights(numbers, found.graph)
    for node in graph:
        for p in graph.parameters(node):
            own, other = weights[f"{node.name}.{p.name}"], back[f"{partner[node.name]}.{p.name}"]
            if p.name == "var":
                np.testing.assert_allclose(own, other, rtol=1e-7)
            else:
                assert own.tobytes() == other.tobytes()
    again = write_darknet(found.graph, back, tmp_path / "b.cfg")[1]
    assert again.read_bytes() == numbers.read_bytes()


def test_variances_come_back() -> None:
    random = np.random.default_rng(0)
    kept = np.exp(random.uniform(-30, 10, 100_000)).astype(np.float32)
    same = theirs(ours(kept, 1e-12), 1e-12) == kept
    # Not where the sum has a larger exponent, for then there are more numbers than places.
    assert same.mean() > 0.9
    assert same[kept > 1e-4].mean() > 0.999
    zero = np.zeros(1, np.float32)
    assert theirs(ours(zero, 1e-12), 1e-12) == zero


def test_outputs_are_darknets(tmp_path: Path) -> None:
    """A small variance makes the difference between the two formulas plain."""
    graph = lang.load("input 1x1x1; conv1(1, bias=no) -> bn(eps=1e-12)")
    path = tmp_path / "x.weights"
    variance = np.float32(1e-10)
    values = np.array([0.25, 2, 0.5, variance, 3], np.float32)
    path.write_bytes(struct.pack("<3iq", 0, 2, 0, 0) + values.tobytes())
    found = read_weights(path, graph)
    x = np.ones((1, 1, 1, 1), np.float32)
    wanted = 0.25 + 2 * (3 - 0.5) / (np.sqrt(np.float64(variance)) + 1e-6)
    given = interpret(graph, found, {"input": x})["bn1"]
    np.testing.assert_allclose(given.ravel(), [wanted], rtol=1e-6)


def test_a_shortcut_of_another_shape(tmp_path: Path) -> None:
    path = tmp_path / "x.cfg"
    linear = "activation=linear\n"
    path.write_text(
        "[net]\nheight=4\nwidth=4\nchannels=1\n"
        f"[conv]\nfilters=2\n{linear}[conv]\nfilters=3\nsize=1\nstride=2\n{linear}"
        f"[shortcut]\nfrom=-2\n{linear}"
    )
    found = read_darknet(path)
    numbers = tmp_path / "x.weights"
    values = np.arange(1, 14, dtype=np.float32)
    numbers.write_bytes(struct.pack("<3iq", 0, 2, 0, 0) + values.tobytes())
    weights = read_weights(numbers, found.graph)
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    outputs = interpret(found.graph, weights, {"input": x})
    first = np.array([1, 2]).reshape(2, 1, 1) + np.array([3, 4]).reshape(2, 1, 1) * x[0]
    second = np.array([5, 6, 7]).reshape(3, 1, 1) + np.einsum(
        "oc,cij->oij", values[7:].reshape(3, 2), first[:, ::2, ::2]
    )
    second[:2] += first[:, ::2, ::2]
    np.testing.assert_allclose(outputs["add1"][0], second)


def test_files_of_other_sizes(tmp_path: Path) -> None:
    graph = lang.load(SMALL)
    _, numbers = write_darknet(graph, trained(graph), tmp_path / "a.cfg")
    whole = numbers.read_bytes()
    for end in (0, 3, 15, 16, 20, len(whole) - 4, len(whole) - 1):
        numbers.write_bytes(whole[:end])
        with pytest.raises(NetError):
            read_weights(numbers, graph)
    numbers.write_bytes(whole + bytes(4))
    with pytest.raises(NetError, match=r"holds 288 numbers, .* take 287"):
        read_weights(numbers, graph)
    numbers.write_bytes(whole[:-4] + struct.pack("<f", float("nan")))
    with pytest.raises(NetError, match=r"fc1.weight \[4, 26\] is nan"):
        read_weights(numbers, graph)


@pytest.mark.parametrize("name", ["vgg16_bn", "nin", "resnet18", "googlenet", "lenet5"])
def test_zoo_nets(name: str, tmp_path: Path) -> None:
    graph = graph_of(name).without_aux()
    if name == "vgg16_bn":
        with pytest.raises(NetError):
            write_darknet(graph, None, tmp_path / "a.cfg")
        return
    (cfg,) = write_darknet(graph, None, tmp_path / "a.cfg")
    assert totals(read_darknet(cfg).graph) == totals(graph)


def test_ops_that_darknet_lacks_are_listed(tmp_path: Path) -> None:
    graph = lang.load("input 3x8x8; conv3x1(4) -> gelu -> conv3d2(4) -> bn -> avgpool2")
    with pytest.raises(NetError, match=r"5 layers .*\n.*square\n.*gelu.*\n.*dilation\n.*bn"):
        write_darknet(graph, None, tmp_path / "x.cfg")
    assert not list(tmp_path.iterdir())


def test_initialised_weights_keep_their_bits(tmp_path: Path) -> None:
    graph = lang.load("input 1x28x28; conv5(6) -> relu -> maxpool2 -> fc(10)")
    weights = initialise(graph, 3)
    cfg, numbers = write_darknet(graph, weights, tmp_path / "a.cfg")
    back = read_weights(numbers, read_darknet(cfg).graph)
    assert {n: v.tobytes() for n, v in back.items()} == {n: v.tobytes() for n, v in weights.items()}
