"""Conventions beyond single figures: reasons add up, nothing is left out in silence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netdsl import lang
from netdsl.cost import Cost, count
from netdsl.cost.against import convention_sheet, difference, difference_sheet, layer_sheet
from netdsl.cost.conventions import CONVENTIONS, convention
from netdsl.faults import NetError
from netdsl.find import graph_of

STEPS = (
    "conv3x3p1(4)",
    "conv3x3p1g2(4, bias=no) -> bn",
    "relu",
    "maxpool2",
    "avgpool(to=4x4)",
    "dropout",
    "lrn3",
    "[id + relu]",
    "softmax",
)
ALEXNET = (
    "input 3x224x224; every conv -> relu; conv11x11s4p2(64) -> maxpool3s2 -> conv5x5p2(192) -> "
    "maxpool3s2 -> conv3x3p1(384) -> conv3x3p1(256) x2 -> maxpool3s2 -> avgpool(to=6x6) -> "
    "flatten -> (dropout -> fc(4096) -> relu) x2 -> fc(1000)"
)


def cost(text: str, batch: int = 1) -> Cost:
    return count(lang.load(text), batch)


@pytest.mark.parametrize(
    ("tool", "figure"),
    [
        ("macs", 714_188_480),
        ("flops", 1_428_376_960),
        ("torchinfo", 714_682_664),
        ("thop", 714_206_912),
        ("fvcore", 714_197_696),
        ("ptflops", 716_441_128),
        ("torch", 1_428_376_960),
    ],
)
def test_torchvisions_alexnet(tool: str, figure: int) -> None:
    assert CONVENTIONS[tool].total(cost(ALEXNET)) == figure


@pytest.mark.parametrize(
    ("tool", "figure"),
    [
        ("macs", 4_089_184_256),
        ("torchinfo", 4_089_238_376),
        ("thop", 4_133_742_592),
        ("fvcore", 4_111_512_576),
        ("ptflops", 4_132_436_968),
        ("torch", 8_178_368_512),
        ("deepspeed", 8_211_108_352),
        ("onnx-tool", 4_117_342_184),
    ],
)
def test_the_zoos_resnet50(tool: str, figure: int) -> None:
    assert CONVENTIONS[tool].total(count(graph_of("resnet50"))) == figure


def test_reasons_of_the_issue() -> None:
    found = cost(ALEXNET)
    assert convention("torchinfo").because(found) == {"bias": 494_184}
    assert convention("thop").because(found) == {"adaptive pools": 18_432}


@given(
    st.lists(st.sampled_from(STEPS), min_size=1, max_size=6),
    st.sampled_from(sorted(CONVENTIONS)),
    st.integers(1, 1000),
)
def test_parts_add_up_at_any_batch(steps: list[str], tool: str, batch: int) -> None:
    text = f"input 4x64x64; {' -> '.join(steps)}"
    one, many, way = cost(text), cost(text, batch), CONVENTIONS[tool]
    assert way.total(many) == batch * way.total(one)
    by_layer = sum(layer.macs + sum(parts.values()) for layer, parts in way.layers(many))
    assert by_layer == way.total(many) == difference(many, way)["total"]
    assert sum(row[1] for row in difference_sheet(many, way).rows) == way.total(many)
    assert sum(row[-1] for row in convention_sheet(many, way).rows) == way.total(many)
    apart = sum(row[4] for row in layer_sheet(many, way).rows)
    assert apart == way.total(many) - many.macs


@pytest.mark.parametrize("name", sorted(CONVENTIONS))
def test_each_says_what_it_leaves_out(name: str) -> None:
    found = convention_sheet(count(graph_of("googlenet")), CONVENTIONS[name])
    assert any(note.startswith("leaves out ") for note in found.notes)
    assert any("auxiliary heads are left out too: " in note for note in found.notes)


def test_an_unknown_one_gets_the_nearest_name() -> None:
    with pytest.raises(NetError, match=r"tochinfo.*did you mean `torchinfo`"):
        convention("tochinfo")
