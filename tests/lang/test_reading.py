"""What is refused, how soon, and what a fault leaves readable."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from netdsl.lang import Limits, format_text, load, parse, read
from netdsl.lang.show import render

ROOT = Path(__file__).resolve().parents[2]
START = "input 3x8x8\n"
HOSTILE = {
    "a block that doubles itself": START
    + "def a0 = relu -> relu\n"
    + "".join(f"def a{i} = a{i - 1} -> a{i - 1}\n" for i in range(1, 61))
    + "a60",
    "the same of nothing": START
    + "def a0 = id -> id\n"
    + "".join(f"def a{i} = a{i - 1} -> a{i - 1}\n" for i in range(1, 61))
    + "a60",
    "repeats of repeats": START + "((((id x1000) x1000) x1000) x1000)",
    "a repeat of 10^9": START + "relu x1000000000",
    "a kernel of 10^9": START + "conv1000000000(3)",
    "a kernel of 10^9 with padding": START + "conv1000000000same(3)",
    "a number without end": START + "conv3(" + "9" * 100_000 + ")",
    "a word without end": START + "conv" + "9" * 100_000,
    "a product without end": START + "fc(" + "*".join(["99999"] * 5000) + ")",
    "a power by default": START + "def f(a, b=a*a, c=b*b, d=c*c, e=d*d) = fc(e*e)\nf(99999999)",
    "brackets without end": START + "[" * 100_000,
    "brackets that close": START + "(" * 100_000 + "relu" + ")" * 100_000,
    "parentheses in a value": START + "fc(" + "(" * 100_000 + "1" + ")" * 100_000 + ")",
    "brackets on lines": "[\n\n" * 200_000,
    "braces": START + "{" * 50_000 + "}" * 50_000,
    "calls without end": START + "def f(g, n) = {g}(g, n + 1)\nf(f, 1)",
    "a long chain of blocks": START
    + "def a0 = relu\n"
    + "".join(f"def a{i} = a{i - 1}\n" for i in range(1, 2000))
    + "a1999",
    "a long loop of blocks": START
    + "".join(f"def a{i} = a{i - 1}\n" for i in range(1, 2000))
    + "def a0 = a1999\na0",
    "long names in each other": START
    + "".join(f"def {'a' * 190}{i} = {'a' * 190}{i + 1}\n" for i in range(90))
    + f"def {'a' * 190}90 = relu\n{'a' * 190}0",
    "quotes": '"' * 500_000,
    "arrows": "->" * 300_000,
    "words": START + "foo\n" * 300_000,
    "insertions": START + "def f(a) = conv" + "{a}" * 2000 + "\nf(9)",
    "doubling beyond reason": START + "double x60 -> conv1",
    "enlarging beyond reason": START + "up2 x60",
    "an input beyond reason": "input 1x999999999x999999999\nrelu",
    "axes without end": "input " + "x".join(["9"] * 10_000) + "\nrelu",
    "parameters without end": START
    + f"def f({', '.join(f'p{i}=1' for i in range(9000))}) = relu\nf",
    "every upon every": START + "every relu -> relu x1000\nrelu x1000",
    "zero bytes": START + "\0" * 1000,
    "a megabyte": "# " + "x" * (1 << 20),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_text_is_refused(what: str) -> None:
    faults = read(HOSTILE[what]).faults
    assert any(fault.severity == "error" for fault in faults)
    assert all(len(render(fault)) < 3000 for fault in faults)


def test_hostile_texts_are_refused_soon_and_small() -> None:
    """All of them in one process, within a bound that only a blow-up passes."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "from tests.lang.test_reading import HOSTILE\n"
        "from netdsl.lang import read\n"
        "for text in HOSTILE.values(): assert read(text).graph is None\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=ROOT)


def test_many_faults_end_the_reading() -> None:
    result = read(START + "maxpol2\n" * 500)
    assert [fault.code for fault in result.faults].count("unknown-op") == 100
    assert result.faults[-1].code == "too-many-faults"


@pytest.mark.parametrize("text", ["input 3x8x8\nrelu \0", "\0"])
def test_a_zero_byte_is_not_text(text: str) -> None:
    (fault,) = read(text).faults
    assert fault.code == "not-text"


def test_limits_are_lifted() -> None:
    assert read("input 3; relu x10001").graph is None
    graph = read("input 3; relu x10001", limits=None).graph
    assert graph is not None
    assert len(graph) == 10_002


def test_limits_may_be_ones_own() -> None:
    (fault,) = read("input 3; relu x5", limits=Limits(nodes=4)).faults
    assert fault.code == "too-large"
    assert read("input 3; relu x5", limits=Limits(nodes=6)).faults == ()


