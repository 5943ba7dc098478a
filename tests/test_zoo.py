"""The zoo against what is published: parameters, multiply-adds, shapes and module tables.

Exact counts are the lectures', the papers' or torchvision's; where a source rounds, so does the
test. Multiply-adds are those of convolutions and fully connected layers.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from math import prod

import pytest

from netdsl import resources
from netdsl.find import graph_of, graph_of_text
from netdsl.formats.namemap import maps_beside
from netdsl.graph import Graph, Node
from netdsl.lang import format_text, read

ZOO = resources.zoo()


@cache
def net(name: str) -> Graph:
    return graph_of(name)


def params(graph: Graph, nodes: Iterable[Node]) -> int:
    """Learned values, biases included."""
    return sum(p.size for n in nodes for p in graph.parameters(n) if p.trainable)


def weights(graph: Graph, nodes: Iterable[Node]) -> int:
    """Learned values without biases: the lectures' column."""
    return sum(p.size for n in nodes for p in graph.parameters(n) if p.role == "weight")


def macs(graph: Graph, nodes: Iterable[Node]) -> int:
    return sum(n.op.counts(graph.input_shapes(n)).macs for n in nodes)


def main(graph: Graph) -> list[Node]:
    """The nodes that the outputs need, auxiliary heads left out."""
    return [n for n in graph if n.name in graph.main]


def scope(graph: Graph, name: str) -> list[Node]:
    """The nodes of one block's call."""
    return [n for n in graph if n.name.startswith(name + ".")]


def shapes(graph: Graph, head: str) -> list[tuple[int, ...]]:
    """Output shapes of the main net's ops of this head, in order."""
    return [n.shape for n in main(graph) if n.op.head == head]


EXACT = {
    "lenet5": (1_256_080, 6_522_000),
    "alexnet": (61_100_840, 716_767_232),
    "alexnet_2012": (60_965_224, 724_406_816),
    "zfnet_512": (107_627_624, 2_476_704_896),
    "vgg11": (132_863_336, 7_609_090_048),
    "vgg13": (133_047_848, 11_308_466_176),
    "vgg16": (138_357_544, 15_470_264_320),
    "vgg19": (143_667_240, 19_632_062_464),
    "vgg16_lecture": (137_767_464, 13_620_576_256),
    "googlenet": (6_998_552, 1_582_671_872),
    "googlenet_torchvision": (6_624_904, 1_498_376_192),
    "resnet50": (25_557_032, 4_089_184_256),
}

PARAMS = {
    "zfnet": 62_357_608,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "squeezenet1_0": 1_248_424,
    "squeezenet1_1": 1_235_496,
    "mobilenet_v2": 3_504_872,
    "densenet121": 7_978_856,
    # The authors' Caffe net for ImageNet.
    "nin": 7_595_176,
    # One channel in, two classes out.
    "unet": 31_030_658,
    # As fine-tuned on UCF101; the paper says 78.4 M.
    "c3d": 78_409_573,
    # The paper says 0.5 M: (80 + 3 x 128 + 3 x 256 + 3 x 512) kernels' weights, bn, 512 -> 10.
    "m5": 80 * 128 + 3 * 128 * 128 + 3 * 128 * 256 + 3 * 256 * 512 + 3 * 1024 + 5130,
}

ROUNDED = {  # thousand million, as torchvision publishes them
    "resnet18": 1.814,
    "resnet34": 3.664,
    "resnet50": 4.089,
    "squeezenet1_0": 0.819,
    "squeezenet1_1": 0.349,
    "mobilenet_v2": 0.301,
    "densenet121": 2.834,
}


def test_every_net_has_its_numbers_here() -> None:
    assert set(EXACT) | set(PARAMS) == set(ZOO)


@pytest.mark.parametrize("name", EXACT)
def test_parameters_and_macs(name: str) -> None:
    graph = net(name)
    assert (params(graph, main(graph)), macs(graph, main(graph))) == EXACT[name]


@pytest.mark.parametrize("name", PARAMS)
def test_parameters(name: str) -> None:
    graph = net(name)
    assert params(graph, main(graph)) == PARAMS[name]


@pytest.mark.parametrize("name", ROUNDED)
def test_macs_as_published(name: str) -> None:
    graph = net(name)
    assert round(macs(graph, main(graph)) / 1e9, 3) == ROUNDED[name]


@pytest.mark.parametrize("name", ZOO)
def test_each_net_says_what_it_is(name: str) -> None:
    graph = net(name)
    assert graph.name == name
    assert 1989 <= graph.meta["year"] <= 2026  # type: ignore[operator]
    assert isinstance(graph.meta["paper"], str)
    assert ZOO[name].read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("name", ZOO)
