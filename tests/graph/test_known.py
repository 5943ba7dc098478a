"""What is kept of a net's text is the graph that the text means."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from netdsl import find, lang, resources
from netdsl.faults import NetError, Source, Span
from netdsl.graph import Graph, known
from netdsl.limits import LIFTED


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "folder", lambda: tmp_path / "nets-ours")


def place(span: Span | None) -> tuple[object, ...] | None:
    return span and (span.source.text, span.source.file, span.start, span.end)


def same(a: Graph, b: Graph) -> bool:
    """Whether two graphs are alike, the places of their text among it."""
    spans = [
        [(place(n.span), [(c.text, place(c.span)) for c in n.trail]) for n in graph]
        for graph in (a, b)
    ]
    return a == b and spans[0] == spans[1] and [type(n.op) for n in a] == [type(n.op) for n in b]


@pytest.mark.parametrize("name", resources.zoo())
def test_every_net_of_the_zoo_comes_back(name: str) -> None:
    path = resources.zoo()[name]
    text = path.read_text(encoding="utf-8")
    assert known.find(text, str(path)) is None
    read = find.graph_of(name)
    found = known.find(text, str(path))
    assert found is not None
    assert same(found, read)
    assert same(found, lang.load(text, str(path)))


def test_settings_of_all_kinds_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    text = """
net "odd one"
labels "classes.txt"
meta year=2024 share=0.25 size=3x5 tags=[1, 2]
input 3x32x32(mean=[0.5, 0.25, 0.125])
def b(k) = conv{k}x{k}p{k//2}(8) -> bn
b(3) x2 -> pad(1x2, mode=reflect) -> lrn5 -> prelu -> [b(5) + b(1)] -> gap -> fc(4) -> softmax
"""
    path.write_text(text)
    read = find.graph_of(path)
    again = known.find(text, str(path))
    assert again is not None
    assert same(read, again)
    assert again.blocks
    assert again.meta == {"year": 2024, "share": 0.25, "size": (3, 5), "tags": [1, 2]}


def test_another_text_or_file_is_another_net(tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    path.write_text("input 3\nfc(2)\n")
    assert find.graph_of(path).name == "a"
    path.write_text("input 3\nfc(5)\n")
    assert find.graph_of(path)["fc1"].shape == (5,)
    other = tmp_path / "b.net"
    other.write_text("input 3\nfc(2)\n")
    assert find.graph_of(other).name == "b"


def test_faults_are_found_each_time(tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    path.write_text("input 3\nfcc(2)\n")
    for _ in range(2):
        with pytest.raises(NetError, match="fcc"):
            find.graph_of(path)
    assert not (tmp_path / "nets-ours").exists()


def test_limits_that_are_lifted_ask_for_nothing_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    path.write_text("input 3\nfc(2)\n")
    find.graph_of(path, LIFTED)
    assert not (tmp_path / "nets-ours").exists()


def test_another_text_of_the_same_digest_is_another_net(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "place", lambda text, file: tmp_path / "nets-ours" / "one.json")
    path = tmp_path / "a.net"
    path.write_text("input 3\nfc(2)\n")
    find.graph_of(path)
    assert known.find(path.read_text(), str(path)) is not None
    assert known.find("input 3\nfc(5)\n", str(path)) is None
    assert known.find(path.read_text(), str(tmp_path / "b.net")) is None


@pytest.mark.parametrize("keep", [0, 10, 40, -1])
def test_a_damaged_file_is_none(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.net"
    path.write_text("input 3\nfc(2)\n")
    read = find.graph_of(path)
    (file,) = (tmp_path / "nets-ours").iterdir()
    file.write_bytes(file.read_bytes()[:keep])
    assert known.find(path.read_text(), str(path)) is None
    assert find.graph_of(path) == read
    assert known.find(path.read_text(), str(path)) == read


def test_a_folder_that_cannot_be_written_costs_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(known, "folder", lambda: tmp_path / "file" / "nets-ours")
    path = tmp_path / "a.net"
    path.write_text("input 3\nfc(2)\n")
    assert find.graph_of(path) == find.graph_of(path)


def test_no_more_are_kept_than_there_should_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "MOST", 3)
    path = tmp_path / "a.net"
    for width in range(1, 8):
        path.write_text(f"input 3\nfc({width})\n")
        find.graph_of(path)
    assert len(list((tmp_path / "nets-ours").iterdir())) == 3
    assert known.find(path.read_text(), str(path)) is not None


def test_what_json_does_not_hold_is_not_kept() -> None:
    with pytest.raises(known.UnkeptError):
        known.encoded((1, 2j))
    assert known.decoded(json.loads(json.dumps(known.encoded((1, (2.5, None))))), Source("")) == (
        1,
        (2.5, None),
    )


def test_a_known_net_wants_no_parser(tmp_path: Path) -> None:
    program = (
        "import sys, netdsl; netdsl.load('lenet5').cost(); "
        "print('lark' in sys.modules, 'netdsl.lang' in sys.modules)"
    )
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": ""}
    root = str(resources.HERE.parent)
    said = [
        subprocess.run(
            [sys.executable, "-c", program],
            env=environment | {"PYTHONPATH": root},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert said == [["True", "True"], ["False", "False"]]
