"""Tuning: what is measured, what is kept, and that plans take it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from agree import drawn_inputs
from typer.testing import CliRunner

from netdsl import cpu
from netdsl.cli import app
from netdsl.cpu import chains, tune, tuned
from netdsl.cpu.plan import Making
from netdsl.cpu.table import takes
from netdsl.graph import Graph
from netdsl.graph.fused import fuse
from netdsl.graph.passes import lowered
from netdsl.graph.weights import initialise
from netdsl.lang import load

TEXT = (
    "input 16x20x20; every conv -> relu; conv3x3p1(32) x2 -> conv5x5p2(16) -> conv3x3p1(32) -> gap"
)


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is known, and measuring is short."""
    path = tmp_path / "kernels" / "tuned.json"
    monkeypatch.setattr(tuned, "path", lambda: path)
    monkeypatch.setattr(tune, "SECONDS", 1e-9)
    monkeypatch.setattr(tune, "FEWEST", 1)
    monkeypatch.setattr(tune, "FINAL", 1)
    return path


def ways(graph: Graph) -> list[str]:
    plan = cpu.compile(graph, initialise(graph), batch=1, threads=1)
    return [step.way for step in plan.steps if step.way]


def test_every_way_of_every_layer_is_measured() -> None:
    graph = load(TEXT)
    told: list[tuple[int, int, str]] = []
    found = tune.tune(graph, initialise(graph), 1, 1, lambda *step: told.append(step))
    assert len(found.layers) == 3
    assert "conv3x3p1(32) -> relu of 16x20x20" in found.layers
    assert found.ways > 12
    assert found.before_ms > 0
    assert told
    for change in found.changes:
        assert change.layer in found.layers
        assert change.before != change.after
        assert change.after_ms < change.before_ms


def test_what_was_chosen_is_taken_and_gives_the_same() -> None:
    graph = load(TEXT)
    weights, inputs = initialise(graph), drawn_inputs(graph, 1)
    before = cpu.compile(graph, weights, batch=1, threads=1).run(inputs)["gap1"]
    assert not any(way.endswith("tuned") for way in ways(graph))
    tuned.keep(1, 1, {"conv3x3p1(32) -> relu of 32x20x20": "direct 7x3"}, [])
    plan = cpu.compile(graph, weights, batch=1, threads=1)
    assert [way for way in ways(graph) if way.endswith("tuned")] in ([], ["direct 7x3, tuned"])
    np.testing.assert_allclose(plan.run(inputs)["gap1"], before, atol=2e-5)
    tuned.keep(1, 1, {"conv3x3p1(32) -> relu of 32x20x20": "direct"}, [])
    assert ways(graph)[1] == "direct, tuned"
    # Other threads, another batch, and sums that must be exact are other cases.
    other = cpu.compile(graph, weights, batch=2, threads=1)
    exact = cpu.compile(graph, weights, batch=1, threads=1, exact=True)
    assert not any(step.way.endswith("tuned") for step in (*other.steps, *exact.steps))


CHAIN = (
    "input 12x120x9; conv1x1(32) -> relu6 -> dwconv3x3p1 -> relu6 -> conv1x1(16) -> maxpool3s2p1 "
    "-> conv1x1(48) -> gap"
)


def test_chains_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are neither measured nor broken, and nothing is taken within them that a layer alone
    was measured with."""
    monkeypatch.setattr(chains, "ROOM", 6000)
    graph = load(CHAIN)
    before = ways(graph)
    assert before[0].startswith("stripes")
    assert len(before) == 2
    found = tune.tune(graph, initialise(graph), 1, 1)
    assert found.layers == ("conv1x1(48) of 16x60x5",)
    assert found.ways > 1
    tuned.keep(1, 1, {"conv1x1(16) of 32x120x9": "direct 1x1"}, [])
    assert ways(graph) == before
    assert all(task.choice is None for chain in made(graph).striped for task in chain.tasks)


def made(graph: Graph) -> Making:
    """What a plan of it is made from, with what tuning chose."""
    low, weights = lowered(graph, initialise(graph), lambda g: fuse(g, takes))
    return Making(low, weights, 1, 1, exact=False, choices=tuned.choices(1, 1))


def test_what_is_measured_again_replaces_what_was_known(empty: Path) -> None:
    tuned.keep(1, 2, {"a": "direct", "b": "winograd4"}, ["a", "b"])
    tuned.keep(8, 2, {"a": "direct"}, ["a"])
    tuned.keep(1, 2, {"c": "direct 14x2"}, ["a", "c"])
    assert tuned.choices(1, 2) == {"b": "winograd4", "c": "direct 14x2"}
    assert tuned.choices(8, 2) == {"a": "direct"}
    assert tuned.choices(8, 1) == {}
    assert "3 layers" in (tuned.about() or "")
    ((name, settings),) = json.loads(empty.read_text()).items()
    assert name
    assert set(settings) == {"batch 1, 2 threads", "batch 8, 2 threads"}


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"x": 3', '{"cpu": {"batch 1": 4}}', "\0"])
def test_a_damaged_file_is_as_none(empty: Path, content: str) -> None:
    empty.parent.mkdir()
    empty.write_text(content)
    assert tuned.choices(1, 2) == {}
    assert "damaged" in (tuned.about() or "")
    tuned.keep(1, 2, {"a": "direct"}, ["a"])
    assert tuned.choices(1, 2) == {"a": "direct"}


def run(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["tune", *arguments])
    assert found.exit_code == 0, found.output
    return found.output


def test_the_command(empty: Path) -> None:
    told = run("-e", "net small; " + TEXT, "--threads", "1")
    assert re.match(r"small, batch 1, 1 thread: \d+ ways of 3 different layers measured\n", told)
    assert ("kept in" in told) == empty.is_file()
    assert ("nothing is kept" in told) != empty.is_file()
    tuned.keep(1, 1, {"a": "direct"}, [])
    assert run("--clear") == "all choices are forgotten\n"
    assert not empty.exists()
    assert run("--clear") == "there was nothing to forget\n"


def test_a_net_without_choices() -> None:
    assert "0 ways of 0 different layers" in run("-e", "input 4x3x3; relu -> gap")


def test_one_net_is_wanted() -> None:
    found = CliRunner().invoke(app, ["tune"])
    assert found.exit_code == 2
    assert "give one net" in found.stderr
