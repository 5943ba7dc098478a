"""Places in a text, and how a NetError reads as plain text."""

import pytest

from netdsl.faults import Fault, NetError, Source, Span, error


def test_lines_and_columns_count_from_one() -> None:
    source = Source("ab\ncd\n\nef", "x.net")
    assert [source.position(i) for i in (0, 1, 3, 6, 7, 8)] == [
        (1, 1),
        (1, 2),
        (2, 1),
        (3, 1),
        (4, 1),
        (4, 2),
    ]


def test_a_span_is_its_text_and_place() -> None:
    span = Span(Source("conv3 -> maxpol2", "x.net"), 9, 16)
    assert (span.text, span.line, span.column) == ("maxpol2", 1, 10)
    assert str(NetError(Fault("unknown-op", "no such op", span, "did you mean maxpool2?"))) == (
        "x.net:1:10: no such op (did you mean maxpool2?)"
    )


def test_an_error_without_a_place_names_its_file() -> None:
    assert str(error("weights", "truncated", file="w.safetensors")) == "w.safetensors: truncated"


def test_several_faults_read_a_line_each() -> None:
    assert str(NetError(Fault("a", "one"), Fault("b", "two"))) == "one\ntwo"


def test_an_error_needs_a_fault() -> None:
    with pytest.raises(ValueError, match="needs a fault"):
        NetError()
