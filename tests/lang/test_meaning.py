"""What texts mean: names, order, blocks, every, joins, doubles, inputs and outputs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from netdsl.faults import NetError
from netdsl.graph import Graph, Labels
from netdsl.lang import load, read
from netdsl.ops import Input


def words(text: str) -> list[str]:
    """Each op as `name=word`, without inputs."""
    return [f"{n.name}={n.op.word()}" for n in load(text) if not isinstance(n.op, Input)]


def edges(text: str) -> dict[str, tuple[str, ...]]:
    return {node.name: node.inputs for node in load(text) if node.inputs}


def codes(text: str) -> list[str]:
    return [fault.code for fault in read(text).faults]


def params(graph: Graph) -> int:
    return sum(p.size for p in graph.all_parameters().values() if p.trainable)


# Lines and statements ---------------------------------------------------------------------------


def test_a_line_goes_on_from_the_line_above() -> None:
    assert words("input 3x8x8\nrelu\ngap") == words("input 3x8x8; relu -> gap")
    assert edges("input 3x8x8\nrelu\ngap") == {"relu1": ("input",), "gap1": ("relu1",)}


@pytest.mark.parametrize(
    "text",
    [
        "input 3x8x8\nrelu ->\n  gap",
        "input 3x8x8\nrelu\n\n  # in between\n  -> gap",
        "input 3x8x8\n-> relu -> gap ->",
        "input 3x8x8 (scale=2) as x\n# c\n-> relu\nmeta a=1\n-> gap\nlabels mnist\n-> id",
        "input 3x8x8;;relu;->gap;",
        "\ufeffinput 3x8x8\r\nrelu # why\r\ngap\r\n",
        "input 3x8x8\n(\nrelu\n\n-> gap)",
    ],
)
def test_where_a_line_may_break(text: str) -> None:
    assert words(text) == ["relu1=relu", "gap1=gap"]


def test_a_files_stem_names_the_net() -> None:
    assert load("input 3; relu", "nets/mine.net").name == "mine"
    assert load("net a.b-c\ninput 3; relu", "nets/mine.net").name == "a.b-c"
    assert load("input 3; relu").name == "net"


def test_labels_and_meta() -> None:
    graph = load(
        'input 3; labels "my names.txt"; meta a=1 b=-0.5 c="x \\" y" d=[1, 2]; meta e=SGD; relu'
    )
    assert graph.labels == Labels("my names.txt", is_file=True)
    assert graph.meta == {"a": 1, "b": -0.5, "c": 'x " y', "d": [1, 2], "e": "SGD"}
    assert load("input 3; labels mnist; relu").labels == Labels("mnist")


def test_the_settings_of_an_input() -> None:
    text = "input 3x8x8 (resize=9, order=bgr, scale=1, mean=[1, 2.5, 3], std=2) as x; relu"
    picture = load(text).input_op("x").picture
    assert (picture.resize, picture.order, picture.scale) == (9, "bgr", 1.0)
    assert (picture.mean, picture.std) == ((1.0, 2.5, 3.0), (2.0,))


# Chains -----------------------------------------------------------------------------------------


def test_repeats_have_parameters_of_their_own() -> None:
    graph = load("input 3x8x8; conv3p1(3) x3")
    assert [n.name for n in graph][1:] == ["conv1", "conv2", "conv3"]
    assert params(graph) == 3 * (3 * 3 * 9 + 3)


def test_a_repeat_of_nothing_passes_by() -> None:
    assert words("def f(n) = relu x{n - 1} -> gap; input 3x8x8; f(1)") == ["f1.gap1=gap"]


def test_joins() -> None:
    text = "input 4x8x8; [id | conv1(2)] as both -> [conv1(6) + id] -> [id * gap] -> [gap | gmp]"
    graph = load(text)
    assert [n.shape[0] for n in graph if n.op.heads[0] in ("concat", "add", "mul")] == [6, 6, 6, 12]
    assert edges(text)["both"] == ("input", "conv1")
    assert edges(text)["mul1"] == ("add1", "gap1")


def test_a_branch_may_begin_at_a_name() -> None:
    text = "input 3x8x8; relu as a -> maxpool2 -> up2; [a -> conv1(2) | id]"
    assert edges(text)["conv1"] == ("a",)
    assert edges(text)["concat1"] == ("conv1", "up1")


def test_aux_passes_the_main_line_by() -> None:
    text = "input 3x8x8; relu -> aux(weight=0.3) { gap -> fc(2) } -> aux { fc(3) } as late -> gap"
    graph = load(text)
    assert [(a.name, a.weight, a.output) for a in graph.aux] == [
        ("aux1", 0.3, "fc1"),
        ("late", 1.0, "fc2"),
    ]
    assert edges(text)["gap2"] == ("relu1",)
    assert graph.outputs == ("gap2",)


def test_several_inputs_and_outputs() -> None:
    text = """input 1x8x8 as left
              input 2x8x8 as right
              conv1(1) -> [left | id] -> gap as both
              left -> gmp as alone
              output alone, both"""
    graph = load(text)
    assert graph.inputs == ("left", "right")
    assert graph.outputs == ("alone", "both")
    assert edges(text)["conv1"] == ("right",)


# Names ------------------------------------------------------------------------------------------


def test_a_label_names_the_op_and_stands_for_what_follows_it() -> None:
    text = "every conv -> relu; input 3x8x8; conv3p1(3) as stem -> gap; [stem | id * gap]"
    assert codes(text) == ["mixed-joins"]
    text = "every conv -> relu; input 3x8x8; conv3p1(3) as stem -> [stem + id]"
    assert edges(text) == {"stem": ("input",), "relu1": ("stem",), "add1": ("relu1", "relu1")}
    assert load(text).names == {"stem": "relu1"}


def test_a_label_on_a_call_names_its_scope() -> None:
    text = "def f = conv1(2) -> g; def g = relu; input 3x8x8; f as stem -> f -> [stem | id]"
    assert list(edges(text)) == [
        "stem.conv1",
        "stem.g1.relu1",
        "f1.conv1",
        "f1.g1.relu1",
        "concat1",
    ]
    assert edges(text)["concat1"] == ("stem.g1.relu1", "f1.g1.relu1")
    assert load(text).blocks == {"stem": "f", "stem.g1": "g", "f1": "f", "f1.g1": "g"}


def test_a_label_on_a_group_or_repeat_only_stands_for_it() -> None:
    text = "input 3x8x8; (relu -> bn) as a -> relu x2 as b -> [a | b] -> id as c; output c"
    assert list(edges(text)) == ["relu1", "bn1", "relu2", "relu3", "concat1"]
    assert load(text).names == {"a": "bn1", "b": "relu3", "c": "concat1"}


def test_numbers_pass_over_labels() -> None:
    assert words("input 3; relu -> relu as relu1 -> relu") == [
        "relu2=relu",
        "relu1=relu",
        "relu3=relu",
    ]


def test_a_name_that_looks_like_an_op_may_be_given() -> None:
    assert words("input 3x8x8; conv3(2) as conv1 -> conv1(2) -> relu as conv3") == [
        "conv1=conv3x3(2)",
        "conv2=conv1x1(2)",
        "conv3=relu",
    ]


# Blocks -----------------------------------------------------------------------------------------


def test_arguments_by_position_by_name_and_by_default() -> None:
    text = """def f(a, b=2*a, c=b + 1) = fc(a) -> fc(b) -> fc(c)
              input 3
              f(2) -> f(c=9, a=1) -> f(1, 2)"""
    assert [node.shape[0] for node in load(text)][1:] == [2, 4, 5, 1, 2, 9, 1, 2, 3]


def test_blocks_in_any_order_and_without_parentheses() -> None:
    text = "input 3; outer; def outer = inner -> inner(4); def inner(n=2) = fc(n)"
    assert [node.shape[0] for node in load(text)][1:] == [2, 4]


def test_insertion_into_words_and_repeats() -> None:
    text = """def f(k, act, n) = conv{k}x{k}s{k - 1}p{k//2}(4) -> {act} x{n}
              input 3x9x9
              f(3, relu6, 2)"""
    assert [node.op.word() for node in load(text)][1:] == ["conv3x3s2p1(4)", "relu6", "relu6"]
    assert words("def f(k) = maxpool{k}; input 3x9x9; f(3x1)") == ["f1.maxpool1=maxpool3x1"]


def test_a_tensor_is_passed_by_its_name() -> None:
    text = """def outer(skip) = relu as own -> inner(skip, own)
              def inner(one, two) = [one | two | id]
              input 3x8x8
              bn as stem -> outer(stem)"""
    join = edges(text)["outer1.inner1.concat1"]
    assert join == ("stem", "outer1.own", "outer1.own")


def test_labels_of_a_block_belong_to_each_call() -> None:
    text = "def f = relu as a -> [a + id]; input 3; f -> f"
    assert edges(text)["f2.add1"] == ("f2.a", "f2.a")
    assert codes("def f = relu as a; input 3; f -> [a + id]") == ["unknown-op"]


def test_arithmetic() -> None:
    def of(expression: str) -> int:
        return load(f"def f(w) = fc({expression}); input 3; f(7)").nodes[-1].shape[0]

    texts = ("w*2 + 1", "2 + w*2", "(2 + w)*2", "w//2", "14/w", "-w + 8", "20 - w - 1")
    assert [of(text) for text in texts] == [15, 16, 18, 3, 2, 1, 12]
    assert codes("def f(w) = fc(w/2); input 3; f(7)") == ["wrong-value"]


# every ------------------------------------------------------------------------------------------


def test_every_gives_defaults_and_followers() -> None:
    text = """every conv(bias=no) -> bn -> relu
              input 3x8x8
              conv1(2) -> conv1(2, bias=yes) -> bare conv1(2)"""
    assert words(text) == [
        "conv1=conv1x1(2, bias=no)", "bn1=bn", "relu1=relu",
        "conv2=conv1x1(2)", "bn2=bn", "relu2=relu",
        "conv3=conv1x1(2, bias=no)",
    ]  # fmt: skip


def test_every_holds_for_its_head_alone_wherever_it_stands() -> None:
    text = "input 3x8x8; dwconv3p1 -> f; def f = [conv1(3) | tconv1(3)]; every conv -> relu"
    assert [w.split("=")[0] for w in words(text)] == [
        "dwconv1",
        "f1.conv1",
        "f1.relu1",
        "f1.tconv1",
        "f1.concat1",
    ]


def test_no_every_within_an_every() -> None:
    text = (
        "every conv -> f; every relu -> bn; def f = conv1(5) -> relu; input 3x8x8; conv1(2) -> relu"
    )
    assert [w.partition("=")[0] for w in words(text)] == [
        "conv1",
        "f1.conv1",
        "f1.relu1",
        "relu1",
        "bn1",
    ]


def test_a_block_that_an_every_calls_has_names_of_its_own() -> None:
    text = "every conv -> f; def f = relu as a -> [a + id]; input 3x8x8 as top; conv1(2) as b"
    assert edges(text)["f1.add1"] == ("f1.a", "f1.a")
    assert codes("every conv -> top; input 3x8x8 as top; conv1(2)") == ["unknown-name"]


def test_defaults_by_position_give_way_to_what_is_given() -> None:
    text = """every leaky(0.2); every dropout(rate=0.4); input 3
              leaky -> leaky(0.3) -> leaky(slope=0.1) -> dropout"""
    assert [w.partition("=")[2] for w in words(text)] == [
        "leaky(0.2)",
        "leaky(0.3)",
        "leaky(0.1)",
        "dropout(0.4)",
    ]


# double and halve -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chain", "channels"),
    [
        ("double -> conv1 -> conv1", [8, 8]),
        ("double x2 -> relu -> conv1", [4, 16]),
        ("double -> halve -> conv1", [4]),
        ("double -> fc", [8 * 64]),
        ("(double -> conv1) x2", [8, 16]),
        ("f -> f; def f = conv1 -> double", [4, 8]),
        ("double -> [conv1 | conv3p1]", [8, 8, 16]),
        ("double -> [gap | gmp] -> conv1", [4, 4, 8, 16]),
        ("double -> [gap | gap -> conv1] -> conv1", [4, 4, 8, 12, 12]),
        ("double -> aux { conv1 } -> conv1", [8, 8]),
        ("conv1(6)\n double\n conv1", [6, 12]),
    ],
)  # fmt: skip
def test_double(chain: str, channels: list[int]) -> None:
    result = read(f"input 4x8x8; {chain}")
    assert result.graph is not None
    assert [node.shape[0] for node in result.graph][1:] == channels


@pytest.mark.parametrize(
    ("chain", "count"),
    [("double -> conv1(8)", 1), ("conv1 -> double", 1), ("f -> f; def f = conv1 -> double", 0)],
)
def test_a_double_that_nothing_heeds_is_a_warning(chain: str, count: int) -> None:
    assert codes(f"input 4x8x8; {chain}").count("unheeded-double") == count


# The specification's own examples ---------------------------------------------------------------


def test_the_docs_nets_are_sound_and_laid_out(root: Path) -> None:
    from netdsl.lang import format_text

    page = (root / "docs" / "language.md").read_text(encoding="utf-8")
    nets = re.findall(r"^```net\n(.*?)^```", page, re.S | re.M)
    assert len(nets) >= 3
    for net in nets:
        assert read(net).faults == ()
        assert format_text(net) == net


EXAMPLES = {"vgg16": 138_357_544, "googlenet": 6_998_552, "resnet50": 25_557_032}


def test_the_specifications_examples(shared: Path) -> None:
    page = (shared / "LANGUAGE.md").read_text(encoding="utf-8")
    nets = re.findall(r"^```\n(net .*?)^```", page, re.S | re.M)
    modules = """inception(128, 128, 192, 32, 96, 64) as inception3b
maxpool3s2ceil"""
    later = "\n".join(
        f"inception({widths}) as inception{name}"
        for name, widths in (
            ("4b", "160, 112, 224, 24, 64, 64"),
            ("4c", "128, 128, 256, 24, 64, 64"),
            ("4d", "112, 144, 288, 32, 64, 64"),
            ("4e", "256, 160, 320, 32, 128, 128"),
            ("5a", "256, 160, 320, 32, 128, 128"),
            ("5b", "384, 192, 384, 48, 128, 128"),
        )
    )
    found = {}
    for net in nets:
        text = net.replace("...", modules, 1).replace("...", later, 1)
        graph = load(text)
        main = graph.without_aux()
        found[graph.name] = params(main)
    assert found == EXAMPLES


def test_load_raises_every_error_at_once() -> None:
    with pytest.raises(NetError) as caught:
        load("input 3x8x8; maxpol2; dropout(3); double")
    assert [fault.code for fault in caught.value.faults] == ["unknown-op", "out-of-range"]
