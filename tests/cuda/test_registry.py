"""Kernels are found in the sources wherever they stand."""

from __future__ import annotations

from pathlib import Path

from registry import written

SOURCES = {
    "plain.py": "@cuda.jit\ndef one(a):\n    pass\n",
    "deep/made.py": (
        "def make(n):\n    @cuda.jit(fastmath=False)\n    def two(a):\n        pass\n"
        "TABLE = {(n,): [make(n)] for n in range(3)}\n"
    ),
    "deep/__init__.py": "@cuda.jit(device=False)\ndef three(a):\n    pass\n",
    "device.py": (
        "@cuda.jit(device=True)\ndef four(a):\n    pass\n"
        "@cuda.jit(device=True, inline='always')\ndef five(a):\n    pass\n"
        "@njit\ndef six(a):\n    pass\n"
    ),
}


def test_kernels_are_found_wherever_they_stand(tmp_path: Path) -> None:
    for name, text in SOURCES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert written(tmp_path) == {
        "netdsl.cuda.plain:one",
        "netdsl.cuda.deep.made:two",
        "netdsl.cuda.deep:three",
    }
