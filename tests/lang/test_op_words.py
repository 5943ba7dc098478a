"""Op words and their parts."""

from __future__ import annotations

import pytest

from netdsl.lang.words import guess, near, read_word
from netdsl.ops import HEADS


@pytest.mark.parametrize(
    ("text", "head", "kernel", "options"),
    [
        ("conv3x3s1p1", "conv", (3, 3), {"s": (1,), "p": (1,)}),
        ("conv3", "conv", (3,), {}),
        ("conv3x5x7s2x1x1d2g4", "conv", (3, 5, 7), {"s": (2, 1, 1), "d": (2,), "g": (4,)}),
        ("conv5same", "conv", (5,), {"same": ()}),
        ("maxpool3s2p1ceil", "maxpool", (3,), {"s": (2,), "p": (1,), "ceil": ()}),
        ("maxpool3ceils2", "maxpool", (3,), {"s": (2,), "ceil": ()}),
        ("up2", "up", (2,), {}),
        ("relu", "relu", None, {}),
        ("relu6", "relu6", None, {}),
        ("prelu", "prelu", None, {}),
        ("lrn", "lrn", None, {}),
        ("lrn5", "lrn", (5,), {}),
        ("ln", "ln", None, {}),
        ("gn32", "gn", (32,), {}),
        ("in", "in", None, {}),
        ("log_softmax", "log_softmax", None, {}),
        ("pad", "pad", None, {}),
        ("conv1p0", "conv", (1,), {"p": (0,)}),
    ],
)
def test_parts(
    text: str, head: str, kernel: tuple[int, ...] | None, options: dict[str, tuple[int, ...]]
) -> None:
    word = read_word(text)
    assert word is not None
    assert (word.head, word.kernel, dict(word.options)) == (head, kernel, options)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_is_a_word(head: str) -> None:
    word = read_word(head)
    assert word is not None
    assert word.head == head


@pytest.mark.parametrize(
    "text", ["", "u", "p2", "conv3x", "conv3s", "convx3", "conv3q2", "relu 6", "conv3 x3", "Conv3"]
)
def test_no_words(text: str) -> None:
    assert read_word(text) is None


def test_an_option_given_twice_is_told() -> None:
    word = read_word("conv3s1p1s2")
    assert word is not None
    assert word.twice == "s"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("maxpol2", "maxpool2"),
        ("Conv3x3", "conv3x3"),
        ("softmx", "softmax"),
        ("cnv3x3s2", "conv3x3s2"),
        ("avgpoool7", "avgpool7"),
        ("inception", None),
        ("x", None),
        ("123", None),
    ],
)
def test_guess(text: str, meant: str | None) -> None:
    assert guess(text) == meant


def test_long_lists_are_not_searched() -> None:
    names = [f"name{i}" for i in range(10_000)]
    assert near("name1", names[:100]) == "name1"
    assert near("name1", names) is None
    assert near("n" * 100, ["n" * 99]) is None
