"""The reader of name maps (netdsl/formats/namemap.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from netdsl.faults import NetError
from netdsl.formats.namemap import LIMIT, expand, maps_beside, parse_map

TEXT = """
# A map for a small net.
parameters weight bias mean=running_mean var=running_var
skip *.num_batches_tracked  loss.*
conv{1..3}      features.{0,2,5}
bn{1,2}         norm{1,2}  norm.{1,2}  # as two releases spell it
block{a,b}.fc{1..2}  {a,b}/fc{6..7}
"""


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("conv1", ["conv1"]),
        ("a{8..11}b", ["a8b", "a9b", "a10b", "a11b"]),
        ("{x,y}.{1,3..4}", ["x.1", "x.3", "x.4", "y.1", "y.3", "y.4"]),
        ("{one}", ["one"]),
    ],
)
def test_expand(word: str, names: list[str]) -> None:
    assert expand(word) == names


def test_each_foreign_tensor_has_our_name() -> None:
    names = parse_map(TEXT, "elsewhere")
    assert names.source == "elsewhere"
    assert names.ours("features.5.bias") == "conv3.bias"
    assert names.ours("norm2.running_mean") == "bn2.mean"
    assert names.ours("norm.1.running_var") == "bn1.var"
    assert names.ours("b/fc6.weight") == "blockb.fc1.weight"
    assert names.ours("features.1.bias") is None
    assert names.ours("features.0.gamma") is None
    assert names.skips("norm1.num_batches_tracked")
    assert names.skips("loss.weight")
    assert not names.skips("norm1.weight")


def test_weight_and_bias_are_the_parameters_unless_told() -> None:
    names = parse_map("conv1 c", "x")
    assert (names.ours("c.weight"), names.ours("c.bias")) == ("conv1.weight", "conv1.bias")
    assert names.ours("c.mean") is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("conv1", "conv1 has no foreign name"),
        ("conv{1..3} c{1,2}", "stands for 3 names and c{1,2} for 2"),
        ("conv{1 c1", "brace without its partner"),
        ("conv1 c1}", "brace without its partner"),
        ("conv{3..1} c{1..3}", "3..1 must run upwards"),
        ("conv{1..999999999} c{1..999999999}", f"at most {LIMIT}"),
        ("conv{1..9999}{1..9999} c{1..9999}{1..9999}", f"more than {LIMIT}"),
        ("conv{1,2} c{1,1}", "c1 is given twice"),
    ],
)
def test_a_bad_line_is_named(line: str, says: str) -> None:
    with pytest.raises(NetError) as caught:
        parse_map(f"# first\n{line}\n", "x", "some.map")
    (fault,) = caught.value.faults
    assert says in fault.message
    assert fault.span is not None
    assert (fault.where, fault.span.line, fault.span.text) == ("some.map", 2, line)


def test_every_bad_line_is_reported() -> None:
    with pytest.raises(NetError) as caught:
        parse_map("conv1\nconv2\n", "x")
    assert len(caught.value.faults) == 2


def test_maps_are_found_beside_their_net(tmp_path: Path) -> None:
    net = tmp_path / "my.net"
    (tmp_path / "my.torch.map").write_text("conv1 a")
    (tmp_path / "my.caffe.map").write_text("conv1 b")
    (tmp_path / "myother.caffe.map").write_text("conv1")
    assert [(m.source, dict(m.nodes)) for m in maps_beside(net)] == [
        ("caffe", {"b": "conv1"}),
        ("torch", {"a": "conv1"}),
    ]
    assert maps_beside(tmp_path / "other.net") == ()


def test_an_unreadable_map_is_named(tmp_path: Path) -> None:
    (tmp_path / "my.caffe.map").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NetError, match=r"my\.caffe\.map cannot be read"):
        maps_beside(tmp_path / "my.net")
