"""Tensors that stay packed from layer to layer: which those are, where they lie, and, in Numba's
simulator, that they hold to the bit what packing afterwards makes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from math import prod
from pathlib import Path

import numpy as np
import pytest
from test_simulated import simulate

import netdsl
from netdsl.cuda.layout import Buffer
from netdsl.cuda.packing import Packing, decide
from netdsl.cuda.place import place
from netdsl.cuda.plan import packs_of
from netdsl.cuda.table import RECIPES, takes
from netdsl.cuda.tensor import TENSOR_KERNELS
from netdsl.graph import Graph
from netdsl.graph.fused import fuse, parts
from netdsl.graph.passes import lowered
from netdsl.lang import load
from netdsl.ops import Concat, Conv, MaxPool

SCRIPT = Path(__file__).parent / "simulated_packed.py"

Case = tuple[str, int, str, int]

BATCH = 64


def decided(graph: Graph, precision: str = "bf16", batch: int = BATCH) -> tuple[Graph, Packing]:
    """The graph that a plan runs, and how its tensors are written."""
    zero = np.zeros((), np.float32)
    weights = {n: np.broadcast_to(zero, p.shape) for n, p in graph.all_parameters().items()}
    low, _ = lowered(graph.without_aux(), weights, lambda g: fuse(g, takes))
    held = frozenset(low.outputs)
    return low, decide(low, held, precision, lambda n: packs_of(low, n, batch, precision))


def layers(graph: Graph, names: Iterable[str]) -> set[str]:
    """The nodes whose results these are, by the layers that they are named for in the net."""
    return {parts(graph[name]).source for name in names}


def test_vgg16_stays_packed_from_the_first_layer_to_the_last_pool() -> None:
    graph, packing = decided(netdsl.load("vgg16").graph)
    nodes = [n for n in graph if isinstance(parts(n).base, Conv | MaxPool)]
    assert len(nodes) == 13 + 5
    # The last pool is read by a fully connected layer, to which its positions are other rows.
    *inner, conv, pool = (node.name for node in nodes)
    assert all(name in packing.packed and name not in packing.floats for name in inner)
    assert not {conv, pool} & set(packing.packed)
    assert layers(graph, packing.packed) - layers(graph, inner) == {"fc1", "fc2"}
    _, few = decided(netdsl.load("vgg16").graph, batch=8)
    assert set(few.packed) == set(inner)


def test_googlenet_stays_packed_within_and_between_its_inceptions() -> None:
    graph, packing = decided(netdsl.load("googlenet_torchvision").graph)
    joined = [n for n in graph if isinstance(n.op, Concat)]
    convs = [n for n in graph if isinstance(parts(n).base, Conv)]
    assert (len(joined), len(convs)) == (9, 57)
    # All but the last inception, whose output is averaged.
    *inner, last = joined
    assert all(n.name in packing.packed and n.name not in packing.floats for n in inner)
    assert last.name not in packing.packed
    apart = [n for n in convs if n.name not in packing.packed]
    assert {n.name for n in apart} == set(last.inputs) & {n.name for n in convs}
    assert not set(packing.packed) & set(packing.floats)


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 8), ("resnet50", 16)])
def test_residual_nets_write_both_where_a_sum_is_added_again(name: str, blocks: int) -> None:
    graph, packing = decided(netdsl.load(name).graph)
    sums = [n for n in graph if parts(n).residual]
    assert len(sums) == blocks
    both = set(packing.packed) & set(packing.floats)
    # A block before one with a convolution in its shortcut is read by convolutions alone.
    shortcuts = {n.inputs[1] for n in sums if not parts(graph[n.inputs[1]]).residual}
    added = {n.inputs[1] for n in sums} - shortcuts
    pooled = {n.name for n in graph if isinstance(n.op, MaxPool)}
    assert added - pooled <= both <= added
    convs = [n for n in graph if isinstance(parts(n).base, Conv) and not parts(n).residual]
    # The first pool is wanted as both in one of the nets, and so has floats before it.
    before = {graph[n].inputs[0] for n in pooled - set(packing.packed)}
    assert len(before) == (name == "resnet18")
    assert {n.name for n in convs} - set(packing.packed) <= shortcuts | before


@pytest.mark.parametrize(
    ("text", "packed"),
    [
        # In float32, of an output, for a reader of floats, of what no tensor core makes.
        ("conv1x1(16)", ""),
        ("conv1x1(16) -> sigmoid -> conv1x1(16)", ""),
        ("dwconv3x3p1 -> conv1x1(16)", ""),
        ("conv1x1(16) -> avgpool2 -> conv1x1(16)", ""),
        ("conv1x1(16) -> maxpool5s2p2 -> conv1x1(16)", ""),
        ("maxpool2 -> conv1x1(16)", ""),
        ("conv1x1(16) as a -> conv1x1(16) as b; output a, b", "a"),
        # Groups of whole units, and not.
        ("conv1x1g2(32) -> conv1x1(16)", "conv1"),
        ("conv1x1g2(36) -> conv1x1(16)", ""),
        # Branches that begin at whole units; one that lies in two joined tensors.
        ("[conv1x1(16) | conv1x1(3)] -> conv1x1(16)", "concat1 conv1 conv2"),
        ("[conv1x1(12) | conv1x1(16)] -> conv1x1(16)", ""),
        ("[conv1x1(16) | tanh] -> conv1x1(16)", ""),
        (
            "conv1x1(16) as a; [[a | conv1x1(8)] -> conv1x1(16) | [a | conv1x1(8)] "
            "-> conv1x1(16)] -> conv1x1(8)",
            "a concat1 concat3 conv1 conv2 conv4",
        ),
        # Its positions are other rows of weights.
        ("conv1x1(16) -> fc(8)", ""),
        ("conv1x1(16) -> maxpool2 -> conv4x4(16) -> fc(8)", "conv1 conv2 maxpool1"),
    ],
)
def test_what_is_packed_is_what_can_be_written_and_read_so(text: str, packed: str) -> None:
    graph, packing = decided(load(f"input 32x8x8; {text}"))
    assert " ".join(sorted(layers(graph, packing.packed))) == packed


def test_nothing_is_packed_in_float32() -> None:
    graph, packing = decided(netdsl.load("googlenet").graph, "fp32")
    assert not packing.packed
    assert not packing.reads
    assert set(packing.floats) == {node.name for node in graph}


def cells(buffer: Buffer, positions: int) -> set[int]:
    """The floats of a tensor, (batch, positions, words)."""
    words, apart = buffer.sample // positions, buffer.batch_stride // positions
    starts = buffer.offset + apart * np.arange(buffer.batch * positions)
    return set((starts[:, None] + np.arange(words)).reshape(-1).tolist())


@pytest.mark.parametrize(
    "text",
    [
        "conv1x1(16) -> relu as a; [a -> maxpool3s1p1 | a -> conv3x3p1(12)] as b; "
        "[b -> conv1x1(5) | b -> tanh] -> relu -> conv1x1(8) -> conv1x1(8)",
        "conv1x1(16) as a; [a | a -> conv1x1(24)] -> conv1x1(16) as b; "
        "[b -> conv3x3p1(16) + b] -> relu as c -> maxpool2 -> conv1x1(16) -> conv1x1(3) as d; "
        "output c, d",
    ],
)
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_tensors_that_are_alive_together_lie_apart(text: str, precision: str) -> None:
    graph, packing = decided(load(f"input 8x4x4; {text}"), precision, batch=2)
    over = {n.name: RECIPES[type(parts(n).base)].over for n in graph if n.inputs}
    apart = frozenset((*graph.inputs, *graph.outputs))
    placed = place(graph, 2, over, apart, packing, precision)
    assert set(placed.floats) == set(packing.floats)
    assert set(placed.packed) == set(packing.packed)
    assert set(packing.packed) - set(packing.floats)
    assert set(packing.packed) & set(packing.floats)
    held = [(n, packing.floats[n], cells(b, 1), "floats") for n, b in placed.floats.items()]
    held += [
        (n, packing.packed[n], cells(b, prod(graph[n].shape[1:])), "packed")
        for n, b in placed.packed.items()
    ]
    for (one, alive, left, kind), (two, alive_too, right, other) in combinations(held, 2):
        if alive.overlaps(alive_too) and left & right:
            # A branch lies in the joined tensor, and a pass writes over what it reads last.
            first, second = sorted((one, two), key=lambda n: graph.nodes.index(graph[n]))
            assert kind == other
            assert first in graph[second].inputs
            assert isinstance(graph[second].op, Concat) or over[second]
    assert max(max(found) for _, _, found, _ in held) < placed.total


CHOSEN: list[Case] = [
    ("input 3x5x4; conv3x3p1(5) -> relu -> conv3x3p1(7)", 2, "tf32", 3),
    ("input 3x5x4; conv3x3p1(11) -> leaky(0.2) -> conv3x3p1(7)", 2, "bf16", 3),
    ("input 9x6; conv3p1(36) as a -> conv1(5) as b; output a, b", 2, "bf16", 3),
    # Every tile.
    ("input 3x10x19; conv1x1(50) -> relu -> conv1x1(5)", 1, "tf32", 3),
    ("input 9x11x17; conv1x1(61) as a -> conv1x1(5) as b; output a, b", 1, "bf16", 3),
    ("input 3x21x31; conv1x1(11) -> leaky -> conv1x1(5)", 1, "tf32", 3),
    ("input 3x21x31; conv1x1(14) -> hswish -> conv1x1(5)", 1, "bf16", 3),
    ("input 9x70; conv3p1(35) -> conv1(5)", 1, "tf32", 3),
    ("input 3x9x11; conv2x2(21) -> conv1x1(5)", 1, "bf16", 3),
    # Sums that are cut into parts.
    ("input 80x2x2; conv3x3p1(5) -> relu -> conv1x1(4)", 2, "tf32", 3),
    ("input 160x2x3; conv3x3p1(11) as a -> conv1x1(4) as b; output a, b", 1, "bf16", 3),
    # A sum that is added again, joined tensors, one of them read in part.
    ("input 3x4x5; conv1x1(6) as a; [a -> conv3x3p1(6) + a] -> relu -> conv1x1(5)", 2, "bf16", 3),
    ("input 3x4x5; [conv1x1(8) -> relu | conv3x3p1(13)] -> conv1x1(5)", 2, "bf16", 3),
    ("input 3x4x5; conv1x1(8) as a; [a | a -> conv3x3p1(5)] -> conv1x1(5)", 2, "tf32", 3),
    ("input 9; fc(21) -> relu -> fc(17) -> fc(3)", 9, "bf16", 3),
    ("input 5x2x3; tconv2x2s2(9) -> relu -> conv3x3p1(5)", 2, "bf16", 3),
    ("input 5x2x3x2; conv2p1(9) -> conv3p1(5)", 1, "tf32", 3),
    ("input 32x3; conv1g2(32) -> relu -> conv1g2(32)", 2, "bf16", 7),
    ("input 64x2x2; conv3x3p1g2(48) -> conv1x1(3)", 1, "tf32", 7),
    # Max pools by every window, over edges and in three axes, of one and both kinds.
    ("input 3x9x7; conv3x3p1(5) -> relu -> maxpool2 -> conv3x3p1(7)", 2, "tf32", 3),
    ("input 3x3x4x5; conv2(9) -> maxpool2 -> conv1(7)", 2, "bf16", 3),
    ("input 3x9x7; conv1x1(5) -> maxpool3s2p1ceil -> conv3x3p1(7)", 2, "bf16", 3),
    ("input 3x7x9; conv1x1(6) -> maxpool3s2 -> conv1x1(7)", 2, "tf32", 3),
    ("input 3x5x7; conv1x1(17) -> maxpool3s1p1 -> conv1x1(7)", 2, "bf16", 3),
    ("input 3x6x7; conv1x1(9) -> maxpool2s1 -> maxpool5s1p2 -> conv1x1(7)", 1, "bf16", 3),
    ("input 3x6x7; conv1x1(9) -> maxpool5s1p2 -> maxpool2s1 -> conv1x1(7)", 1, "tf32", 3),
    (
        "input 3x5x7; conv1x1(8) -> relu as a; [a -> maxpool3s1p1 | a -> conv3x3p1(9)] "
        "-> [conv1x1(7) | avgpool3s1p1]",
        2,
        "tf32",
        3,
    ),
]


def test_packing_at_once_makes_what_packing_afterwards_makes() -> None:
    found = simulate("agree", CHOSEN, SCRIPT)
    for case, (same, _, _) in zip(CHOSEN, found, strict=True):
        assert same, case
    assert all(len(calls) < others for _, calls, others in found)
    met = {kernel for _, calls, _ in found for kernel in calls}
    windows = ("2s2", "3s2", "2s1", "3s1", "5s1")
    pools = {f"max_units {w} {p}" for w in windows for p in ("tf32", "bf16")}
    assert sum(kernel.startswith("conv_tensor ") for kernel in met) == len(TENSOR_KERNELS)
    assert {"conv_finish_packed", *pools} <= met


BUGS = {
    "positions past the last are packed": (
        "ending",
        "there = begin >= 0 and unit + 8 * j < filters",
        "there = unit + 8 * j < filters",
    ),
    "units past the last are packed": (
        "ending",
        "there = begin >= 0 and unit + 8 * j < filters",
        "there = begin >= 0",
    ),
    "channels past the last are not zero": (
        "ending",
        "low = as_tf32(sums[k]) if own < filters else ZERO",
        "low = as_tf32(sums[k] + own)",
    ),
    "halves past the last are not zero": (
        "ending",
        "low = sums[k] if own < filters else ZERO",
        "low = sums[k] if own < filters else float32(1)",
    ),
    "all groups are packed in the first one's place": (
        "ending",
        "quotient(int32(earlier + unit), EACH)",
        "quotient(unit, EACH)",
    ),
    "floats are not written beside": (
        "ending",
        "if ints[uint32(at + TARGET)] >= 0:",
        "if ints[uint32(at + TARGET)] >= 0 and ints[uint32(at + PACKED)] < 0:",
    ),
    "all samples are packed in the first one's place": (
        "ending",
        "begin = packed_of(ints, at, m)",
        "begin = packed_of(ints, at, step)",
    ),
    "words are exchanged with the wrong lanes": ("ending", "else b, 1)", "else b, 2)"),
    "words of two units are exchanged": (
        "ending",
        "came if odd else a, b if odd else came",
        "a if odd else came, came if odd else b",
    ),
    "TF32's words are exchanged": (
        "ending",
        "store2(arena, to, low, high)",
        "store2(arena, to, high, low)",
    ),
    "no barrier in the square": (
        "pack",
        "    cuda.syncthreads()\n    each",
        "    each",
    ),
    "words past the last are packed": ("pack", "if to >= 0 and first_w + w", "if to >= 0 or w"),
    "words past the last position are packed": ("pack", "if to >= 0 and first_w", "if first_w"),
    "channels past the last are finished": ("pack", "if f < lines and m <", "if m <"),
    "columns are not clamped": ("units", "clamped(int32(x0 + k), width)", "int32(x0 + k)"),
    "rows are not clamped": ("units", "clamped(int32(y0 + r), height)", "int32(y0 + r)"),
    "planes past the last are read": ("units", "min(int32(z0 + deep), depth)", "int32(z0 + deep)"),
    "windows are next to each other": ("units", "out_width) * S - left", "out_width) - left"),
    "all samples are the first": ("units", "n * source_batch + word", "word"),
    "a word is left out": ("units", "larger_of(c, g), larger_of(d, h)", "larger_of(c, g), d"),
    "the positions of a joined tensor lie close": ("units", "p * target_cell", "p * 4 * units"),
}

SHOWING: list[Case] = [
    ("input 3x5x5; conv1x1(17) -> conv1x1(9)", 2, "bf16", 1),
    ("input 3x70; conv1(36) as a -> conv1(9) as b; output a, b", 1, "tf32", 1),
    ("input 32x3; conv1g2(32) -> conv1(3)", 1, "bf16", 1),
    ("input 80x2x2; conv3x3p1(5) -> relu -> conv1x1(4)", 1, "tf32", 1),
    ("input 160x2x3; conv3x3p1(11) -> relu -> conv1x1(4)", 1, "bf16", 1),
    ("input 3x5x7; conv1x1(8) as a; [a -> maxpool3s1p1 | conv1x1(8)] -> conv1x1(9)", 2, "bf16", 1),
    ("input 3x3x5x5; conv1(5) -> maxpool3s2p1 -> conv1(2)", 2, "tf32", 1),
]


@pytest.mark.slow
def test_planted_bugs_are_found() -> None:
    same = ("tensor", "ALIGNED = 128\n", "ALIGNED = 128\n\n")
    found = simulate("planted", {"bugs": [same, *BUGS.values()], "cases": SHOWING}, SCRIPT)
    assert found[0] == ""
    missed = [name for name, shown in zip(BUGS, found[1:], strict=True) if not shown]
    assert not missed
