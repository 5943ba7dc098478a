"""Sheets as text, CSV and Markdown."""

from __future__ import annotations

import csv
import io

import pytest

from netdsl.cost import count
from netdsl.cost.export import as_csv, as_markdown
from netdsl.cost.sheet import Column, Sheet, memory, number, short
from netdsl.cost.tables import bar, cost_sheet, natural_width, percent, table_lines
from netdsl.find import graph_of

SHEET = Sheet(
    "a title",
    (Column("name"), Column("size", number, right=True, bar=True), Column("shape")),
    (("one", 1_000_000, (2, 3)), ("two|x", 3_000_000, None), ("none", 0, ())),
    (("total", 4_000_000, None),),
    ("a note",),
    "net",
)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (12_845_056, "12.25 MiB"),
        (10**24, "888,178,419.70 PiB"),
    ],
)
def test_memory(size: int, text: str) -> None:
    assert memory(size) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (15_470_264_320, "15.47 G"), (0.5, "0.5")],
)
def test_short(value: float, text: str) -> None:
    assert short(value) == text


def test_bars() -> None:
    assert bar(0.0) == " " * 8
    assert bar(1.0) == "█" * 8
    assert bar(0.5) == "████    "
    assert bar(1e-9)[0] == "▏"


def test_percentages() -> None:
    assert [percent(x) for x in (0.0, 0.004, 0.006, 0.5, 1.0)] == [
        "  0%", " <1%", "  1%", " 50%", "100%",
    ]  # fmt: skip


def test_bars_and_percentages_go_where_there_is_no_room() -> None:
    full = natural_width(SHEET)
    wide, narrow, none = (table_lines(SHEET, width) for width in (full, full - 1, 10))
    assert "75% ████████" in wide[3]
    assert "75%" not in narrow[3]
    assert "█" in narrow[3]
    assert "█" not in "".join(none)
    assert all(len(line) <= full for line in wide)


def test_colours_only_where_asked_for() -> None:
    assert "\x1b[" not in "".join(table_lines(SHEET))
    assert "\x1b[1ma title\x1b[0m" in table_lines(SHEET, colored=True)


def test_csv_is_exact() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv([cost_sheet(count(graph_of("vgg16")))]))))
    assert rows[0]["activation_bytes"] == "12845056"
    assert sum(int(row["macs"]) for row in rows) == 15_470_264_320
    assert rows[0]["out"] == "64x224x224"


def test_csv_of_several_nets_says_which() -> None:
    sheets = [cost_sheet(count(graph_of(name))) for name in ("lenet5", "alexnet")]
    rows = list(csv.DictReader(io.StringIO(as_csv(sheets))))
    assert {row["net"] for row in rows} == {"lenet5", "alexnet"}


def test_markdown() -> None:
    lines = as_markdown(SHEET).splitlines()
    assert lines[2:4] == ["| name | size | shape |", "| --- | ---: | --- |"]
    assert "two\\|x" in lines[5]
    assert "| **total** | **4,000,000** |  |" in lines
    assert lines[-1] == "a note"
