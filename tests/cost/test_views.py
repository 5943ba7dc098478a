"""The lectures' table, explanations, groups, memory and rooflines."""

from __future__ import annotations

from pathlib import Path

import pytest

from netdsl import lang
from netdsl.cost import Cost, count
from netdsl.cost import machine as machines
from netdsl.cost.explain import explain
from netdsl.cost.group import GROUPINGS, group_sheet, groups
from netdsl.cost.lecture import lecture_sheet
from netdsl.cost.memory import inference, memory_sheet, training
from netdsl.cost.roofline import Machine, parse_machine, roofline_sheet, roofs
from netdsl.faults import NetError
from netdsl.find import graph_of


def cost(text: str, batch: int = 1) -> Cost:
    return count(lang.load(text), batch)


# The lectures' table


def shown(name: str) -> dict[str, list[str]]:
    sheet = lecture_sheet(count(graph_of(name)))
    rows = (*sheet.rows, *sheet.totals)
    texts = ([c.text(v) for c, v in zip(sheet.columns, row, strict=True)] for row in rows)
    return {row[0]: row[1:] for row in texts}


@pytest.mark.parametrize(
    ("layer", "memory", "params", "flop"),
    [
        ("conv1", "784", "23", "73"),
        ("maxpool1", "182", "0", "0"),
        ("conv2", "547", "307", "224"),
        ("maxpool2", "127", "0", "0"),
        ("conv3", "254", "664", "112"),
        ("conv4", "169", "885", "150"),  # the slide's 145 is an erratum
        ("conv5", "169", "590", "100"),
        ("maxpool3", "36", "0", "0"),
        ("fc1", "16", "37,749", "38"),
        ("fc2", "16", "16,777", "17"),
        ("fc3", "4", "4,096", "4"),
        ("total", "1,958", "61,090", "717"),
    ],
)
def test_the_slide_of_alexnet(layer: str, memory: str, params: str, flop: str) -> None:
    assert shown("alexnet")[layer][-3:] == [memory, params, flop]


def test_the_slide_of_googlenets_stem_and_modules() -> None:
    found = shown("googlenet")
    assert found["stem"][-3:] == ["7,644", "124", "481"]
    sheet = lecture_sheet(count(graph_of("googlenet")))
    exact = {row[0]: row[-2:] for row in sheet.rows}
    assert exact["stem"] == (124_096, 480_836_608)
    assert exact["inception3a"] == (163_328, 128_049_152)
    assert exact["inception4e"] == (867_328, 169_996_288)
    assert exact["inception5b"] == (1_442_816, 70_697_984)


def test_the_lectures_vgg_and_its_namesake() -> None:
    lecture, real = count(graph_of("vgg16_lecture")), count(graph_of("vgg16"))
    assert (lecture.params, lecture.macs) == (137_767_464, 13_620_576_256)
    convs = sum(x.activation_bytes for x in lecture.layers if x.kind == "conv")
    assert round(convs / 2**20, 3) == 48.617
    assert real.macs == 15_470_264_320
    for name in ("vgg16", "vgg16_lecture"):
        notes = lecture_sheet(count(graph_of(name))).notes
        assert any("two convolutions in stage" in note for note in notes)


# Explanations


