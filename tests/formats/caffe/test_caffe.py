"""Caffe's files: the authors' own nets, both syntaxes, round trips, and what broken ones get."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from alike import pair

from netdsl import lang, resources
from netdsl.faults import NetError
from netdsl.find import graph_of
from netdsl.formats.caffe import CaffeWeights, read_caffe, write_caffe
from netdsl.formats.caffe.prototxt import parse, write_text
from netdsl.graph import Graph
from netdsl.graph.weights import initialise
from netdsl.net import Net


def totals(graph: Graph) -> tuple[int, int]:
    """Learned parameters and multiply-adds."""
    main = graph.without_aux()
    learned = sum(p.size for p in main.all_parameters().values() if p.trainable)
    return learned, sum(n.op.macs(main.input_shapes(n)) for n in main)


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("bvlc_alexnet_deploy", 60_965_224, 724_406_816),
        ("bvlc_reference_caffenet_deploy", 60_965_224, 724_406_816),
        ("VGG_ILSVRC_19_layers_deploy", 143_667_240, 19_632_062_464),
        ("bvlc_googlenet_deploy", 6_998_552, 1_582_671_872),
        ("bvlc_googlenet_train_val", 6_998_552, 1_582_671_872),
        ("lenet", 431_080, 2_293_000),
    ],
)
def test_the_authors_nets(name: str, parameters: int, macs: int, shared: Path) -> None:
    found = read_caffe(shared / "data" / "netdefs" / "caffe" / f"{name}.prototxt")
    assert totals(found.graph) == (parameters, macs)


def test_train_val_is_the_zoos_net_with_its_heads(shared: Path) -> None:
    folder = shared / "data" / "netdefs" / "caffe"
    found = read_caffe(folder / "bvlc_googlenet_train_val.prototxt").graph
    assert [aux.weight for aux in found.aux] == [0.3, 0.3]
    picture = found.input_op("input").picture
    assert (picture.order, picture.scale, picture.mean) == ("bgr", 1.0, (104, 117, 123))
    text = resources.zoo()["googlenet"].read_text(encoding="utf-8")
    # Caffe's classifiers flatten what they take, and its last pool has a size.
    text = text.replace("flatten ->", "").replace("gap", "avgpool7s1")
    assert pair(found, lang.load(text)) is not None


def test_what_cannot_be_said_is_listed(shared: Path) -> None:
    path = shared / "data" / "netdefs" / "caffe" / "cifar10_full_train_test.prototxt"
    with pytest.raises(NetError, match="--input 3x224x224"):
        read_caffe(path)
    with pytest.raises(NetError, match=r"2 layers .*\n  LRN \(norm1, norm2\): .* across channels"):
        read_caffe(path, (3, 32, 32))


def test_mnist(shared: Path, mnist: tuple[np.ndarray, np.ndarray]) -> None:
    pictures, labels = mnist
    path = shared / "data" / "weights" / "lenet_iter_9000.caffemodel"
    found = read_caffe(path, (1, 28, 28))
    file = CaffeWeights(path)
    net = Net(found.graph)
    net.weights = found.weights(file.shapes, file.read, str(path))
    scores = net.run(pictures.astype(np.float32) / 256)
    assert isinstance(scores, np.ndarray)
    assert int((scores.reshape(len(labels), -1).argmax(1) == labels).sum()) == 9916


OLD = """
name: "old" input: "data" input_dim: 2 input_dim: 3 input_dim: 8 input_dim: 8
layers { name: "c" type: CONVOLUTION bottom: "data" top: "c"
  blobs_lr: 1 convolution_param { num_output: 4 kernel_size: 3 pad: 1 group: 1 } }
layers { name: "r" type: RELU bottom: "c" top: "c" }
layers < name: 'p' type: POOLING bottom: "c" top: "p" pooling_param { pool: AVE kernel_size: 3
  stride: 2 pad: 1 } >
