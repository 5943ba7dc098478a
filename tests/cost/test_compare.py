"""Nets side by side: ratios, alignment, VGG's rules, charts."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from netdsl import lang
from netdsl.cost import Cost, count
from netdsl.cost.compare import align, compare_json, compare_sheet, label, layer_sheets
from netdsl.cost.rules import rules, stack
from netdsl.faults import NetError
from netdsl.find import graph_of


def nets(*names: str) -> list[Cost]:
    return [count(graph_of(name)) for name in names]


def texts(*found: str) -> list[Cost]:
    return [count(lang.load(text)) for text in found]


def test_the_lectures_ratios() -> None:
    found = compare_json(nets("alexnet", "vgg16_lecture"))["nets"]
    assert isinstance(found, list)
    second = found[1]
    assert f"{second['memory_ratio']:.0f}" == "25"
    assert f"{second['params_ratio']:.2f}" == "2.25"
    assert f"{second['macs_ratio']:.1f}" == "19.0"
    assert (found[0]["year"], found[0]["top5_error"]) == (2012, 16.4)


def test_alexnet_by_layer_stands_against_vgg_by_stage() -> None:
    found = align(nets("alexnet", "vgg16", "googlenet"))
    assert found.labels == (*(f"conv{i}" for i in range(1, 6)), "fc6", "fc7", "fc8")
    names = [[g.name if g else None for g in groups] for groups in found.nets]
    assert names[0] == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "fc2", "fc3"]
    assert names[1][:5] == [f"stage{i}" for i in range(1, 6)]
    assert names[2][5:] == [None, None, "fc1"]


def test_layer_sheets_sum_to_the_totals() -> None:
    costs = nets("alexnet", "vgg16")
    sheets = layer_sheets(costs)
    assert [sum(row[2] for row in sheet.rows) for sheet in sheets[1:]] == [
        costs[1].params,
        costs[1].macs,
    ]


def test_vggs_first_rule_in_words() -> None:
    costs = texts("input 64x56x56; conv5x5p2", "input 64x56x56; conv3x3p1 x2")
    lines = rules(costs, label)
    assert "one 5x5: 25C² weights, 25C²HW MACs, receptive field 5" in lines[0]
    assert "two 3x3: 18C² weights, 18C²HW MACs, receptive field 5" in lines[1]
    assert "see as much as one 5x5 for 28% fewer" in lines[2]
    assert lines == compare_sheet(costs).notes[-3:]
    assert [label(cost) for cost in costs] == ["conv5x5p2", "conv3x3p1 x2"]


def test_vggs_third_rule_in_words() -> None:
    lines = rules(texts("input 64x112x112; conv3x3p1", "input 128x56x56; conv3x3p1"), label)
    assert "memory 4HWC, weights 9C², MACs 36HWC²" in lines[0]
    assert "memory 2HWC, weights 36C², MACs 36HWC²" in lines[1]
    assert "the work is equal" in lines[-1]


@pytest.mark.parametrize(
    "text",
    [
        "input 64x56x56; conv3x3p1g2",
        "input 64x56x56; conv3x3",
        "input 64x56x56; conv3x3p1(32)",
        "input 64x56x56; maxpool3s1p1",
        "input 64; fc(64)",
        "input 64x56x56; relu",
    ],
)
def test_what_is_no_stack_has_no_rule(text: str) -> None:
    cost = texts(text)[0]
    assert stack(cost) is None
    assert rules([cost, *texts("input 64x56x56; conv3x3p1")], label) == ()


def test_stacks_of_other_ranks() -> None:
    lines = rules(texts("input 8x100; conv5p2", "input 8x100; conv3p1 x2"), label)
    assert "5C² weights, 5C²L MACs" in lines[0]
    assert "6C² weights, 6C²L MACs" in lines[1]


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_charts_are_written(kind: str, tmp_path: Path) -> None:
    plot = pytest.importorskip("netdsl.cost.plot")
    pytest.importorskip("matplotlib")
    file = tmp_path / f"chart.{kind}"
    plot.save(nets("alexnet", "vgg16"), file)
    if kind == "png":
        with Image.open(file) as image:
            assert image.size == (3200, 1200)
            colors = {c for _, c in image.convert("RGB").getcolors(1 << 20) or []}
        assert {(0, 114, 178), (230, 159, 0)} <= colors
    elif kind == "svg":
        text = "".join(ElementTree.parse(file).getroot().itertext())
        assert "conv5" in text
        assert "vgg16" in text
    else:
        assert file.read_bytes().startswith(b"%PDF")


def test_charts_of_one_net_show_its_values(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from netdsl.cost.plot import save

    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    save(nets("alexnet"), first)
    save(nets("alexnet"), second)
    assert first.read_bytes() == second.read_bytes()
    text = "".join(ElementTree.parse(first).getroot().itertext())
    for value in ("784", "37,753", "224", "Memory: 1,958 KB"):
        assert value in text


def test_a_deep_net_is_charted_by_block_or_stage() -> None:
    pytest.importorskip("matplotlib")
    from netdsl.cost.plot import MOST_COLUMNS, alone

    for name in ("densenet121", "googlenet", "resnet50", "vgg16"):
        assert 2 <= len(alone(nets(name)[0]).labels) <= MOST_COLUMNS


@pytest.mark.parametrize("name", ["chart.gif", "chart", "no/such/folder.svg"])
def test_charts_that_cannot_be_written(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from netdsl.cost.plot import save

    with pytest.raises(NetError):
        save(nets("lenet5"), tmp_path / name)
