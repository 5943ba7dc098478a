"""Exact counts: published totals, the JSON's shape, receptive fields, and peers' known faults."""

from __future__ import annotations

import json
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netdsl import lang
from netdsl.cost import Cost, count
from netdsl.faults import NetError
from netdsl.find import graph_of

LENET = "input 1x28x28; conv5x5p2(20) -> maxpool2 -> conv5x5p2(50) -> maxpool2 -> fc(500) -> fc(10)"


def cost(text: str, batch: int = 1, dtype: str = "float32") -> Cost:
    return count(lang.load(text), batch, dtype)


def test_the_lectures_lenet() -> None:
    found = cost(LENET)
    assert (found.params, found.weights) == (1_256_080, 1_255_500)
    macs = [layer.macs for layer in found.layers if layer.macs]
    assert macs == [392_000, 4_900_000, 1_225_000, 5_000]


def test_alexnet_layer_by_layer() -> None:
    found = {layer.name: layer for layer in count(graph_of("alexnet")).layers}
    expected = {
        "conv1": (802_816, 23_296, 23_232, 72_855_552),
        "conv2": (559_872, 307_392, 307_200, 223_948_800),
        "conv3": (259_584, 663_936, 663_552, 112_140_288),
        "conv4": (173_056, 884_992, 884_736, 149_520_384),
        "conv5": (173_056, 590_080, 589_824, 99_680_256),
        "maxpool1": (186_624, 0, 0, 0),
        "fc1": (16_384, 37_752_832, 37_748_736, 37_748_736),
    }
    for name, figures in expected.items():
        layer = found[name]
        assert (layer.activation_bytes, layer.params, layer.weights, layer.macs) == figures


def test_googlenets_heads_stand_apart() -> None:
    found = count(graph_of("googlenet"))
    assert (found.params, found.macs) == (6_998_552, 1_582_671_872)
    assert [(h.params, h.macs) for h in found.aux] == [
        (3_188_840, 4_169_728),
        (3_190_888, 4_202_496),
    ]


def test_json_has_these_keys_and_adds_up() -> None:
    found = json.loads(json.dumps(count(graph_of("vgg16")).as_json()))
    assert list(found) == [
        "net", "input", "params", "weights", "macs", "activation_bytes", "layers", "aux",
    ]  # fmt: skip
    assert found["input"] == [3, 224, 224]
    assert found["aux"] == []
    first = found["layers"][0]
    assert first == {
        "name": "conv1",
        "op": "conv3x3p1(64)",
        "in": [3, 224, 224],
        "out": [64, 224, 224],
        "params": 1792,
        "weights": 1728,
        "macs": 86_704_128,
        "activation_bytes": 12_845_056,
        "receptive_field": 3,
    }
    for key in ("params", "weights", "macs", "activation_bytes"):
        assert found[key] == sum(layer[key] for layer in found["layers"])
    for layer in found["layers"]:
        assert layer["activation_bytes"] == 4 * prod(layer["out"])


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("input 8x56x56; conv5x5p2", [5]),
        ("input 8x56x56; conv3x3p1 x2", [3, 5]),
        ("input 8x56x56; conv3x3p1 x5", [3, 5, 7, 9, 11]),
        ("input 8x56x56; conv3x3s2p1 -> conv3x3p1 -> maxpool2", [3, 7, 9]),
        ("input 8x56x56; conv3x3d2 -> relu", [5, 5]),
        ("input 8x56x56; [conv1x1 | conv3x3p1 | conv5x5p2]", [1, 3, 5, 5]),
        ("input 8x56; conv3x1", None),
        ("input 8x9x9; conv3x1p1x0(4) -> conv1x3p0x1(4)", [[3, 1], 3]),
        ("input 8x9x9; conv3x3 -> gap -> fc(2)", [3, 9, 9]),
        ("input 8x9x7; conv3x3 -> flatten", [3, [9, 7]]),
        ("input 20; fc(8)", [None]),
        ("input 4x16x16; conv3x3p1 -> [id * gap -> conv1x1] -> conv3x3p1", [3, 16, 16, 16, 16]),
    ],
)
def test_receptive_fields(text: str, fields: list[object] | None) -> None:
    if fields is None:
        with pytest.raises(NetError):
            cost(text)
        return
    assert [layer.as_json()["receptive_field"] for layer in cost(text).layers] == fields


def test_vgg16_sees_212_pixels() -> None:
    layers = {layer.name: layer for layer in count(graph_of("vgg16")).layers}
    assert layers["conv13"].receptive_field == (196, 196)
    assert layers["maxpool5"].receptive_field == (212, 212)


@given(st.integers(1, 6), st.integers(1, 12).map(lambda k: 2 * k + 1))
def test_stacked_convolutions_see_1_plus_l_times_k_minus_1(length: int, kernel: int) -> None:
    found = cost(f"input 1x300; conv{kernel}(1) x{length}")
    assert found.layers[-1].receptive_field == (1 + length * (kernel - 1),)


