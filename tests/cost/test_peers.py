"""The peers' own figures: as once measured, and measured anew where the tools are installed."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from netdsl import lang
from netdsl.cost import count
from netdsl.cost.conventions import CONVENTIONS

FIGURES = json.loads(Path(__file__).with_name("peers.json").read_text(encoding="utf-8"))
MODULES = {"onnx-tool": "onnx_tool"}
CASES = [(text, tool) for text, figures in FIGURES.items() for tool in figures]


@pytest.mark.parametrize(("text", "tool"), CASES)
def test_as_measured(text: str, tool: str) -> None:
    """peers.json holds what the tools said of each net written with torch.nn."""
    assert CONVENTIONS[tool].total(count(lang.load(text))) == FIGURES[text][tool]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tool", [tool for tool in CONVENTIONS if tool in FIGURES[CASES[0][0]]])
def test_measured_now(tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("torch") is None or find_spec(MODULES.get(tool, tool)) is None:
        pytest.skip(f"{tool} is not installed")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import peers

    for text, figures in FIGURES.items():
        if tool in figures and "224x224" not in text:
            assert peers.figure(tool, lang.load(text)) == figures[tool], text
