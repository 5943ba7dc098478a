"""`netdsl warm`: what runs need is compiled ahead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from netdsl.cli import app
from netdsl.cpu import cache
from netdsl.cpu.arena import kernels
from netdsl.find import graph_of
from netdsl.resources import zoo


def said(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["warm", *arguments])
    assert found.exit_code == 0, found.output
    return found.output


def test_a_warmed_net_needs_no_compiling() -> None:
    said("lenet5")
    again = said("lenet5")
    assert re.match(r"lenet5: \d+ kernels, all compiled before\n", again)
    assert str(cache.folder()) in again.replace("\n", "")
    assert all(kernel.ready for kernel in kernels(graph_of("lenet5")))


def test_without_nets_it_is_the_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netdsl.cpu.launch.compile_all", lambda wanted, progress: len(wanted))
    told = said()
    assert told.startswith(f"{len(zoo())} nets: ")
    assert " compiled in " in told


def test_a_folder_that_cannot_be_written_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("netdsl.cpu.launch.compile_all", lambda wanted, progress: 3)
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "nowhere")
    assert "cannot be kept in" in said("-e", "input 3x8x8; conv3x3(4)")


def test_no_such_net() -> None:
    found = CliRunner().invoke(app, ["warm", "lenet6"])
    assert found.exit_code == 2
