"""docs/run.md: its commands print what it says they print, but for the times."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from netdsl.cli import app

BLOCK = re.compile(r"^```\n\$ netdsl (.*)\n((?:.*\n)*?)```$", re.MULTILINE)
TIMES = re.compile(r"[\d,.]+ (ms|a second)")


@pytest.fixture
def page(root: Path, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page's text, in a folder that has the files it speaks of."""
    for name in ("weights/bvlc_googlenet_fp16.safetensors", "photos/chelsea.png"):
        (tmp_path / Path(name).name).symlink_to(shared / "data" / name)
    monkeypatch.chdir(tmp_path)
    return (root / "docs/run.md").read_text()


def run(words: list[str]) -> str:
    return CliRunner().invoke(app, words, env={"COLUMNS": "200"}).output


def test_the_examples_of_the_page(page: str) -> None:
    found = BLOCK.findall(page)
    assert len(found) == 2
    for command, shown in found:
        assert TIMES.sub("…", run(shlex.split(command))) == TIMES.sub("…", shown)


def test_the_json_of_the_page(page: str) -> None:
    (shown,) = json.loads(re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0])
    (command, _), _ = BLOCK.findall(page)
    (found,) = json.loads(run([*shlex.split(command), "--top", "1", "--json"]))
    (guess,), (wanted,) = found.pop("top"), shown.pop("top")
    assert guess.pop("score") == pytest.approx(wanted.pop("score"), abs=1e-4)
    assert guess == wanted
    assert found | {"ms": 0} == shown | {"ms": 0}