def test_each_net_is_formatted_and_earns_no_warning(name: str) -> None:
    text = ZOO[name].read_text(encoding="utf-8")
    assert read(text).faults == ()
    assert format_text(text) == text


@pytest.mark.parametrize("name", ZOO)
def test_labels_fit_the_output(name: str) -> None:
    graph = net(name)
    if graph.labels is None:
        assert name in {"unet", "m5", "c3d"}
        return
    names = resources.read_labels(resources.label_lists()[graph.labels.name])
    assert graph[graph.outputs[0]].shape == (len(names),)


def test_the_errors_of_the_ilsvrc_story() -> None:
    errors = {n: net(n).meta.get("top5_error") for n in ("alexnet", "zfnet", "vgg19", "googlenet")}
    assert errors == {"alexnet": 16.4, "zfnet": 11.7, "vgg19": 7.3, "googlenet": 6.7}


def test_lenet5_by_layer() -> None:
    graph = net("lenet5")
    layers = [n for n in graph if n.op.head in {"conv", "fc"}]
    assert [macs(graph, [n]) for n in layers] == [392_000, 4_900_000, 1_225_000, 5_000]
    assert weights(graph, graph) == 1_255_500
    assert shapes(graph, "maxpool") == [(20, 14, 14), (50, 7, 7)]


def test_alexnet_by_layer() -> None:
    graph = net("alexnet")
    layers = [n for n in graph if n.op.head in {"conv", "fc"}]
    rows = [
        (n.shape[-1], weights(graph, [n]), params(graph, [n]), macs(graph, [n])) for n in layers
    ]
    assert rows == [
        (56, 23_232, 23_296, 72_855_552),
        (27, 307_200, 307_392, 223_948_800),
        (13, 663_552, 663_936, 112_140_288),
        (13, 884_736, 884_992, 149_520_384),
        (13, 589_824, 590_080, 99_680_256),
        (4096, 37_748_736, 37_752_832, 37_748_736),
        (4096, 16_777_216, 16_781_312, 16_777_216),
        (1000, 4_096_000, 4_097_000, 4_096_000),
    ]
    assert shapes(graph, "maxpool") == [(64, 27, 27), (192, 13, 13), (256, 6, 6)]
    assert weights(graph, graph) == 61_090_496
    # Convolutions and fully connected layers, in KiB of float32.
    assert sum(prod(n.shape) for n in layers) * 4 / 1024 == pytest.approx(1958.16, abs=0.005)


def test_the_two_alexnets_agree_on_sizes() -> None:
    assert [s[-1] for s in shapes(net("alexnet_2012"), "conv")] == [55, 27, 13, 13, 13]
    assert [s[0] for s in shapes(net("alexnet_2012"), "conv")] == [96, 256, 384, 384, 256]


@pytest.mark.parametrize("name", ["zfnet", "zfnet_512"])
def test_zfnet_has_the_papers_sizes(name: str) -> None:
    assert [s[-1] for s in shapes(net(name), "conv")] == [110, 26, 13, 13, 13]
    assert [s[-1] for s in shapes(net(name), "maxpool")] == [55, 13, 6]


def test_the_lectures_vgg16_is_shown_with_15_layers() -> None:
    graph = net("vgg16_lecture")
    convs = [n for n in graph if n.op.head == "conv"]
    assert len([n for n in graph if n.op.head in {"conv", "fc"}]) == 15
    assert sum(prod(n.shape) for n in convs) * 4 / 2**20 == pytest.approx(48.617, abs=0.0005)


def test_vgg_configuration_c_is_a_small_change() -> None:
    text = ZOO["vgg16"].read_text(encoding="utf-8")
    third = [line for line in text.splitlines() if line.startswith("conv3x3p1 x3")]
    for line in third:
        text = text.replace(line, line.replace("conv3x3p1 x3", "conv3x3p1 x2 -> conv1x1"), 1)
    graph = graph_of_text(text)
    assert (params(graph, graph), macs(graph, graph)) == (133_638_952, 11_770_888_192)


def test_googlenet_stem() -> None:
    graph = net("googlenet")
    stem = [n for n in main(graph) if "." not in n.name][1:]
    stem = stem[: next(i for i, n in enumerate(stem) if n.shape == (192, 28, 28)) + 1]
    layers = [n for n in stem if n.op.head in {"conv", "maxpool"}]
    assert [prod(n.shape) * 4 / 1024 for n in layers] == [3136, 784, 784, 2352, 588]
    assert (weights(graph, stem), params(graph, stem)) == (124_096, 124_416)
    assert [macs(graph, [n]) for n in layers if n.op.head == "conv"] == [
        118_013_952,
        12_845_056,
        346_816_512,
    ]


