"""Every command in docs/lectures.md and docs/cost.md is run, and prints what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.console import Example, examples, run, shows

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("lectures.md", "cost.md")
CASES = [
    pytest.param(example, id=f"{page}-{at}")
    for page in PAGES
    for at, example in enumerate(examples((DOCS / page).read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("example", CASES)
def test_prints_what_is_shown(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = run(example.command)
    assert shows(example.shown, printed), f"{example.command}\n{printed}"


def test_a_page_that_shows_something_else_fails() -> None:
    printed = "one\ntwo\nthree\n"
    assert shows(("one", "…"), printed)
    assert shows(("…", "two", "…"), printed)
    assert not shows(("one", "three"), printed)
    assert not shows(("one", "two"), printed)


@pytest.mark.parametrize("page", PAGES)
def test_no_command_stands_outside_of_a_console_block(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    commands = re.findall(r"^\$ ", text, re.MULTILINE)
    assert len(commands) == len(examples(text)) > 0
