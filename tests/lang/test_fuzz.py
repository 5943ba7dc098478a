"""Any text either parses or gives faults; formatting changes no meaning."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from netdsl.faults import NetError
from netdsl.lang import format_text, parse, read, render, to_dict
from tests.lang.texts import CHARACTERS, NETS, damaged, sound


def check(text: str) -> None:
    """A graph or faults, and every fault can be shown."""
    result = read(text)
    errors = [fault for fault in result.faults if fault.severity == "error"]
    assert (result.graph is None) == bool(errors)
    for fault in result.faults:
        assert fault.message in render(fault).replace("\n", " ") or not fault.message.isprintable()
        assert to_dict(fault)["code"]
        if fault.span is not None:
            assert 0 <= fault.span.start <= fault.span.end <= len(text)
    if result.graph is not None:
        names = [node.name for node in result.graph]
        assert len(set(names)) == len(names)
        seen: set[str] = set()
        for node in result.graph:
            assert seen.issuperset(node.inputs)
            assert node.op.output(result.graph.input_shapes(node)) == node.shape
            seen.add(node.name)


@given(CHARACTERS)
@example('"')
@example("{")
@example("\ufeffinput 3\r\nrelu\r\n")
@example("conv{[}")
@example("conv{#}\n}")
def test_any_text(text: str) -> None:
    check(text)


@given(damaged())
def test_damaged_nets(text: str) -> None:
    check(text)


@given(NETS)
def test_nets_of_the_languages_own_pieces(text: str) -> None:
    check(text)


@given(sound())
def test_a_formatted_net_is_the_same_graph(text: str) -> None:
    graph = read(text).graph
    assert graph is not None
    assert read(format_text(text)).graph == graph


@given(st.one_of(NETS, damaged(), sound()))
def test_formatting_keeps_meaning_and_comments_and_is_idempotent(text: str) -> None:
    before = parse(text)
    if before.faults:
        with pytest.raises(NetError):
            format_text(text)
        return
    formatted = format_text(text)
    assert parse(formatted).statements == before.statements
    assert comments(formatted) == comments(text)
    assert format_text(formatted) == formatted


def comments(text: str) -> list[str]:
    """Comments as they stand, in order. No string of these tests holds a #."""
    lines = text.replace("\f", " ").replace("\v", " ").split("\n")
    return [line[line.index("#") :].rstrip() for line in lines if "#" in line]
