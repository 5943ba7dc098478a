"""What a card's peak is measured with multiplies what it should, and layers stand beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from netdsl.cli import app

SCRIPT = Path(__file__).parent / "simulated_peak.py"

# Of sums in float32, each a few hundred products long.
TOLERANCE = 1e-6


def test_the_peaks_kernels_multiply_what_lies_in_shared_memory() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert {kind: a for kind, a in found["apart"].items() if not a < TOLERANCE} == {}
    for precision, layers in found["layers"].items():
        assert layers["peak"] > 0
        # 16 positions of 3 filters of 18 products, a mean, and 2 sums of 3.
        assert layers["macs"] == [864, 0, 6]
        assert all(ms > 0 for ms in layers["ms"])
        on = "cuda" if precision == "fp32" else "cuda, tf32"
        assert f"Measured peak on {on}: " in layers["notes"][0]
        assert "Winograd" not in layers["notes"][0]


def benched(*words: str) -> dict[str, Any]:
    """The one row that a command in the simulator gives."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words, "--rounds", "1", "--patience", "0", "--json"],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (row,) = json.loads(done.stdout)
    assert isinstance(row, dict)
    return row


def test_bench_times_layers_on_a_card() -> None:
    """The whole command, PyTorch left out where it has no card."""
    pytest.importorskip("torch")
    words = ["bench", "-e", "input 2x4x4; conv3x3p1(3) -> relu", "--device", "cuda", "--layers"]
    row = benched(*words)
    assert row["device"] == "cuda"
    assert row["peak_gflops"] >= 0
    assert [layer["op"] for layer in row["layers"]] == ["conv3x3p1(3) -> relu"]


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_bench_times_training_on_a_card(precision: str) -> None:
    """In every precision, PyTorch left out where it has no card."""
    pytest.importorskip("torch")
    net = "input 2x4x4; conv3x3p1(3) -> relu -> flatten -> fc(2)"
    words = ["bench", "-e", net, "--device", "cuda", "--train", "--precision", precision]
    row = benched(*words)
    assert (row["device"], row["precision"]) == ("cuda", precision)
    assert row["min_ms"] > 0


@pytest.mark.parametrize("flag", [["--threads", "2"], ["--cpu-time"]])
def test_what_only_a_processor_has_is_said(
    flag: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr("netdsl.cuda.check", lambda *_: None)
    words = ["bench", "-e", "input 3; fc(2)", "--device", "cuda", "--against", "torch", *flag]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 2
    assert f"{flag[0]} is for the cpu, not for cuda" in " ".join(found.stderr.split())