def test_size_grows_the_time_no_more_than_in_proportion() -> None:
    """Ten thousand steps on a line, and as many lines, are read without recursion."""
    assert len(load("input 3\n" + "relu -> " * 10_000)) == 10_001
    assert len(load("input 3\n" + "relu\n" * 10_000)) == 10_001
    assert load("input 3\nfc(" + " + ".join(["1"] * 10_000) + ")").nodes[-1].shape == (10_000,)


# What a fault leaves readable -------------------------------------------------------------------


def codes(text: str) -> list[str]:
    return [fault.code for fault in read(text).faults]


@pytest.mark.parametrize(
    "text",
    [
        "input 3x8x8; maxpol2 -> conv3x3(8) -> gap -> fc(10)",
        "input 3x8x8; conv3x3(8 -> gap\n",
        "input 3by8; conv3(8) -> gap",
        "conv3(8) -> gap -> fc(3)",
        "def f = conv 3; input 3x8x8; f -> f -> gap",
        "input 3x8x8; conv 3 as a; [a | a] -> gap; output a",
        "def f(w) = conv9(w); input 3x8x8; f(1) -> f(2) -> f(3)",
        "def f(w) = [conv3(w) + id]; input 3x8x8; f(3) x3 -> gap",
        "input 3x8x8; dropout(7) -> conv3(8) -> [id | conv3p1(4)]",
        "input 3x8x8; conv3(8, bais=no) -> [id + conv3p1(8)]",
        "def f = g; def g = f; input 3x8x8; f -> g -> gap",
        "def f(w) = conv3(w); input 3x8x8; f(1//0) -> gap",
        "input 3x8x8; labels nope; gap",
        "input 3x8x8; every bn -> maxpol2; gap",
        "input 3x8x8; every bn -> maxpol2; bn x3 -> gap",
        f"input 3x8x8; conv{'3s1' * 300} -> gap",
    ],
)
def test_one_fault_is_reported_once(text: str) -> None:
    assert len(codes(text)) == 1, read(text).faults


def test_all_faults_are_found_in_one_pass() -> None:
    text = """input 3x8x8
        def unused = maxpol2
        conv 3
        [conv1(3) | relu + id]
        conv3x3(8, bias=maybe)
        fc(10) -> dropout(2)
        gap"""
    assert codes(text) == [
        "unknown-op", "syntax", "mixed-joins", "wrong-value", "out-of-range", "needs-axes",
    ]  # fmt: skip


def test_a_line_above_every_input_has_nothing_to_go_on_from() -> None:
    assert codes("relu; input 3; relu") == ["no-input"]
    assert codes("relu") == ["no-input"]
    assert codes("") == ["no-input"]


def test_a_graph_keeps_nothing_of_the_reader() -> None:
    graph = load("input 3x8x8 (order=bgr); def f(m) = up2(m); meta a=b; f(bilinear)")
    copy = pickle.loads(pickle.dumps(graph))
    assert copy == graph
    assert type(copy.nodes[-1].op.mode) is str


def test_a_file_is_parsed_though_a_line_is_broken() -> None:
    parsed = parse("net a\nconv 3\nnet b")
    assert [type(s).__name__ for s in parsed.statements] == ["NetName", "Broken", "NetName"]


def test_a_keyword_ends_an_open_bracket() -> None:
    assert codes("input 3x8x8\n[ relu |\nevery conv -> relu\nmaxpol2") == [
        "unclosed-bracket",
        "unknown-op",
    ]


def test_places_are_those_of_the_text() -> None:
    text = "# \u4e16\u754c\n\tinput 3x8x8\n\trelu -> # c\n\t  maxpol2"
    (fault,) = read(text, "a.net").faults
    assert fault.span is not None
    assert (fault.span.line, fault.span.column, fault.span.text) == (4, 4, "maxpol2")


def test_wide_and_odd_characters_are_shown_safely() -> None:
    (fault,) = read('input 3; meta a="\u4e16\u754c" \x1b = relu\nrelu').faults
    shown = render(fault)
    assert "\x1b" not in shown
    lines = shown.split("\n")
    assert lines[4].index("^") == lines[3].index("\ufffd") + 2


def test_a_long_line_is_cut_around_the_fault() -> None:
    (fault,) = read("input 3; " + "relu -> " * 100 + "maxpol2" + " -> relu" * 100).faults
    lines = render(fault).split("\n")
    assert len(lines[3]) < 120
    at = lines[4].index("^")
    assert lines[3][at : at + 7] == "maxpol2"


def test_formatting_needs_a_sound_text() -> None:
    from netdsl.faults import NetError

    with pytest.raises(NetError, match="one word"):
        format_text("conv 3")
