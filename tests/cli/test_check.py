"""`netdsl check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from netdsl.cli import app

WRONG = "input 3x8x8\nconv3x3(8) -> maxpol2\nfc(10) -> dropout(2)\n"
DOUBTFUL = "input 3x8x8\nconv3x3(8) -> double\n"


def check(*arguments: str, given: bytes = b"") -> tuple[int, str, str]:
    found = CliRunner().invoke(app, ["check", *arguments], input=given)
    return found.exit_code, found.stdout, found.stderr


def test_a_sound_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.net"
    path.write_text("input 3; fc(10)")
    assert check(str(path)) == (0, f"{path}: ok\n", "")


def test_every_fault_is_shown_and_two_is_the_end(tmp_path: Path) -> None:
    path = tmp_path / "mine.net"
    path.write_text(WRONG)
    code, out, err = check(str(path), "lenet5")
    assert code == 2
    assert f"{path}: 2 errors\n" in out
    assert "lenet5.net: ok\n" in out
    assert f" --> {path}:2:15\n" in err
    assert "did you mean `maxpool2`?" in err
    assert "error[out-of-range]" in err


def test_warnings_alone_are_no_failure() -> None:
    code, out, err = check("-e", DOUBTFUL)
    assert (code, out) == (0, "-e 1: 1 warning\n")
    assert err.startswith("warning[unheeded-double]")


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "mine.net"
    path.write_text(WRONG)
    code, out, err = check(str(path), "-e", DOUBTFUL, "--json")
    found = json.loads(out)
    assert (code, err, found["ok"]) == (2, "", False)
    assert found["faults"][0] == {
        "code": "unknown-op",
        "severity": "error",
        "message": "there is no op, block or tensor called `maxpol2`",
        "file": str(path),
        "line": 2,
        "column": 15,
        "help": "did you mean `maxpool2`?",
    }
    assert [(f["code"], f["file"]) for f in found["faults"][1:]] == [
        ("out-of-range", str(path)),
        ("unheeded-double", None),
    ]


def test_json_of_a_sound_net() -> None:
    code, out, _ = check("lenet5", "--json")
    assert (code, json.loads(out)) == (0, {"ok": True, "faults": []})


def test_standard_input() -> None:
    assert check("-", given=b"input 3; fc(10)")[:2] == (0, "standard input: ok\n")
    assert check("-", given=b"input 3; fc")[0] == 0
    assert check("-", given=b"input 3; conv")[0] == 2


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"input 3\xff\nrelu", "not-text"),
        (b"\x00\x01\x02", "not-text"),
        (b"#" * (1 << 21), "too-large"),
    ],
)
def test_what_is_no_net(tmp_path: Path, data: bytes, code: str) -> None:
    path = tmp_path / "junk.net"
    path.write_bytes(data)
    for name, given in ((str(path), b""), ("-", data)):
        ended, out, _ = check(name, "--json", given=given)
        found = json.loads(out)
        assert (ended, [f["code"] for f in found["faults"]]) == (2, [code])
        assert found["faults"][0]["file"] == name


def test_a_file_that_is_not_there_hides_no_other(tmp_path: Path) -> None:
    code, out, err = check("nowhere.net", str(tmp_path), "lenet5")
    assert code == 2
    assert "lenet5.net: ok" in out
    assert "there is no file 'nowhere.net'" in err
    assert "is a folder" in err


def test_nothing_given() -> None:
    code, _, err = check()
    assert code == 2
    assert "no net was given" in err


def test_limits_are_lifted_by_a_flag() -> None:
    text = "input 3; relu x10001"
    assert check("-e", text)[0] == 2
    assert check("-e", text, "--no-limits")[0] == 0
