"""How results are printed."""

from __future__ import annotations

import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from netdsl.cli.results import BAR, LABEL, Ranged, Result, Sheet, as_json
from netdsl.scores import Guess


def shown(result: Result, *, raw: bool = False, labels: tuple[str, ...] | None = None) -> list[str]:
    console = Console(file=StringIO(), width=40)
    Sheet(console, raw).show(result, labels)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def test_bars_are_as_long_as_their_shares() -> None:
    guesses = [Guess(0, "cat", 1.0), Guess(1, "sea lion", 0.5), Guess(2, None, 1 / (8 * BAR))]
    head, *rows = shown(
        Result("a very long name of a file that is not broken.png", 1.25, {"y": guesses})
    )
    assert head == "a very long name of a file that is not broken.png  1.2 ms"
    assert rows[0] == "  cat       100.0%  " + "█" * BAR
    assert rows[1] == "  sea lion   50.0%  " + "█" * (BAR // 2)
    assert rows[2] == "  class 2     0.5%  ▏"


def test_names_are_shown_as_they_are_but_not_too_long() -> None:
    (_, row) = shown(Result("[red]x[/red]", 1, {"y": [Guess(0, "[bold]" + "n" * 50, 0.0)]}))
    assert row.startswith("  [bold]nnn")
    assert "…" in row
    assert len(row.split("…")[0]) == LABEL + 1


def test_raw_scores_have_no_bars() -> None:
    assert shown(Result("x", 1, {"y": [Guess(0, "cat", -2.5)]}), raw=True)[1] == "  cat     -2.5000"


def test_the_true_class_is_said() -> None:
    guesses = [Guess(1, "dog", 0.9)]
    right, wrong = (Result("x", 1, {"y": guesses}, label=i) for i in (1, 0))
    assert shown(right, labels=("cat", "dog"))[0].endswith("is dog")
    assert (right.right, wrong.right) == (True, False)
    assert Result("x", 1, {"y": guesses}).right is None
    assert shown(Result("x", 1, {"y": guesses}, label=7), labels=("cat",))[0].endswith("is 7")


def test_numbers_that_json_lacks() -> None:
    found = Result("x", 1, {"y": [Guess(0, None, np.nan)], "z": Ranged((2, 2), 0.0, np.inf, 1.0)})
    record = json.loads(as_json(found), parse_constant=pytest.fail)
    assert record["top"] == [{"index": 0, "label": None, "score": None}]
    assert record["outputs"]["z"] == {"shape": [2, 2], "min": 0.0, "max": None, "mean": 1.0}