# Faults that well-known counters have or had, each with the right figure


def test_grouped_and_depthwise() -> None:
    plain, grouped, depth = (
        cost(f"input 32x10x10; {op}")
        for op in ("conv3x3p1(64)", "conv3x3p1g4(64)", "dwconv3x3p1(64)")
    )
    assert grouped.weights * 4 == plain.weights
    assert grouped.macs * 4 == plain.macs
    assert (depth.weights, depth.macs) == (64 * 9, 64 * 9 * 100)


def test_same_padding_with_an_even_kernel_keeps_the_size() -> None:
    found = cost("input 3x15x16; conv4x4same(8) -> conv2x2s2same(8)")
    assert [layer.output for layer in found.layers] == [(8, 15, 16), (8, 8, 8)]
    assert found.layers[0].macs == 15 * 16 * 8 * 3 * 16


def test_transposed_convolution_works_at_its_inputs() -> None:
    found = cost("input 16x7x7; tconv4x4s2p1(8)")
    assert found.layers[0].output == (8, 14, 14)
    assert found.macs == 16 * 7 * 7 * 8 * 16
    assert found.params == 16 * 8 * 16 + 8


def test_fc_over_more_axes_takes_them_all() -> None:
    found = cost("input 4x5x6; fc(7)")
    assert (found.params, found.macs) == (7 * 120 + 7, 7 * 120)
    assert found.layers[0].output == (7,)


def test_a_block_used_twice_is_counted_twice_with_parameters_of_its_own() -> None:
    once = cost("def b(n) = conv3x3p1(n) -> relu; input 8x10x10; b(8)")
    twice = cost("def b(n) = conv3x3p1(n) -> relu; input 8x10x10; b(8) x2")
    assert (twice.params, twice.macs) == (2 * once.params, 2 * once.macs)


def test_one_axis_counts_are_not_negative() -> None:
    found = cost("input 1x32000; conv80s4same(128) -> bn -> relu -> maxpool4 -> gap -> fc(10)")
    assert found.macs == 8000 * 80 * 128 + 1280
    assert min(layer.macs for layer in found.layers) >= 0
    assert found.layers[0].receptive_field == (80,)


def test_pools_and_relu_add_no_macs() -> None:
    bare = cost("input 3x16x16; conv3x3p1(8) -> conv3x3p1(8)")
    busy = cost("input 3x16x16; conv3x3p1(8) -> relu -> maxpool3s1p1 -> conv3x3p1(8) -> relu")
    assert busy.macs == bare.macs


def test_several_inputs_are_summed() -> None:
    text = "input 3x8x8 as a; input 5x8x8 as b; [a | b] -> conv1x1(2)"
    found = cost(text)
    assert found.as_json()["input"] == [[3, 8, 8], [5, 8, 8]]
    joined = found.layers[0]
    assert joined.inputs == ((3, 8, 8), (5, 8, 8))
    assert joined.output == (8, 8, 8)
    assert found.macs == 8 * 2 * 64


def test_a_tensor_read_twice_is_counted_once() -> None:
    found = cost("input 4x8x8; conv3x3p1 as a; [a + a -> relu]")
    assert found.macs == 4 * 4 * 9 * 64


# Batch, types, size


def test_integers_stay_exact_at_any_size() -> None:
    text = "input 512x1024x1024; conv3x3p1(1024)"
    assert cost(text).macs == 1024 * 1024 * 512 * 1024 * 9
    assert cost(text, batch=10**6).macs == 10**6 * 1024 * 1024 * 512 * 1024 * 9


def test_the_batch_multiplies_work_and_activations_not_parameters() -> None:
    one, many = cost(LENET), cost(LENET, batch=32)
    assert many.macs == 32 * one.macs
    assert many.activation_bytes == 32 * one.activation_bytes
    assert many.params == one.params
    assert cost(LENET, batch=0).macs == 0


def test_the_type_sets_the_bytes() -> None:
    assert 2 * cost(LENET, dtype="float16").activation_bytes == cost(LENET).activation_bytes


@pytest.mark.parametrize(("batch", "dtype"), [(-1, "float32"), (1, "float31")])
def test_bad_batch_and_type(batch: int, dtype: str) -> None:
    with pytest.raises(NetError):
        cost(LENET, batch, dtype)


def test_norms_count_scale_and_shift_and_not_statistics() -> None:
    found = cost("input 8x4x4; bn -> ln -> in -> gn4 -> bn(affine=no)")
    assert [(layer.params, layer.weights) for layer in found.layers] == [(16, 8)] * 4 + [(0, 0)]


def test_printed_as_a_table() -> None:
    lines = str(cost(LENET)).splitlines()
    assert lines[1].split() == ["layer", "op", "output", "memory", "parameters", "MACs", "field"]
    assert "1,256,080" in next(line for line in lines if line.startswith("total"))
