"""`netdsl train` and `netdsl eval` from outside."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from netdsl.cli import app
from netdsl.formats.safetensors import WeightsFile

NET = "net spots; input 1x8x8; conv3p1(4) -> bn -> relu -> maxpool2 -> fc(3)"
CORNERS = ((0, 0), (0, 5), (5, 0))


def run(*words: object) -> Result:
    return CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200"})


def fails(*words: object) -> str:
    """What a command that must end with status 2 says, on one line."""
    found = run(*words)
    assert found.exit_code == 2, found.output
    assert "Traceback" not in found.output
    return " ".join(found.stderr.split())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a net and data: a bright spot in one of three corners is the class."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    pictures = rng.integers(0, 60, (60, 1, 8, 8)).astype(np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        y, x = CORNERS[label]
        picture[0, y : y + 3, x : x + 3] += 150
    np.savez(
        tmp_path / "data.npz",
        **{"x_train": pictures, "y_train": labels, "x_test": pictures[:30], "y_test": labels[:30]},
    )
    (tmp_path / "spots.net").write_text(NET.replace("; ", "\n"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


FLAGS = ("--batch", 10, "--rate", 0.02, "--threads", 1)


def test_from_a_file_to_weights(here: Path) -> None:
    found = run(
        *("train", "spots.net", "data.npz", *FLAGS, "--epochs", 6),
        *("--metrics", "m.csv", "--curves", "c.png"),
    )
    assert found.exit_code == 0, found.output
    assert "60 examples" in found.stdout
    assert "3 classes, from 20 (0) to 20 (0)" in found.stdout
    assert "epoch 6/6" in found.stdout
    rows = list(csv.DictReader((here / "m.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == list("123456")
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert (here / "c.png").read_bytes().startswith(b"\x89PNG")
    assert "conv1.weight" in WeightsFile(here / "spots.safetensors").shapes
    verdict = run("eval", "spots.net", "data.npz", "--threads", 1, "--json")
    assert verdict.exit_code == 0, verdict.output
    said = json.loads(verdict.stdout)
    assert said.keys() == {"count", "top1", "top5", "loss"}
    assert said["count"] == 30
    assert said["top1"] == float(rows[-1]["validation_accuracy"])
    assert said["top1"] > 0.9
    assert said["top5"] == 1.0
    assert said["loss"] == pytest.approx(float(rows[-1]["validation_loss"]), rel=1e-4)
    shown = run("eval", "spots.net", "data.npz", "--threads", 1, "--batch", 7)
    assert shown.exit_code == 0, shown.output
    assert "30 examples: top 1" in shown.stdout
    assert "taken for" in shown.stdout
    less = run("eval", "spots.net", "data.npz", "--threads", 1, "--fc-weights", "int8", "--json")
    assert "weights rounded to int8 are off by, in root mean square: fc1 0." in less.stderr
    assert json.loads(less.stdout)["loss"] == pytest.approx(said["loss"], rel=0.1)
    assert json.loads(less.stdout)["loss"] != said["loss"]


def test_resume_of_what_is_done_and_of_other_settings(here: Path) -> None:
    assert run("train", "spots.net", "data.npz", *FLAGS, "--epochs", 1).exit_code == 0
    again = run("train", "spots.net", "data.npz", "--resume")
    assert again.exit_code == 0, again.output
    assert "going on after epoch 1, step 0" in again.stdout
    said = fails("train", "spots.net", "data.npz", "--resume", "--rate", 0.5)
    assert "the checkpoint trains with rate 0.02, not 0.5" in said
    (here / "other.net").write_text("input 1x8x8\nfc(3)\n")
    said = fails("train", "other.net", "data.npz", "--resume", "--out", "spots.safetensors")
    assert "is a checkpoint of the net spots, not of other" in said
    whole = (here / "spots.checkpoint").read_bytes()
    (here / "spots.checkpoint").write_bytes(whole[:-100])
    assert "broken off" in fails("train", "spots.net", "data.npz", "--resume")
    (here / "spots.checkpoint").unlink()
    assert "no weights file" in fails("train", "spots.net", "data.npz", "--resume")


def test_metrics_as_json_lines_and_early_stopping(here: Path) -> None:
    found = run(
        *("train", "spots.net", "data.npz", *FLAGS, "--epochs", 9, "--validation", 0.2),
        *("--patience", 1, "--rate", 0, "--metrics", "m.jsonl", "--optimiser", "sgd"),
    )
    assert found.exit_code == 0, found.output
    assert "no better validation for 1 epochs: stopped" in found.stdout
    rows = [json.loads(line) for line in (here / "m.jsonl").read_text().splitlines()]
    assert 2 <= len(rows) < 9


def test_overfit_learns_a_handful_by_heart(here: Path) -> None:
    found = run("train", "spots.net", "data.npz", "--overfit", 9, "--rate", 0.05, "--threads", 1)
    assert found.exit_code == 0, found.output
    assert "spots on 9 examples" in found.stdout
    assert "100.00% right" in found.stdout.splitlines()[-2]


def test_gradient_check(here: Path) -> None:
    found = run("train", "spots.net", "--check-gradients", "--threads", 1)
    assert found.exit_code == 0, found.output
    assert "6 gradients agree with central differences" in found.stdout
    said = fails("train", "-e", "input 9; dropout -> fc(2)", "--check-gradients")
    assert "drops at random" in said


def test_nothing_is_learned_that_could_not_be_kept(here: Path) -> None:
    before = sorted(here.iterdir())
    said = fails("train", "spots.net", "data.npz", *FLAGS, "--out", "data.npz/w.safetensors")
    assert "there is no folder data.npz" in said
    (here / "w.checkpoint").mkdir()
    said = fails("train", "spots.net", "data.npz", *FLAGS, "--out", "w.safetensors")
    assert "w.checkpoint cannot be written: it is a folder" in said
    (here / "w.checkpoint").rmdir()
    assert sorted(here.iterdir()) == before


def test_a_nets_name_leads_nowhere_else(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "in").mkdir()
    monkeypatch.chdir(here / "in")
    text = NET.replace("spots", '"../away"')
    for words in (
        ("train", "-e", text, "../data.npz", *FLAGS, "--epochs", 1),
        ("draw", "-e", text),
    ):
        found = run(*words)
        assert found.exit_code == 0, found.output
    names = {path.name for path in (here / "in").iterdir()}
    assert names == {"__away.safetensors", "__away.checkpoint", "__away.svg"}
    assert not list(here.glob("away*"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("spots.net",), "no data was given"),
        ((), "no net was given"),
        (("spots.net", "nowhere"), "there is no data 'nowhere'"),
        (("spots.net", "data.npz", "--batch", "61"), "a batch of 61 is larger than the data"),
        (
            ("spots.net", "data.npz", "--batch", "9", "--rate", "1e30"),
            "is the first layer with such numbers",
        ),
        (("spots.net", "data.npz", "--optimiser", "adom"), "there is no optimiser 'adom'"),
        (("spots.net", "data.npz", "--augment", "spin"), "there is no augmentation 'spin'"),
        (("spots.net", "data.npz", "--metrics", "m.txt"), "metrics go to a .csv or .jsonl file"),
        (("spots.net", "data.npz", "--curves", "m.txt"), "curves are .png, .svg, .pdf files"),
        (("spots.net", "data.npz", "--broken", "eat"), "--broken is stop or skip, not eat"),
        (("spots.net", "data.npz", "--out", "no/w.safetensors"), "there is no folder no"),
        (("spots.net", "data.npz", "--out", "."), ". cannot be written: it is a folder"),
        (("spots.net", "data.npz", "--out", "w.checkpoint"), "is where checkpoints go"),
        (("spots.net", "data.npz", "--metrics", "no/m.csv"), "there is no folder no"),
        (("spots.net", "data.npz", "--curves", "no/c.png"), "there is no folder no"),
        (("spots.net", "data.npz", "--out", "w" * 250), "File name too long"),
        (("spots.net", "data.npz", "--overfit", "61"), "data.npz has 60 examples"),
        (("spots.net", "data.npz", "--save-every", "0"), "--save-every is 0"),
        (("-e", "input 1x8x8; fc(2)", "data.npz", "--batch", "9"), "has label 2"),
        (("-e", "input 1x9x9; fc(3)", "wrong.npz", "--batch", "9"), "there is no data"),
        (("-e", "input 2x8x8; fc(3)", "data.npz", "--batch", "9"), "the net's input is 2x8x8"),
    ],
)
def test_bad_input_gets_one_sentence(here: Path, words: tuple[str, ...], says: str) -> None:
    assert says in fails("train", *words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("spots.net", "nowhere"), "there is no data 'nowhere'"),
        ((), "no net was given"),
        (("spots.net",), "no data was given"),
        (("-e", "input 1x8x8; fc(2)", "data.npz"), "has label 2"),
        (("spots.net", "data.npz", "-e", "input 1x8x8; fc(3)"), "both a net and a text"),
        (("spots.net", "data.npz", "--part", "both"), "--part is test or train"),
        (("spots.net", "data.npz", "--loss", "mae"), "there is no loss 'mae'"),
        (("spots.net", "data.npz", "--batch", "0"), "batch is 0"),
        (("spots.net", "data.npz", "--fc-weights", "tf32"), "not kept in tf32"),
        (("spots.net", "data.npz", "--weights", "no.safetensors"), "no weights file"),
    ],
)
def test_bad_input_of_eval(here: Path, words: tuple[str, ...], says: str) -> None:
    assert says in fails("eval", *words)
