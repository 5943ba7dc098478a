"""Training where tensors are packed once: which those are, where they lie, and, in Numba's
simulator, that nets learn to the bit as where every layer packs for itself."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from test_place import meet
from test_simulated import simulate

import netdsl
from netdsl.cuda.backward.packing import Copies, copies_of
from netdsl.cuda.backward.place import Layout, ends_of, lay_out
from netdsl.cuda.backward.table import takes
from netdsl.graph import Graph
from netdsl.graph.fused import parts
from netdsl.ops import Concat, Conv, Flatten
from netdsl.train.prepare import prepared

SCRIPT = Path(__file__).parent / "simulated_copies.py"

Case = tuple[str, int, str, int]

BATCH = 64

CASES: list[tuple[Case, int, int]] = [
    (("input 3x5x4; conv3x3p1(9) -> conv2x2(6, bias=no) -> tanh", 2, "bf16", 1), 3, 6),
    (("input 3x5x4; conv3x3p1(9) -> relu -> maxpool2 -> conv1x1(3)", 4, "tf32", 2), 4, 6),
    (
        (
            "input 8x3x4; conv1x1(8) as a; [a -> conv1x1(8) | a -> conv3x3p1(12)] -> conv1x1(5)",
            2,
            "bf16",
            3,
        ),
        5,
        12,
    ),
    (
        (
            "input 4x3x3; conv1x1(8, bias=no) -> bn -> relu as a; "
            "[a -> conv3x3p1(8, bias=no) -> bn + a] -> relu -> [conv1x1(5) | tconv3x3p1(3)]",
            2,
            "tf32",
            4,
        ),
        7,
        12,
    ),
    (("input 3x2x2; conv1x1(4) -> flatten -> fc(20) -> relu -> fc(5)", 17, "bf16", 5), 6, 9),
    (("input 3x5x4; conv3x3p1(9) -> relu -> conv2x2(6) -> relu -> conv1x1(3)", 2, "bf16", 7), 4, 9),
    (("input 3x3x4; tconv2x2(6) -> relu -> conv1x1(5) -> relu -> tconv1x1(3)", 2, "tf32", 8), 4, 9),
    (("input 32x9; conv1(32) -> conv1g2(32) -> dropout(0.3) -> tconv2s2(6)", 2, "tf32", 6), 5, 9),
]
"""Of each the passes that pack in a step, and how many there would be."""


@pytest.fixture(scope="module")
def found() -> list[tuple[bool, list[str], list[str]]]:
    answers: list[tuple[bool, list[str], list[str]]]
    answers = simulate("agree", [case for case, _, _ in CASES], SCRIPT)
    return answers


def packing(calls: list[str]) -> int:
    return sum(name.startswith("pack_") for name in calls)


BUGS = {
    "the first of two halves is what a relu took": (
        "if not float_of(word) > ZERO:",
        "if not float_of(word & HIGH) > ZERO and each == 1:",
    ),
    "the second of two halves is": ("if not float_of(word & HIGH) > ZERO:", "if each == 7:"),
    "the mask is another position's": (
        "int32(m * ints[uint32(at + MASK_CELL)] + to_word)",
        "int32(first_p * ints[uint32(at + MASK_CELL)] + to_word)",
    ),
    "the mask is another word's": (
        "int32(m * ints[uint32(at + MASK_CELL)] + to_word)",
        "int32(m * ints[uint32(at + MASK_CELL)] + w)",
    ),
}
"""In the kernel that packs gradients, where it reads what a relu took of the packed output."""


def test_bugs_planted_where_a_relu_is_read_packed_are_found() -> None:
    cases = ["input 3x5x4; conv3x3p1(9) -> relu -> conv1x1(3)", 3, "bf16", 1], [
        "input 3x3x3; conv2x2(6) -> relu -> conv1x1(3)", 5, "tf32", 1
    ]  # fmt: skip
    same = ("ZERO = np.float32(0)\n", "ZERO = np.float32(0)\n\n")
    found = simulate("planted", {"bugs": [same, *BUGS.values()], "cases": cases}, SCRIPT)
    assert found[0] == ""
    assert not [name for name, shown in zip(BUGS, found[1:], strict=True) if not shown]


def test_nets_learn_to_the_bit_what_they_learn_where_all_pack_for_themselves(
    found: list[tuple[bool, list[str], list[str]]],
) -> None:
    assert [same for same, _, _ in found] == [True] * len(CASES)


def test_tensors_are_packed_once(found: list[tuple[bool, list[str], list[str]]]) -> None:
    counts = [(packing(calls), packing(others)) for _, calls, others in found]
    assert counts == [(ours, theirs) for _, ours, theirs in CASES]


def test_layers_pack_for_themselves_where_copies_take_more_than_there_is() -> None:
    """What is read on the way back as floats too lies there twice; what is not takes less."""
    larger = "input 4x3x3; conv1x1(8) -> tanh -> conv1x1(5) -> tanh -> conv1x1(3)"
    smaller = "input 4x3x3; conv1x1(40) -> conv1x1(40) -> conv1x1(3)"
    cases = [[text, 2, "bf16", 1] for text in (larger, smaller)]
    assert simulate("room", cases, SCRIPT) == [[3, 0], [3, 3]]


Laid = tuple[Graph, Copies, Layout]


def laid(name: str, precision: str) -> Laid:
    graph = prepared(netdsl.load(name).graph, takes)
    copies = copies_of(graph, frozenset(ends_of(graph)), BATCH, precision)
    return graph, copies, lay_out(graph, BATCH, 64, copies, precision)


@pytest.fixture(scope="module", params=["vgg16", "resnet18", "googlenet", "unet"])
def case(request: pytest.FixtureRequest) -> Laid:
    return laid(request.param, "bf16")


def test_what_lies_packed_is_kept(case: Laid) -> None:
    graph, _, layout = case
    for one, two in combinations(layout.packed, 2):
        if not meet(layout.packed[one], layout.packed[two]):
            continue
        # Branches have words of their own in each position of what joins them.
        (joined,) = {name for n in (one, two) for name in (n, *graph.consumers[n])} & {
            n.name for n in graph if isinstance(n.op, Concat) and {one, two} <= {n.name, *n.inputs}
        }
        if joined not in (one, two):
            start = layout.packed[joined].offset
            words = [
                range(b.offset - start, b.offset - start + b.shape[-1])
                for b in (layout.packed[one], layout.packed[two])
            ]
            assert not set(words[0]) & set(words[1])
    others = [*layout.outputs.values(), *layout.gradients.values(), *layout.shares.values()]
    there = [buffer for buffer in others if buffer.there]
    assert not any(meet(packed, other) for packed in layout.packed.values() for other in there)


def test_floats_that_are_done_with_share_memory_with_gradients_alone(case: Laid) -> None:
    graph, copies, layout = case
    lowest = min(buffer.offset for buffer in layout.gradients.values())
    there = [n.name for n in graph if layout.outputs[n.name].there]
    done = {name for name in there if layout.outputs[name].offset >= lowest}
    assert done <= set(copies.spare)
    for name in done:
        last = max(list(graph.nodes).index(graph[r]) for r in graph.consumers[name])
        for other in set(there) - {name}:
            born = list(graph.nodes).index(graph[other])
            if meet(layout.outputs[name], layout.outputs[other]) and born > last:
                continue
            alive = list(graph.nodes).index(graph[name]) < born
            related = isinstance(graph[other].op, Concat | Flatten) or other in done
            assert not (alive and meet(layout.outputs[name], layout.outputs[other])) or related


def test_every_convolution_but_depthwise_ones_reads_a_copy(case: Laid) -> None:
    graph, copies, layout = case
    convs = {n.name for n in graph if isinstance(parts(n).base, Conv)}
    assert convs <= copies.reads
    assert all(graph[name].inputs[0] in layout.packed for name in copies.reads)
    assert not set(copies.written.packed) & copies.passes
