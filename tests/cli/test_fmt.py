"""`netdsl fmt`."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from netdsl.cli import app

UGLY = "input  3x8x8\nconv3x3( 8 )->relu # why\n"
NEAT = "input 3x8x8\nconv3x3(8) -> relu  # why\n"


def fmt(*arguments: str, given: str = "") -> tuple[int, str, str]:
    found = CliRunner().invoke(app, ["fmt", *arguments], input=given)
    return found.exit_code, found.stdout, found.stderr


@pytest.fixture
def ugly(tmp_path: Path) -> Path:
    path = tmp_path / "mine.net"
    path.write_text(UGLY)
    return path


def test_in_place(ugly: Path) -> None:
    ugly.chmod(0o640)
    assert fmt(str(ugly)) == (0, f"{ugly}: laid out anew\n", "")
    assert ugly.read_text() == NEAT
    assert stat.S_IMODE(ugly.stat().st_mode) == 0o640
    assert [path.name for path in ugly.parent.iterdir()] == ["mine.net"]
    before = ugly.stat()
    assert fmt(str(ugly)) == (0, "", "")
    assert ugly.stat().st_mtime_ns == before.st_mtime_ns


def test_check_changes_nothing(ugly: Path) -> None:
    assert fmt("--check", str(ugly)) == (1, f"{ugly}: would be laid out anew\n", "")
    assert ugly.read_text() == UGLY
    ugly.write_text(NEAT)
    assert fmt("--check", str(ugly)) == (0, "", "")


def test_through_a_link_the_file_is_written(ugly: Path) -> None:
    link = ugly.parent / "link.net"
    link.symlink_to(ugly)
    assert fmt(str(link))[0] == 0
    assert link.is_symlink()
    assert ugly.read_text() == NEAT


def test_standard_input_and_text_go_to_standard_output() -> None:
    assert fmt("-", given=UGLY) == (0, NEAT, "")
    assert fmt("-e", "input 3;relu") == (0, "input 3\nrelu\n", "")


def test_a_fault_leaves_the_file_and_hides_no_other(ugly: Path) -> None:
    broken = ugly.parent / "broken.net"
    broken.write_text("input 3\nconv 3\n")
    code, _, err = fmt(str(broken), str(ugly))
    assert code == 2
    assert f"{broken}:2:6" in err
    assert broken.read_text() == "input 3\nconv 3\n"
    assert ugly.read_text() == NEAT


def test_json(ugly: Path) -> None:
    code, out, err = fmt("--json", "--check", str(ugly), "-e", "conv 3")
    found = json.loads(out)
    assert (code, err) == (2, "")
    assert (found["ok"], found["changed"]) == (False, [str(ugly)])
    assert [fault["code"] for fault in found["faults"]] == ["syntax"]


def test_a_failed_write_leaves_the_file(ugly: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("netdsl.cli.fmt.tempfile.mkstemp", full)
    code, _, err = fmt(str(ugly))
    assert code == 2
    assert "cannot be written: No space left on device" in err
    assert ugly.read_text() == UGLY


def test_a_stopped_rename_leaves_the_file(ugly: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(self: Path, target: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "replace", stopped)
    assert fmt(str(ugly))[0] == 2
    assert ugly.read_text() == UGLY
    assert [path.name for path in ugly.parent.iterdir()] == ["mine.net"]
