"""Tensors find their parameters: by our names, by a map, by shapes; and what is said when not."""

from __future__ import annotations

import pytest

from netdsl import lang
from netdsl.faults import NetError
from netdsl.formats.match import Match, match
from netdsl.formats.namemap import parse_map
from netdsl.graph import Graph
from netdsl.ops import Shape

LENET = lang.load(
    "net lenet; input 1x28x28; conv5x5p2(20) -> relu -> maxpool2;"
    "conv5x5p2(50) -> relu -> maxpool2; flatten -> fc(500) -> relu -> fc(10)"
)
TWINS = lang.load("net twins; input 3x8x8; conv3x3p1(3) -> bn -> conv3x3p1(3) -> bn -> fc(2)")
HEADS = lang.load("net heads; input 4; fc(4) as trunk -> aux { fc(3) } -> aux { fc(5) } -> fc(2)")


def shapes(graph: Graph) -> dict[str, Shape]:
    return {name: p.shape for name, p in graph.all_parameters().items()}


def own(graph: Graph) -> dict[str, str]:
    return {name: name for name in graph.all_parameters()}


def test_own_names_in_any_order() -> None:
    file = dict(sorted(shapes(TWINS).items(), reverse=True))
    assert match(TWINS, file) == Match(own(TWINS), "own names")


def test_a_map() -> None:
    one = parse_map("skip *.count\nconv{1,2} c{0,1}\nfc{1,2} d{0,1}", "theirs")
    names = dict(zip(own(LENET), ["c0", "c0", "c1", "c1", "d0", "d0", "d1", "d1"], strict=True))
    renamed = {ours: f"{there}.{ours.rpartition('.')[2]}" for ours, there in names.items()}
    file = {renamed[ours]: shape for ours, shape in shapes(LENET).items()} | {"c0.count": ()}
    assert match(LENET, file, [one]) == Match(renamed, "theirs")


def test_a_part_of_a_larger_net() -> None:
    """All of the net's names under one prefix, and whatever else lies beside."""
    beside: dict[str, Shape] = {"means": (1,), "head.conv1.weight": (20, 1, 5, 5)}
    prefixed = {n: f"trunk.a.{n}" for n in own(LENET)}
    file = {theirs: shapes(LENET)[ours] for ours, theirs in prefixed.items()} | beside
    assert match(LENET, file) == Match(prefixed, "own names after trunk.a.")
    one = parse_map("conv{1,2} c{0,1}\nfc{1,2} d{0,1}", "theirs")
    changed = {ours: theirs.replace("conv1", "c0") for ours, theirs in prefixed.items()}
    changed = {o: t.replace("conv2", "c1").replace("fc1", "d0") for o, t in changed.items()}
    changed = {o: t.replace("fc2", "d1") for o, t in changed.items()}
    file = {theirs: shapes(LENET)[ours] for ours, theirs in changed.items()} | beside
    assert match(LENET, file, [one]) == Match(changed, "theirs after trunk.a.")
    with pytest.raises(NetError, match="does not hold weights"):
        match(LENET, {**file, "trunk.a.more": (3,)}, [one])
    twice = {n.replace("trunk.a.", "average."): s for n, s in file.items() if "trunk" in n}
    with pytest.raises(NetError, match=r"more than once: under trunk\.a\. and average\."):
        match(LENET, {**file, **twice}, [one])
    wrong = dict(zip(prefixed.values(), shapes(LENET).values(), strict=True))
    with pytest.raises(NetError, match=r"fc2\.bias is 10 in the net and 9 there"):
        match(LENET, {**wrong, "trunk.a.fc2.bias": (9,)})


def test_shapes_alone_where_they_leave_one_possibility() -> None:
    file = {f"x{i}": shape for i, shape in enumerate(sorted(shapes(LENET).values()))}
    found = match(LENET, file)
    assert found.by == "shapes"
    assert {file[theirs] for theirs in found.names.values()} == set(file.values())
    assert all(file[theirs] == shapes(LENET)[ours] for ours, theirs in found.names.items())


