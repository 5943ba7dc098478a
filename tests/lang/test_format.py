"""How files are laid out."""

from __future__ import annotations

import pytest

from netdsl.lang import format_text

LAYOUTS = {
    "spaces": (
        "net   a\ninput  3x8x8(resize = 9,mean=[1,2 , 3])as  x\n"
        "  conv3( 4*w ,bias = no )->relu x3   as y",
        "net a\ninput 3x8x8 (resize=9, mean=[1, 2, 3]) as x\nconv3(4*w, bias=no) -> relu x3 as y\n",
    ),
    "arithmetic": (
        "fc(w+1, a-b - -2, 2 * (w+1)//3, -(a), 4/ w)",
        "fc(w + 1, a - b - -2, 2*(w + 1)//3, -(a), 4/w)\n",
    ),
    "insertion": ("conv{ k // 2 }x{k} x{ n-1 }", "conv{k//2}x{k} x{n-1}\n"),
    "idle arrows": ("-> a -> [ -> b -> | c ->] ->", "a -> [b | c]\n"),
    "semicolons and empty lines": (
        "\n\ninput 3 ;relu;;\n\n\n\n# c\n\ngap ;\n",
        "input 3\nrelu\n\n# c\n\ngap\n",
    ),
    "side classifiers": ("aux( 0.3 ){a->b}", "aux(0.3) { a -> b }\n"),
    "definitions": (
        "def a=b\ndef longer( x,y = 2 )=[b|c]\n\ndef c = d",
        "def a              = b\ndef longer(x, y=2) = [b | c]\n\ndef c = d\n",
    ),
    "arrows of like lines": (
        "conv3(8) -> maxpool2 -> relu\nconv3p1(16) -> maxpool3s2 -> relu\nconv3(8) -> gap",
        "conv3(8)    -> maxpool2   -> relu\nconv3p1(16) -> maxpool3s2 -> relu\nconv3(8) -> gap\n",
    ),
    "labels of like lines": (
        "block(8) as a\nblock(128) as b -> gap\nother(8) as c",
        "block(8)   as a\nblock(128) as b -> gap\nother(8) as c\n",
    ),
    "nothing is moved far": (
        "conv3(8) -> gap\nconv3x3s2p1(8, bias=no, pad_end=2x2) -> gap",
        "conv3(8) -> gap\nconv3x3s2p1(8, bias=no, pad_end=2x2) -> gap\n",
    ),
    "comments": (
        "#a\nrelu    # b\nmaxpool2 # c\n\n  # d\n\n#e\ngap#f\n",
        "#a\nrelu      # b\nmaxpool2  # c\n\n# d\n\n#e\ngap  #f\n",
    ),
    "an open bracket stays open": (
        "def a = [\n b | c] -> d",
        "def a = [\n    b\n  | c\n] -> d\n",
    ),
    "a closed bracket stays closed": ("def a = [ b\n| c\n]", "def a = [b | c]\n"),
    "comments inside": (
        "[ # first\n a -> b # second\n # third\n | c # fourth\n ] -> d",
        "[  # first\n    a -> b  # second\n    # third\n  | c  # fourth\n] -> d\n",
    ),
    "comments in a chain": (
        "a -> # one\n b\n # two\n -> c",
        "a ->  # one\n    b\n    # two\n    -> c\n",
    ),
    "a long bracket": (
        "def inception(a, b, c, d) = [conv1x1(a) | conv1x1(b) -> conv3x3p1(b) | conv1x1(c)"
        " -> conv5x5p2(c) | maxpool3s1p1 -> conv1x1(d)]",
        "def inception(a, b, c, d) = [\n"
        "    conv1x1(a)\n"
        "  | conv1x1(b) -> conv3x3p1(b)\n"
        "  | conv1x1(c) -> conv5x5p2(c)\n"
        "  | maxpool3s1p1 -> conv1x1(d)\n"
        "]\n",
    ),
    "a long chain": (
        "conv3p1(64) -> " * 8 + "[id | relu]",
        " -> ".join(["conv3p1(64)"] * 7) + "\n    -> conv3p1(64) -> [id | relu]\n",
    ),
    "long arguments": (
        "conv3x3(" + ", ".join(f"setting{i}={i}" for i in range(12)) + ")",
        "conv3x3(\n    "
        + ", ".join(f"setting{i}={i}" for i in range(7))
        + ",\n    "
        + ", ".join(f"setting{i}={i}" for i in range(7, 12))
        + "\n)\n",
    ),
    "the end of lines": ("input 3\r\nrelu  \r\n", "input 3\nrelu\n"),
    "nothing": ("\n\n", ""),
}


@pytest.mark.parametrize("what", LAYOUTS)
def test_layout(what: str) -> None:
    text, expected = LAYOUTS[what]
    assert format_text(text) == expected
    assert format_text(expected) == expected
