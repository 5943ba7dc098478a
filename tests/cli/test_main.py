"""The program as a whole: its commands, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import netdsl
from netdsl.cli import app
from netdsl.cli.main import COMMANDS

NETDSL = [sys.executable, "-c", "from netdsl.cli import main; main()"]


def test_help_lists_every_command() -> None:
    found = CliRunner().invoke(app, ["--help"])
    assert found.exit_code == 0
    assert set(COMMANDS) <= set(found.output.replace("│", " ").split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    found = CliRunner().invoke(app, [command, "--help"])
    assert found.exit_code == 0
    assert f"netdsl {command}" in found.output or f"root {command}" in found.output


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"netdsl {netdsl.__version__}\n"


def test_an_unknown_command() -> None:
    found = CliRunner().invoke(app, ["rum"])
    assert found.exit_code == 2
    assert "no command 'rum'" in found.stderr
    assert "did you mean run?" in found.stderr


def test_an_unknown_flag_is_bad_input_too() -> None:
    assert CliRunner().invoke(app, ["run", "lenet5", "--tpo", "3"]).exit_code == 2


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("netdsl.find.graph_of", interrupted)
    found = CliRunner().invoke(app, ["run", "lenet5"])
    assert found.exit_code == 130
    assert found.stderr.split() == ["stopped"]


def test_a_reader_that_leaves_is_no_error() -> None:
    program = subprocess.Popen(
        [*NETDSL, "nets"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    program.stdout.close()
    assert program.stderr is not None
    assert program.stderr.read() == ""
    program.stderr.close()
    assert program.wait() == 1


def test_nets_lists_the_zoo(root: Path) -> None:
    found = json.loads(CliRunner().invoke(app, ["nets", "--json"]).stdout)
    assert [one["net"] for one in found] == sorted(p.stem for p in (root / "nets").glob("*.net"))
    vgg = next(one for one in found if one["net"] == "vgg16")
    assert vgg["year"] == 2014
    assert vgg["top5_error"] == 7.3
    assert vgg["params"] == 138_357_544
    assert vgg["macs"] == 15_470_264_320
    assert vgg["input"] == [[3, 224, 224]]
    table = CliRunner().invoke(app, ["nets"]).stdout
    assert "138,357,544" in table
    assert "7.3%" in table


def test_info() -> None:
    found = json.loads(CliRunner().invoke(app, ["info", "--json"]).stdout)
    assert found["netdsl"] == netdsl.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "cpu" in found["devices"]
    assert found["threads"] >= 1
    lines = CliRunner().invoke(app, ["info"]).stdout.splitlines()
    assert len(lines) == len(found)