def test_layers_where_single_tensors_would_be_ambiguous() -> None:
    graph = lang.load("net a; input 3x8x8; conv3x3(4) -> bn -> conv1x1(4) -> fc(2)")
    file = {
        "z/last.w": (2, 144),
        "z/last.b": (2,),
        "m.1.moving_variance": (4,),
        "m.1.gamma": (4,),
        "m.1.moving_mean": (4,),
        "m.1.beta": (4,),
        "k_bias": (4,),
        "k_weight": (4, 4, 1, 1),
        "a.weight": (4, 3, 3, 3),
        "a.bias": (4,),
    }
    found = match(graph, file)
    assert found.by == "shapes"
    assert found.names["bn1.var"] == "m.1.moving_variance"
    assert found.names["bn1.weight"] == "m.1.gamma"
    assert found.names["conv2.bias"] == "k_bias"
    assert found.names["conv1.bias"] == "a.bias"


def test_two_possibilities_are_none() -> None:
    file = {name.replace("conv", "k").replace("bn", "n"): s for name, s in shapes(TWINS).items()}
    with pytest.raises(
        NetError, match=r"by shape conv1\.weight 3x3x3x3 could be k1\.weight or k2\.weight"
    ):
        match(TWINS, file)


def test_heads_may_be_missing_one_by_one_but_whole() -> None:
    everything = shapes(HEADS)
    heads = [node.name for aux in HEADS.aux for node in HEADS.head_nodes(aux)]
    aux = [n for n in everything if n.rpartition(".")[0] in heads]
    assert len(aux) == 4
    without = {n: s for n, s in everything.items() if n not in aux}
    assert match(HEADS, without).names == {n: n for n in without}
    one = {n: s for n, s in everything.items() if n not in aux[:2]}
    assert match(HEADS, one).names == {n: n for n in one}
    half = {n: s for n, s in everything.items() if n != aux[0]}
    with pytest.raises(NetError, match="does not hold weights of heads"):
        match(HEADS, half)


def test_the_first_that_does_not_fit_by_name() -> None:
    file = shapes(LENET) | {"conv2.weight": (50, 20, 3, 3)}
    with pytest.raises(
        NetError,
        match=r"w\.safetensors does not hold weights of lenet: "
        r"conv2\.weight is 50x20x5x5 in the net and 50x20x3x3 there "
        r"\(left over: in the net conv2\.weight 50x20x5x5; in the file conv2\.weight 50x20x3x3\)",
    ):
        match(LENET, file, name="w.safetensors")


def test_the_first_that_does_not_fit_through_a_map() -> None:
    one = parse_map("conv{1,2} c{0,1}\nfc{1,2} d{0,1}", "theirs")
    file: dict[str, Shape] = {"c0.weight": (20, 3, 5, 5), "c0.bias": (20,)}
    with pytest.raises(
        NetError, match=r"conv1\.weight is 20x1x5x5 in the net and 20x3x5x5 c0\.weight in the file"
    ):
        match(LENET, file, [one])


def test_the_first_that_does_not_fit_among_foreign_names() -> None:
    file: dict[str, Shape] = {"a": (64, 3, 7, 7), "b": (64,), "c": (10, 500), "d": (10,)}
    with pytest.raises(NetError) as raised:
        match(LENET, file)
    said = str(raised.value)
    assert "no tensor is left there for conv1.weight 20x1x5x5; the nearest is a 64x3x7x7" in said
    assert "and 4 more; in the file a 64x3x7x7, b 64, c 10x500, d 10" in said


def test_more_than_the_net_has() -> None:
    file = shapes(LENET) | {"fc3.weight": (10, 10)}
    with pytest.raises(NetError, match=r"1 tensor that the net lacks.*in the file fc3\.weight"):
        match(LENET, file)


def test_an_empty_file() -> None:
    with pytest.raises(NetError, match=r"no tensor is left there for conv1\.weight"):
        match(LENET, {})
    nothing = lang.load("input 3x8x8; relu")
    assert match(nothing, {}).names == {}
