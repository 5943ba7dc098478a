"""Names, paths and texts of nets."""

from __future__ import annotations

from pathlib import Path

import pytest

from netdsl.faults import NetError
from netdsl.find import find, graph_of, graph_of_text, read_text


def test_a_bare_name_finds_the_zoo(root: Path) -> None:
    assert find("vgg16") == root / "nets" / "vgg16.net"


def test_a_path_finds_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vgg16").write_text("input 4; relu")
    (tmp_path / "mine.txt").write_text("input 4; relu")
    monkeypatch.chdir(tmp_path)
    assert find("./vgg16") == Path("vgg16")
    assert find("vgg16") != Path("vgg16"), "a zoo name stays a zoo name"
    assert find("mine.txt") == Path("mine.txt")
    assert graph_of(tmp_path / "mine.txt").name == "mine"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet5", r"no net called 'resnet5'.*did you mean resnet50"),
        ("VGG16", r"no net called 'VGG16'.*did you mean vgg16"),
        ("qqqq", r"no net called 'qqqq' \(`netdsl nets` lists them\)"),
        ("vgg16.net", r"no file 'vgg16.net' \(the zoo's net is called without a path: vgg16\)"),
        ("nets/mine.net", r"no file 'nets/mine.net'$"),
        ("input 4; relu", r"text of a net is given with -e"),
        ("", r"is a folder|no net called ''"),
        ("a\0b", r"no net called 'a\\x00b'"),
        ("a" * 5000, r"no net called 'a+\.\.\.'"),
    ],
)
def test_no_such_net(name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NetError, match=said) as raised:
        find(name)
    assert len(str(raised.value)) < 200


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.net").write_bytes(b"\xef\xbb\xbfinput 4; relu")
    assert read_text(tmp_path / "a.net") == "input 4; relu"


def test_limits_can_be_lifted(tmp_path: Path) -> None:
    text = "input 4; relu\n" + "# nothing\n" * 200_000
    (tmp_path / "long.net").write_text(text)
    with pytest.raises(NetError, match="has 2,000,014 bytes"):
        graph_of(tmp_path / "long.net")
    assert len(graph_of(tmp_path / "long.net", limits=None)) == 2
    with pytest.raises(NetError):
        graph_of_text("input 4; relu x20000")
    assert len(graph_of_text("input 4; relu x20000", limits=None)) == 20_001
