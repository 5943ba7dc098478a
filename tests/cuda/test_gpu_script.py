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

ROUNDED = {"tf32": 5e-3, "bf16": 3e-2}
LIMITS = {f"{kind}{p}": most for kind in ("", "packed ", "back ") for p, most in ROUNDED.items()}
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
    done = run("--dry-run", "--seconds", "3600", "--json", str(file))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "wrong: nothing" in done.stdout
    first, *_, last = done.stdout.splitlines()
    assert "no number here is real" in first
    assert first == last
    told = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [row for row in told if "line" in row]
    begun = [row["begins"] for row in told if "begins" in row]
    assert begun == [row["name"] for row in rows]
    rows = [row for row in rows if row["part"] != "versions"]
    assert {row["part"] for row in rows} == {"ops", "nets", "layers", "passes", "train"}
    ops = [row for row in rows if row["part"] == "ops"]
    kinds = {*COMPUTES["cuda"], *LIMITS, *(f"copied {p}" for p in ROUNDED)}
    kinds |= {"exact", "back", "step", "in a row"}
    assert {row["kind"] for row in ops} == kinds
    assert all(row["apart"] < LIMITS.get(row["kind"], 1e-5) for row in ops)
    assert not any(row["real"] for row in rows if row["part"] != "ops")


def test_without_a_card_it_says_so() -> None:
    done = run("--parts", "ops")
    if "card:" in done.stdout or done.returncode != 2:
        pytest.skip("there is a card")
    assert "nothing was measured" in done.stderr
    assert done.stdout == ""


STANDS_IN = """
import json, os, sys, time
part, first, seed, until, rows, *_ = sys.argv[1:]
with open(rows, "a") as file:
    for i in range(int(first), 5):
        told = {"part": part, "case": i, "begins": f"case {i}"}
        print(json.dumps(told), file=file, flush=True)
        if i == 1:
            os._exit(3)
        if i == 2:
            os.abort()
        if i == 3:
            time.sleep(600)
        told = {"part": part, "name": f"case {i}", "line": f"line {i}", "right": i < 4}
        print(json.dumps(told | {"listed": True}), file=file, flush=True)
"""


def test_what_ends_a_process_loses_one_case(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A card that is lost, a process that dies, and one that hangs, between two that are well."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import gpu

    (tmp_path / "gpu_parts.py").write_text(STANDS_IN)
    rows = tmp_path / "rows"
    rows.write_bytes(b"")
    monkeypatch.setattr(gpu, "HERE", tmp_path)
    monkeypatch.setattr(gpu, "PATIENCE", 2.0)
    report = gpu.Report(False, 0, 450.0, rows)
    gpu.attend(report, "nets")
    assert [line for line in report.lines if line.startswith("line")] == ["line 0", "line 4"]
    # Of the lost card its own process tells.
    assert report.wrong == ["case 2", "case 3", "case 4"]
    assert "did not end within 2 s" in report.lines[-2]
    begun = [json.loads(line)["case"] for line in rows.read_text().splitlines() if "begins" in line]
    assert begun == [0, 1, 2, 3, 4]


def test_no_part_is_begun_after_its_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import gpu

    (tmp_path / "gpu_parts.py").write_text(STANDS_IN)
    rows = tmp_path / "rows"
    rows.write_bytes(b"")
    monkeypatch.setattr(gpu, "HERE", tmp_path)
    report = gpu.Report(False, 0, 0.0, rows)
    gpu.attend(report, "nets")
    told = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [one["begins"] for one in told if "begins" in one] == ["case 0", "case 1"]


SANITIZER = """#!/bin/sh
echo "small: fp32 conv"
case $2 in
memcheck) echo "========= Invalid __global__ read of size 4 bytes"; exit 9;;
racecheck) sleep 600;;
esac
echo "========= ERROR SUMMARY: 0 errors"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_sanitizers_run_side_by_side_and_end_in_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import gpu

    tool = tmp_path / "compute-sanitizer"
    tool.write_text(SANITIZER)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    report = gpu.Report(False, 0, 3.0, tmp_path / "rows")
    gpu.sanitize(report)
    assert report.wrong == ["memcheck"]
    assert report.lines == [
        "memcheck: status 9, 1 cases done",
        "racecheck: no time for more, 1 cases done",
        "synccheck: nothing found, 1 cases done",
    ]


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


@pytest.mark.parametrize(
    ("kind", "apart", "right", "listed"),
    [
        ("fp32", [1.0, 0.0], False, True),
        ("in a row", [1.0, 0.0], False, True),
        ("back", [1.0, 0.0], True, True),
        ("back tf32", [1.0, 0.0], True, True),
        ("step", [1.0, 1.0], False, True),
        ("back", [float("nan"), float("nan")], False, True),
        ("fp32", [0.0], True, False),
    ],
)
def test_gradients_alone_are_asked_twice(
    kind: str, apart: list[float], right: bool, listed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding may turn a gradient at a kink, and nothing else."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import gpu_parts

    found = gpu_parts._checked(kind, "a net", lambda seed: apart[seed], 0)
    assert (found.right, found.listed) == (right, listed)