MODULES = {
    "inception3a": (256, 163_328, 163_696, 128_049_152),
    "inception3b": (480, 388_096, 388_736, 304_267_264),
    "inception4a": (512, 375_552, 376_176, 73_608_192),
    "inception4b": (512, 448_512, 449_160, 87_908_352),
    "inception4c": (512, 509_440, 510_104, 99_850_240),
    "inception4d": (528, 604_672, 605_376, 118_515_712),
    "inception4e": (832, 867_328, 868_352, 169_996_288),
    "inception5a": (832, 1_042_432, 1_043_456, 51_079_168),
    "inception5b": (1024, 1_442_816, 1_444_080, 70_697_984),
}


@pytest.mark.parametrize("module", MODULES)
def test_googlenet_modules(module: str) -> None:
    graph = net("googlenet")
    nodes = scope(graph, module)
    row = (nodes[-1].shape[0], weights(graph, nodes), params(graph, nodes), macs(graph, nodes))
    assert row == MODULES[module]


def between_modules(graph: Graph) -> list[int]:
    return [n.shape[-1] for n in graph if n.op.head == "maxpool" and not n.scope]


def test_googlenet_pools() -> None:
    assert between_modules(net("googlenet")) == [56, 28, 14, 7]


def test_googlenet_heads() -> None:
    graph = net("googlenet")
    heads = [graph.head_nodes(aux) for aux in graph.aux]
    assert [aux.weight for aux in graph.aux] == [0.3, 0.3]
    assert [params(graph, head) for head in heads] == [3_188_840, 3_190_888]
    assert [macs(graph, head) for head in heads] == [4_169_728, 4_202_496]


def test_googlenet_torchvision_with_heads() -> None:
    graph = net("googlenet_torchvision")
    assert params(graph, graph) == 13_004_888
    assert between_modules(graph) == [56, 28, 14, 7]


def test_nin_averages_6x6() -> None:
    assert [s[-1] for s in shapes(net("nin"), "maxpool")] == [27, 13, 6]


def test_squeezenet_and_densenet_sizes() -> None:
    assert [s[-1] for s in shapes(net("squeezenet1_0"), "maxpool")] == [54, 27, 13]
    assert [s[-1] for s in shapes(net("squeezenet1_1"), "maxpool")] == [55, 27, 13]
    assert shapes(net("densenet121"), "avgpool") == [(128, 28, 28), (256, 14, 14), (512, 7, 7)]
    assert shapes(net("densenet121"), "gap") == [(1024, 1, 1)]


def test_mobilenet_v2_channels() -> None:
    graph = net("mobilenet_v2")
    assert shapes(graph, "dwconv")[-1] == (960, 7, 7)
    assert len([n for n in graph if n.op.head == "relu6"]) == 35


def test_unet_meets_at_every_size() -> None:
    graph = net("unet")
    assert shapes(graph, "tconv") == [(512, 32, 32), (256, 64, 64), (128, 128, 128), (64, 256, 256)]
    assert graph[graph.outputs[0]].shape == (2, 256, 256)


def test_m5_has_the_papers_lengths() -> None:
    graph = net("m5")
    assert shapes(graph, "conv")[0] == (128, 8000)
    assert [s[1] for s in shapes(graph, "maxpool")] == [2000, 500, 125, 32]


def test_c3d_sizes() -> None:
    assert shapes(net("c3d"), "maxpool") == [
        (64, 16, 56, 56),
        (128, 8, 28, 28),
        (256, 4, 14, 14),
        (512, 2, 7, 7),
        (512, 1, 4, 4),
    ]


MAPS = {(path.stem, m.source): m for path in ZOO.values() for m in maps_beside(path)}


def test_every_map_belongs_to_a_net() -> None:
    assert len(MAPS) == len(list((resources.ROOT / "nets").glob("*.map")))


@pytest.mark.parametrize(("name", "source"), MAPS)
def test_a_map_names_every_parameter_of_its_net(name: str, source: str) -> None:
    graph, names = net(name), MAPS[name, source]
    ours = {f"{node}.{p}" for node in names.nodes.values() for p in names.parameters.values()}
    assert set(graph.all_parameters()) <= ours
    assert set(names.nodes.values()) <= {n.name for n in graph if graph.parameters(n)}
