"""benchmarks/gpu.py, which waits for a card, runs in the simulator from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from netdsl.lang import load
from netdsl.ops import BatchNorm, Dropout
from netdsl.runner import COMPUTES

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"

LIMITS = {"tf32": 5e-3, "bf16": 3e-2, "back tf32": 5e-3, "back bf16": 3e-2}
"""Of the largest value; other kinds round as float32 does."""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        env=env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_dry_run_does_all_parts(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    done = run("--dry-run", "--json", str(file))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "wrong: nothing" in done.stdout
    first, *_, last = done.stdout.splitlines()
    assert "no number here is real" in first
    assert first == last
    rows = json.loads(file.read_text())
    assert {row["part"] for row in rows} == {"ops", "nets", "layers", "passes", "train"}
    ops = [row for row in rows if row["part"] == "ops"]
    assert {row["kind"] for row in ops} == {*COMPUTES["cuda"], *LIMITS, "back"}
    assert all(row["apart"] < LIMITS.get(row["kind"], 1e-5) for row in ops)
    assert not any(row["real"] for row in rows if row["part"] != "ops")


def test_without_a_card_it_says_so() -> None:
    done = run("--parts", "ops")
    if "card:" in done.stdout or done.returncode != 2:
        pytest.skip("there is a card")
    assert "nothing was measured" in done.stderr
    assert done.stdout == ""


def test_every_op_is_among_the_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward, both as they will be run on a card."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import gpu_cases as cases

    from netdsl.cuda.backward.table import BACKS
    from netdsl.cuda.table import RECIPES as FORWARD

    for texts, recipes in ((cases.FORWARD, FORWARD), (cases.BACKWARD, BACKS)):
        met = {type(node.op) for text in texts for node in load(text)}
        assert {op.__name__ for op in set(recipes) - met - {Dropout}} == set()
    for text in (*cases.PASSES, *cases.TINY_PASSES, *cases.TINY_FORWARD, *cases.TINY_BACKWARD):
        assert not any(isinstance(node.op, Dropout) for node in load(text))
    # A bias before a norm of its channel has no gradient but rounding.
    for text in cases.BACKWARD:
        graph = load(text)
        for node in graph:
            if isinstance(node.op, BatchNorm):
                assert f"{node.inputs[0]}.bias" not in graph.all_parameters()