@pytest.mark.parametrize(
    ("text", "layer", "lines"),
    [
        (
            "input 3x227x227; conv11x11s4p2(64)",
            "conv1",
            ["(227 − 11 + 2·2) / 4 + 1 = 56", "64 × 3 × 11 × 11 = 23,232", "= 72,855,552"],
        ),
        ("input 4x9x9; dwconv3x3p1", "dwconv1", ["each of 4 groups", "4 × 1 × 3 × 3 = 36"]),
        ("input 4x9x8; maxpool3s2ceil", "maxpool1", ["axis 2: (8 − 3 + 2·0) / 2 + 1 = 4, rounded"]),
        ("input 4x9x9; conv3x3d2(2)", "conv1", ["K widened by dilation", "(9 − 5 + 2·0) / 1"]),
        ("input 4x9x9; conv4x4same(2)", "conv1", ["(9 − 4 + 1 + 2) / 1 + 1 = 9"]),
        ("input 4x5x5; tconv3x3s2(6)", "tconv1", ["(5 − 1)·2 − 2·0 + 3 = 11", "5 × 5 × 216"]),
        ("input 4x5x5; fc(7)", "fc1", ["4 × 5 × 5 = 100", "7 × 100 = 700", "+ 7 biases = 707"]),
        ("input 4x5x5; bn", "bn1", ["2 × 4 = 8"]),
        ("input 4x5x5; [conv1x1(2) | conv1x1(3)]", "concat1", ["2 + 3 = 5", "widest branch"]),
        ("input 4x5x5; gap", "gap1", ["100 additions", "the whole input, 5 pixels"]),
        ("input 4x5x5; conv1x1(2) as mine", "mine", ["conv1x1(2) on 4x5x5"]),
    ],
)
def test_formulas_have_the_numbers_in_them(text: str, layer: str, lines: list[str]) -> None:
    found = str(explain(cost(text), layer))
    for line in lines:
        assert line in found, found


def test_the_batch_is_in_the_formula() -> None:
    found = str(explain(cost("input 1x4x4; conv1x1(1)", batch=5), "conv1"))
    assert "= 16 × batch of 5 = 80" in found


def test_every_layer_of_the_zoos_odd_nets_can_be_explained() -> None:
    for name in ("unet", "mobilenet_v2", "googlenet", "m5", "c3d", "densenet121"):
        found = count(graph_of(name))
        for layer in found.layers[:60]:
            assert str(explain(found, layer.name)).startswith(f"{layer.name}: ")


def test_explaining_what_is_not_there_names_the_nearest() -> None:
    with pytest.raises(NetError, match="did you mean `conv1`"):
        explain(cost("input 3x9x9; conv3x3(2)"), "conf1")


# Groups


@pytest.mark.parametrize("name", ["alexnet", "googlenet", "resnet50", "unet", "densenet121", "m5"])
@pytest.mark.parametrize("by", GROUPINGS)
def test_groups_hold_every_layer_once(name: str, by: str) -> None:
    found = count(graph_of(name))
    members = [layer.name for group in groups(found, by) for layer in group.layers]
    assert sorted(members) == sorted(layer.name for layer in found.layers)
    assert sum(group.macs for group in groups(found, by)) == found.macs
    assert group_sheet(found, by).totals[0][-1] == found.macs


def test_stages() -> None:
    def stages(name: str) -> list[tuple[str, int]]:
        return [(g.name, g.macs) for g in groups(count(graph_of(name)), "stage")]

    assert [name for name, _ in stages("vgg16")] == [
        *(f"stage{i}" for i in range(1, 6)), "fc1", "fc2", "fc3",
    ]  # fmt: skip
    assert dict(stages("vgg16"))["stage4"] == 4_624_220_160
    assert [name for name, _ in stages("resnet50")] == [
        *(f"stage{i}" for i in range(1, 6)), "fc1",
    ]  # fmt: skip


def test_blocks_are_calls_at_the_top() -> None:
    names = [group.name for group in groups(count(graph_of("googlenet")), "block")]
    assert names.count("inception3a") == 1
    assert [n for n in names if "." in n] == []


def test_an_unknown_grouping() -> None:
    with pytest.raises(NetError, match="layer, stage, block, kind, not layers"):
        groups(cost("input 3x9x9; relu"), "layers")


# Memory


def test_memory_of_a_run_is_what_is_alive_at_once() -> None:
    # a (64 numbers) and b (128) at once; then b and c (32); the input is 64.
    found = inference(cost("input 1x8x8; conv1x1(2, bias=no) -> avgpool2"))
    assert (found.live, found.at, found.parameters) == (4 * (64 + 128), "conv1", 8)


def test_a_skip_connection_stays_alive() -> None:
    plain = inference(cost("input 4x8x8; conv3x3p1 -> conv3x3p1 -> conv3x3p1"))
    skip = inference(cost("input 4x8x8; [id + conv3x3p1 -> conv3x3p1 -> conv3x3p1]"))
    assert skip.live == plain.live + 4 * 256


