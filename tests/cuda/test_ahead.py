"""`netdsl warm --device cuda` finds what runs launch; test_driver.py has that it is compiled."""

from __future__ import annotations

from pathlib import Path

from test_simulated import simulate

from netdsl.cli import app

SCRIPT = Path(__file__).parent / "simulated_ahead.py"

NET = "input 3x6x6; conv3x3p1(8) -> bn -> relu -> maxpool2 -> dwconv3x3p1 -> flatten -> fc(5)"


def test_kernels_of_all_batches_are_found() -> None:
    cases = [[NET, "fp32", [1, 2, 5, 16]], [NET, "tf32", [1, 16]], ["input 4; relu", "bf16", [3]]]
    (all_missed, counts) = zip(*simulate("", cases, SCRIPT), strict=True)
    assert list(all_missed) == [[], [], []]
    # The tensor cores' three tiles stand in for one that packs, and one net has neither.
    assert counts[0] < counts[1]
    assert counts[2] == 1


def test_a_device_that_compiles_nothing_is_said() -> None:
    from typer.testing import CliRunner

    found = CliRunner().invoke(app, ["warm", "lenet5", "--device", "reference"])
    assert found.exit_code == 2
    assert "the reference compiles nothing" in found.stderr