layers { name: "f" type: INNER_PRODUCT bottom: "p" top: "f" inner_product_param { num_output: 2 } }
layers { name: "l" type: SOFTMAX_LOSS bottom: "f" bottom: "label" top: "l"
  include { phase: TRAIN } }
"""

NEW = """
name: "new"  # a comment
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN } }
layer { name: "data" type: "MemoryData" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.00390625 }
  memory_data_param { batch_size: 2 channels: 3 height: 8 width: 8 } }
layer { name: "c" type: "Convolution" bottom: "data" top: "c"
  convolution_param { num_output: 4 kernel_h: 3 kernel_w: 1 pad_h: 1 pad_w: 0 bias_term: false } }
layer { name: "b" type: "BatchNorm" bottom: "c" top: "c" batch_norm_param { eps: 1e-4 } }
layer { name: "s" type: "Scale" bottom: "c" top: "c" scale_param { bias_term: true } }
layer { name: "r" type: "ReLU" bottom: "c" top: "c" relu_param { negative_slope: 0.1 } }
layer { name: "e" type: "Eltwise" bottom: "c" bottom: "data2" top: "e" }
layer { name: "acc" type: "Accuracy" bottom: "e" bottom: "label" top: "acc" }
"""


def test_the_old_syntax(tmp_path: Path) -> None:
    path = tmp_path / "old.prototxt"
    path.write_text(OLD)
    expected = "input 3x8x8; conv3p1(4) -> relu -> avgpool3s2p1ceil(count_pad=yes) -> fc(2)"
    assert pair(read_caffe(path).graph, lang.load(expected)) is not None


def test_the_new_syntax(tmp_path: Path) -> None:
    path = tmp_path / "new.prototxt"
    path.write_text(NEW.replace('bottom: "data2"', 'bottom: "c"'))
    found = read_caffe(path)
    expected = "input 3x8x8; conv3x1p1x0(4, bias=no) -> bn(eps=1e-4) -> leaky(0.1) as a; [a + a]"
    assert pair(found.graph, lang.load(expected)) is not None
    assert found.graph.input_op("input").picture.scale == 256
    assert found.sources["bn1.weight"] == "s.weight"
    assert found.sources["bn1.mean"] == "b.mean"


def test_a_blob_that_nothing_makes(tmp_path: Path) -> None:
    path = tmp_path / "new.prototxt"
    path.write_text(NEW)
    with pytest.raises(NetError, match="e: it reads data2, which no layer before it makes"):
        read_caffe(path)


@pytest.mark.parametrize("name", ["lenet5", "googlenet", "squeezenet1_1", "densenet121"])
def test_there_and_back(name: str, tmp_path: Path) -> None:
    """The same graph, and every bit of the weights."""
    graph = graph_of(name).without_aux()
    weights = initialise(graph, 1)
    random = np.random.default_rng(0)
    for key, values in weights.items():
        if values.ndim == 1:
            weights[key] = random.random(len(values), np.float32)
    text, model = write_caffe(graph, weights, tmp_path / "net.prototxt")
    for path in (text, model):
        found = read_caffe(path)
        partner = pair(graph, found.graph)
        assert partner is not None
        file = CaffeWeights(model)
        back = found.weights(file.shapes, file.read, "the file")
        for node in graph:
            for p in graph.parameters(node):
                own = weights[f"{node.name}.{p.name}"]
                assert back[f"{partner[node.name]}.{p.name}"].tobytes() == own.tobytes()


def test_shared_weights_by_our_map(shared: Path, tmp_path: Path) -> None:
    """A .caffemodel's tensors are found by their layers' names."""
    file = CaffeWeights(shared / "data" / "weights" / "lenet_iter_9000.caffemodel")
    assert file.shapes["ip1.weight"] == (500, 800)
    assert sum(np.prod(s) for s in file.shapes.values()) == 431_080


def test_ops_that_caffe_lacks_are_listed(tmp_path: Path) -> None:
    graph = lang.load("input 3x8x8; conv3p1(4) -> relu6 -> conv2same -> gelu")
    with pytest.raises(NetError, match=r"3 layers .*\n.*relu6.*\n.*both sides alike\n.*gelu"):
        write_caffe(graph, None, tmp_path / "x.prototxt")
    assert not list(tmp_path.iterdir())


# Text -------------------------------------------------------------------------------------------


def test_text_there_and_back() -> None:
    text = 'a: 1\na: -2.5\nb: "x \\"y\\" \\\\"\nc {\n  d: true\n  e {\n  }\n}\n'
    assert write_text(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a", "1:2: the text ends where the colon of a should be"),
        ("a: {", "1:5: the text ends where a closing } should be"),
        ("a: }", "1:4: '}' stands where a value should be"),
        ("a: [1", "1:6: the text ends where a value should be"),
        ("a: \x01", "1:4: '\\x01' has no meaning here"),
        ('a: "x', "has no meaning here"),
        ("a {" * 40, "nested too deep"),
        ("}", "1:1: '}' stands where a field's name should be"),
    ],
)
def test_faults_of_syntax(text: str, said: str) -> None:
    with pytest.raises(NetError) as caught:
        parse(text, "x.prototxt")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        "num_output: 4 kernel_size: 0",
        "num_output: 4 kernel_size: 3 stride: 0",
        "num_output: 4 kernel_size: 3 pad: -1",
        "num_output: 0 kernel_size: 1",
        "num_output: 4 kernel_size: 3 group: 7",
        "num_output: 4",
        "num_output: 4 kernel_size: 99999999999",
        "num_output: 1.5 kernel_size: 1",
        "num_output: 4 kernel_size: 9",
        "num_output: 4 kernel_size: [1, 2, 3]",
        "} type: 'Pooling' pooling_param { kernel_size: 9",
        "} type: 'Pooling' pooling_param { kernel_size: 2 pad: 2",
        "} type: 'Pooling' pooling_param { kernel_size: 2 stride: 3 pool: STOCHASTIC",
    ],
)
def test_settings_that_make_no_sense(settings: str, tmp_path: Path) -> None:
    path = tmp_path / "x.prototxt"
    layer = (
        f'layer {{ name: "c" type: "Convolution" bottom: "data" convolution_param {{{settings}}} }}'
    )
    path.write_text(f'input: "data" input_shape {{ dim: [1, 3, 8, 8] }} {layer}')
    with pytest.raises(NetError) as caught:
        read_caffe(path)
    assert "c" in str(caught.value)


# Binary -----------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> bytes:
    graph = lang.load("input 2x4x4; conv3(2) -> bn -> relu -> fc(2)")
    return write_caffe(graph, initialise(graph), tmp_path / "m.prototxt")[1].read_bytes()


def test_every_truncation_and_many_corruptions(model: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    for end in range(len(model)):
        path.write_bytes(model[:end])
        with contextlib.suppress(NetError):
            CaffeWeights(path)
            read_caffe(path)
    random = np.random.default_rng(0)
    for _ in range(400):
        damaged = bytearray(model)
        damaged[random.integers(len(model))] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        try:
            file = CaffeWeights(path)
            assert all(file.read(name).shape == shape for name, shape in file.shapes.items())
            read_caffe(path)
        except NetError:
            pass


def test_sizes_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    blob = b"\x3a\x05\x0a\x03\xff\xff\x03" + b"\x2a\x04" + struct.pack("<f", 1)
    layer = b"\x0a\x01c\x3a" + bytes([len(blob)]) + blob
    path.write_bytes(b"\xa2\x06" + bytes([len(layer)]) + layer)
    with pytest.raises(NetError, match="a blob of c says it is 65535, but holds 1 numbers"):
        CaffeWeights(path)


def test_a_file_of_nothing_but_fields(tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    path.write_bytes(b"\xa2\x06\x00" * 300_000)
    with pytest.raises(NetError, match="no honest net"):
        CaffeWeights(path)