def test_memory_of_several_inputs_is_summed() -> None:
    found = inference(cost("input 3x8x8 as a; input 5x8x8 as b; [a | b] -> conv1x1(2)"))
    assert found.live == 4 * 64 * (3 + 5 + 8)


def test_running_statistics_are_held_but_not_learned() -> None:
    found = cost("input 4x8x8; bn")
    assert (found.params, inference(found).parameters) == (8, 16 * 4)


@pytest.mark.parametrize(("optimiser", "numbers"), [("sgd", 0), ("momentum", 1), ("adam", 2)])
def test_training_memory(optimiser: str, numbers: int) -> None:
    # conv keeps its input (256), relu its output (512); the pool after it reads that once more.
    found = training(cost("input 4x8x8; conv1x1(8) -> relu -> maxpool2"), optimiser)
    assert found.gradients == 40 * 4
    assert found.state == numbers * found.gradients
    assert found.kept == 4 * (256 + 512)
    assert found.total == found.parameters + found.gradients + found.state + found.kept


def test_training_trains_the_auxiliary_heads_too() -> None:
    found = count(graph_of("googlenet"))
    everything = found.params + sum(head.params for head in found.aux)
    assert training(found).gradients == 4 * everything


def test_an_unknown_optimiser() -> None:
    with pytest.raises(NetError, match="sgd, momentum, adam, not sdg"):
        memory_sheet(cost("input 3x9x9; relu"), "sdg")


@pytest.mark.slow
def test_the_arena_is_the_plans() -> None:
    import numpy as np

    from netdsl import cpu
    from netdsl.cpu.arena import arena_bytes

    graph = lang.load("input 4x8x8; relu -> flatten")
    assert cpu.compile(graph, {}, batch=3).arena_bytes == arena_bytes(graph, 3)
    assert np.float32().nbytes == 4


# Rooflines


def test_a_layer_is_bound_by_arithmetic_or_by_memory() -> None:
    text = "input 64x32x32; conv3x3p1(64, bias=no) -> flatten -> fc(10, bias=no)"
    conv, fc = roofs(cost(text), Machine(1e12, 1e10))
    assert conv.flops == 2 * 64 * 64 * 9 * 1024
    assert conv.traffic == 4 * (2 * 64 * 1024 + 64 * 64 * 9)
    assert (conv.bound, fc.bound) == ("compute", "memory")
    assert conv.seconds == pytest.approx(conv.flops / 1e12)
    assert fc.seconds == pytest.approx(fc.traffic / 1e10)


def test_what_fuses_costs_no_time() -> None:
    plain = roofs(cost("input 4x8x8; conv3x3p1"), Machine(1e9, 1e9))
    fused = roofs(cost("input 4x8x8; conv3x3p1 -> bn -> relu -> dropout"), Machine(1e9, 1e9))
    assert [r.seconds for r in plain] == [r.seconds for r in fused]


@pytest.mark.parametrize("text", ["500", "500,0", "a,b", "1,2,3", "-1,2", "nan,1", "1e99,1"])
def test_bad_machines(text: str) -> None:
    with pytest.raises(NetError, match="GFLOPS,GB/s"):
        parse_machine(text)


def test_this_machine_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured = []

    def measure() -> Machine:
        measured.append(1)
        return Machine(3e11, 2e10)

    monkeypatch.setattr(machines, "measure", measure)
    first, second = machines.this_machine(), machines.this_machine()
    assert (first, len(measured)) == (second, 1)
    next(tmp_path.rglob("*.json")).write_text("nonsense", encoding="utf-8")
    assert machines.this_machine() == first
    assert len(measured) == 2


def test_nothing_to_do_takes_no_time() -> None:
    sheet = roofline_sheet(cost("input 4x8x8; relu"), Machine(1e9, 1e9))
    assert (sheet.rows, sheet.totals[0][4]) == ((), 0)
    assert "nothing to do" in sheet.notes[0]
