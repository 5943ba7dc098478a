"""docs/python.md: its code runs, and prints what it says it prints."""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path

import pytest

import netdsl
from netdsl.formats.onnx import write_onnx

PRINTED = re.compile(r"^ *print\(.*\) +# (.*)$", re.MULTILINE)


def test_the_examples_of_the_page(
    root: Path, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(
        r"^```python\n(.*?)^```$", (root / "docs/python.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) >= 5
    weights = shared / "data/weights/bvlc_googlenet_fp16.safetensors"
    (tmp_path / "bvlc_googlenet.safetensors").symlink_to(weights)
    (tmp_path / "chelsea.png").symlink_to(shared / "data/photos/chelsea.png")
    small = netdsl.load(text="input 3x32x32; conv3x3p1(8) -> relu -> gap -> flatten -> fc(10)")
    write_onnx(small.graph, small.weights, tmp_path / "small.onnx")
    monkeypatch.chdir(tmp_path)
    said = StringIO()
    names: dict[str, object] = {}
    with redirect_stdout(said):
        for block in blocks:
            exec(block, names)
    expected = [line for block in blocks for line in PRINTED.findall(block)]
    for found, wanted in zip(said.getvalue().splitlines(), expected, strict=True):
        assert fnmatchcase(found, wanted.replace("...", "*")), (found, wanted)
