"""Products of matrices in bfloat16 (AMX): what tiles become, layers beside double precision, and
tensors that are made in bfloat16. What a single layer computes is in test_rounding.py too."""

from __future__ import annotations

import numpy as np
import pytest
from agree import drawn_inputs, drawn_weights, poison
from assembly import compiled
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import ir
from numpy.typing import NDArray
from test_plan_nets import NETS
from test_rounding import check, half

from netdsl import cpu
from netdsl.cpu import matrix, plan, table
from netdsl.cpu.direct import view
from netdsl.cpu.half_pool import half_narrow_pool, half_pool
from netdsl.cpu.halves import Writers, moved_up
from netdsl.cpu.layout import LANES, Halo, aligned, fresh, image
from netdsl.cpu.matrix import lines, tile_for
from netdsl.cpu.micro import MATRICES, Shape, matrices
from netdsl.cpu.micro import shapes as micro_shapes
from netdsl.cpu.micro.matrix import name_of, tile_function
from netdsl.cpu.micro.registers import REGISTERS, registers
from netdsl.cpu.rounding import buffer_of, round_wide, with_rounding
from netdsl.cpu.views import call, link
from netdsl.cpu.windows import even
from netdsl.graph import Graph
from netdsl.lang import load
from netdsl.reference import interpret

Floats = NDArray[np.float32]

needs_matrices = pytest.mark.skipif(
    not matrices(), reason="this CPU has no AMX, or the system gives no leave to use it"
)


def test_tiles_of_matrices_keep_their_sums_in_registers() -> None:
    module = ir.Module("matrices")
    functions = [tile_function(module, tile) for tile in MATRICES]
    found = compiled(functions, "x86_64-unknown-linux-gnu", "sapphirerapids")
    assert set(found) == {name_of(tile) for tile in MATRICES}
    for tile in MATRICES:
        lines, sums = found[name_of(tile)], tile.shape.pixels * tile.shape.blocks
        at = [i for i, line in enumerate(lines) if "tdpbf16ps" in line]
        assert len(at) == sums, tile
        loop = lines[at[0] : at[-1]]
        assert not any("tilestored" in line or "(%rsp" in line for line in loop), tile
        assert sum("tilestored" in line for line in lines) == sums
        # Inputs and weights, and the sums of the parts before.
        assert sum("tileloadd" in line for line in lines) == sum(tile.shape) + sums


@pytest.mark.parametrize("shape", [tile.shape for tile in MATRICES])
def test_registers_are_enough_and_apart(shape: Shape) -> None:
    inputs, weights = registers(shape)
    sums = range(shape.pixels * shape.blocks)
    used = [*sums, *inputs, *weights]
    assert len(set(used)) == len(used)
    assert set(used) <= set(range(REGISTERS))
    assert min(len(inputs), len(weights)) > 0


def test_a_cpu_without_amx_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    for granted, has in ((True, {"amx-tile"}), (False, {"amx-tile", "amx-bf16"})):
        monkeypatch.setattr(micro_shapes, "dots", lambda: True)
        monkeypatch.setattr(micro_shapes, "_has", has.__contains__)
        monkeypatch.setattr(micro_shapes.amx, "granted", lambda granted=granted: granted)
        assert not micro_shapes.matrices.__wrapped__()


@pytest.mark.parametrize(
    ("size", "padding", "stride", "count"),
    [
        ((7, 7), 1, 1, 4),  # 61 places from the first to the last, those between rows with them
        ((14, 14), 1, 1, 14),
        ((16, 16), 1, 1, 16),  # rows of 16 are as good as can be
        ((9, 33), 0, 1, 19),  # one run of all rows
        ((14, 14), 1, 2, 7),  # every other column: rows of 7
    ],
)
def test_registers_are_filled_along_rows_or_across(
    size: tuple[int, int], padding: int, stride: int, count: int
) -> None:
    halo = Halo((0, padding, padding), (0, padding, padding))
    source = buffer_of((64, *size), LANES, 1, halo)
    rows, columns = (-(-n // stride) for n in size)
    places = view(source, (0, -padding, -padding), (1, stride, stride))
    assert lines((1, 1, rows, columns), places).sixteens == count


def test_tiles_suit_the_blocks_of_filters() -> None:
    assert tile_for(64, [8], 18, 2).shape == (2, 2)
    assert tile_for(64, [1], 18, 2).shape == (4, 1)
    assert tile_for(1, [64], 128, 2).shape == (1, 4)


@needs_matrices
@settings(max_examples=30)
@given(
    channels=st.integers(1, 100),
    filters=st.integers(1, 70),
    size=st.tuples(st.integers(5, 20), st.integers(5, 37)),
    kernel=st.sampled_from(("1", "1s2", "3p1", "3s2p1", "2", "5p2", "3p2d2", "1x5s2", "11s4p2")),
    batch=st.integers(1, 3),
)
def test_odd_shapes(channels: int, filters: int, size: tuple[int, int], kernel: str, batch: int):
    if kernel == "11s4p2":
        size = (size[0] + 8, size[1] + 8)
    text = f"input {channels}x{size[0]}x{size[1]}; conv{kernel}({filters})"
    words = check(text, batch, "matrices")
    assert "to bf16" in words


MORE = [
    "input 64x7x7; conv3p1(96)",
    "input 48x14x14; conv3p1g3(48)",
    "input 96x9x11; conv3p1g2(64)",
    "input 3x9x40; conv3p1d3(20)",
    "input 7x21x23; conv7s2p3(33)",
    "input 2x300; conv80s4(24)",
    "input 20x50; conv9p4(30)",
    "input 3x5x12x13; conv3p1(20)",
    "input 40x4x7x7; conv3p1(36)",
    "input 70x1x1; conv1(33)",
]


@needs_matrices
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("text", MORE)
def test_layers(text: str, batch: int) -> None:
    assert "to bf16" in check(text, batch, "matrices")


@needs_matrices
@pytest.mark.parametrize("batch", [5, 8, 16, 21, 33])
def test_samples_are_the_places_of_fully_connected_layers(batch: int) -> None:
    assert "to bf16" in check("input 20x5x7; flatten -> fc(70)", batch, "matrices")


@needs_matrices
def test_what_is_added_is_not_rounded() -> None:
    graph = load("input 40x9x9; [conv3p1(40) + id] -> relu")
    weights, inputs = drawn_weights(graph), drawn_inputs(graph, 2)
    made = cpu.compile(graph, weights, batch=2, precision="bf16")
    poison(made)
    found = next(iter(made.run(inputs).values()))
    bare = load("input 40x9x9; conv3p1(40)")
    x = next(iter(inputs.values()))
    name = next(name for name in weights if name.endswith("weight"))
    factors = {**weights, name: half(weights[name])}
    sums = next(iter(interpret(bare, factors, {bare.inputs[0]: half(x)}).values()))
    np.testing.assert_allclose(found, np.maximum(sums + x, 0), rtol=0, atol=2e-5)


@needs_matrices
@pytest.mark.parametrize("batch", [2, 3])
def test_a_residual_ends_with_its_own_channels(batch: int) -> None:
    """Forty channels are three blocks, of four that their two pairs have room for: what is behind
    the third is the next sample, or memory where nothing was written."""
    graph = load("input 32x9x7; conv1(40) -> [conv3p1(40) + id] -> relu -> conv1(8)")
    weights, inputs = drawn_weights(graph), drawn_inputs(graph, batch)
    made = cpu.compile(graph, weights, batch=batch, precision="bf16")
    x = inputs[graph.inputs[0]]
    poison(made)
    whole = next(iter(made.run(inputs).values()))
    assert np.isfinite(whole).all()
    x[-1, :, 4] = np.nan
    broken = next(iter(made.run(inputs).values()))
    np.testing.assert_array_equal(broken[:-1], whole[:-1])


CHAINS = {
    "pools": """
        input 32x19x17
        conv1(40) -> relu -> maxpool3s2ceil -> conv3p1(48) -> maxpool2 -> conv1(8)
        """,
    "wide pools": "input 32x19x17; conv1(40) -> maxpool5s2p2 -> conv1(8)",
    "parts of blocks": """
        input 32x9x9
        [conv1(16) | conv3p1(48) | conv1(96) | conv1(20)] -> conv3p1(24)
        [conv1(48) | conv1(32) | maxpool3s1p1 -> conv1(16)] -> relu -> conv1(8)
        """,
    "parts of pools": "input 64x9x9; [conv1(32) | maxpool3s1p1] -> conv1(24)",
    "a pool before what reads its input": "input 32x9x9; [maxpool3s1p1 -> conv1(16) | conv1(32)]",
    "parts before what reads them": "input 32x9x9; conv1(32) -> elu as a; [a | conv1(32)] as b; "
    "[b -> conv1(8) | a -> conv1(8)]",
    "a residual behind an odd block": """
        input 16x12x11; conv1(48) -> [conv1(16) | [conv3p1(48) + id]] -> conv1(24)
        """,
    "parts that are read elsewhere": "input 32x9x9; conv1(32) as a; [a | conv1(16)] -> conv1(24)",
    "responses": "input 3x24x24; conv5s2p2(48) -> relu -> lrn -> maxpool2 -> conv1(20)",
    "odd responses": "input 3x24x24; conv5s2p2(40) -> lrn -> conv1(20)",
    "connected": "input 20x5x7; conv1(33) -> flatten -> fc(70) -> relu -> fc(9)",
}


@needs_matrices
@pytest.mark.parametrize("name", [*CHAINS, *NETS])
def test_each_number_is_rounded_once_wherever(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs are the same to the bit, whether layers round what they make or steps behind them."""
    graph = load(CHAINS.get(name) or NETS[name])
    weights, inputs = drawn_weights(graph), drawn_inputs(graph, 5)

    def outputs() -> list[Floats]:
        made = cpu.compile(graph, weights, batch=5, precision="bf16")
        poison(made)
        made.run(inputs)
        return list(made.run(inputs).values())

    moved = outputs()
    monkeypatch.setattr(plan, "moved_up", lambda graph, writers: (graph, frozenset()))
    for found, wanted in zip(moved, outputs(), strict=True):
        np.testing.assert_array_equal(found, wanted)


POOLED = [
    "input 3x30x30; conv3p1(40) -> relu -> maxpool2 -> conv3p1(70) -> maxpool2 -> conv1(33)",
    "input 64x17x31; conv3p1(64) -> relu6 -> maxpool2 -> conv1(8)",
    "input 160x35x33; conv3p1(24) -> maxpool2",
    "input 64x29x15; conv3p1(24) -> maxpool2",
    "input 64x40x40; [conv3p1(48) -> maxpool2 | conv2s2(80)] -> conv1(20)",
    "input 32x64x64; conv3p1g2(64) -> maxpool2 -> conv1(5)",
    "input 40x41x50; conv5s2p2(50) -> maxpool2 -> conv1(5)",
]


@needs_matrices
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("text", POOLED)
def test_pools_of_what_is_stored(text: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Squares are pooled to the same bits as by a step behind the layer, and a NaN stays one."""
    graph = load(text)
    weights, inputs = drawn_weights(graph), drawn_inputs(graph, batch)
    for x in inputs.values():
        x.reshape(-1)[x.size // 2] = np.nan

    def outputs() -> tuple[list[str], Floats]:
        made = cpu.compile(graph, weights, batch=batch, precision="bf16")
        poison(made)
        made.run(inputs)
        return [step.word for step in made.steps], *made.run(inputs).values()

    words, found = outputs()
    assert not any(word.startswith("maxpool") for word in words)
    monkeypatch.setattr(plan, "pools", lambda *_: False)
    words, wanted = outputs()
    assert any(word.startswith("maxpool") for word in words)
    assert np.isnan(wanted).any()
    np.testing.assert_array_equal(found, wanted)


@needs_matrices
@pytest.mark.parametrize(
    "text",
    [
        "input 512x10x10; conv3p1(16) -> maxpool2",  # rows of 10 take 10 registers, a plane 8
        "input 64x16x16; conv3p1g64(64) -> maxpool2",
        "input 64x16x16; conv3p1(64) -> maxpool3s2",
    ],
)
def test_pools_that_are_steps_of_their_own(text: str) -> None:
    graph = load(text)
    made = cpu.compile(graph, drawn_weights(graph), batch=1, precision="bf16")
    assert any(step.word.startswith("maxpool") for step in made.steps)


@needs_matrices
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(
    "text",
    [
        "input 100x37x19; conv3p1(80)",  # 36 taps in three parts
        "input 40x9x70; conv5p2(33)",
        "input 130x21x5; conv3p1(40)",
        "input 96x15x13; conv3p1g3(96)",
    ],
)
def test_sums_in_parts(text: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums go on where their last part ended: they are the same to the bit."""
    graph = load(text)
    weights, inputs = drawn_weights(graph), drawn_inputs(graph, batch)

    def output() -> Floats:
        made = cpu.compile(graph, weights, batch=batch, precision="bf16")
        poison(made)
        made.run(inputs)
        return next(iter(made.run(inputs).values()))

    found = output()
    monkeypatch.setattr(matrix, "parted", lambda whole: (len(whole.taps), 1))
    np.testing.assert_array_equal(found, output())


def halves_of(text: str) -> tuple[Graph, frozenset[str]]:
    """A net whose convolutions all read bfloat16, and write it where they may."""
    graph = load(text)
    convs = frozenset(node.name for node in graph if graph.parameters(node))
    rounded = with_rounding(graph, frozenset(), convs, True)
    return moved_up(rounded, Writers(convs, convs))


def steps(graph: Graph) -> list[str]:
    return [node.inputs[0] for node in graph if node.op.word() == "to bf16"]


def test_rounding_moves_up_to_what_makes_numbers() -> None:
    graph, halves = halves_of(
        "input 32x9x9; conv1(48) -> maxpool3s1p1 -> [conv1(48) | conv1(16)] -> conv1(8)"
    )
    assert steps(graph) == list(graph.inputs)
    assert len(halves) == 5
    assert graph.outputs[0] not in halves


def test_what_is_rounded_is_there_before_its_readers() -> None:
    graph, _ = halves_of("input 32x9x9; [maxpool3s1p1 -> conv1(16) | conv1(32)]")
    seen: set[str] = set()
    for node in graph:
        assert seen.issuperset(node.inputs)
        seen.add(node.name)


def test_what_others_read_is_rounded_behind() -> None:
    """A sum reads floats, and so does whoever asks for an output."""
    graph, halves = halves_of("input 32x9x9; conv1(32) as a; [a -> conv1(32) + a] -> relu")
    assert "a" not in halves
    assert sorted(steps(graph)) == sorted([*graph.inputs, graph.names.get("a", "a")])


def test_parts_that_cannot_start_within_a_block_stay_floats() -> None:
    graph, halves = halves_of("input 32x9x9; [conv1(16) | maxpool3s1p1] -> conv1(24)")
    assert not any("concat" in name for name in halves)
    assert any("concat" in name for name in steps(graph))


def rounded(x: Floats) -> tuple[Floats, object]:
    """(batch, channels, rows, columns) in bfloat16, in an arena; and its buffer there."""
    source = fresh(x.shape[0], x.shape[1:])
    target = buffer_of(x.shape[1:], LANES, x.shape[0], Halo()).at(source.floats)
    arena = aligned(target.offset + 2 * target.floats)
    blocks = np.zeros((*image(arena, source).shape[:2], *x.shape[2:], 16), np.float32)
    for c in range(x.shape[1]):
        blocks[:, c // 16, ..., c % 16] = x[:, c]
    image(arena, source)[:, :, 0] = blocks
    kernel, d = link(call(round_wide, 2, target, source))
    kernel(arena, arena, d)
    return arena, target


def unrounded(arena: Floats, buffer: object, channels: int) -> Floats:
    """A tensor in bfloat16 as floats."""
    pairs = np.ascontiguousarray(image(arena, buffer)[:, :, 0]).view(np.uint16)
    whole = np.moveaxis(pairs, -1, 2).reshape(pairs.shape[0], -1, *pairs.shape[2:4])
    assert not whole[:, channels:].any()
    return (whole[:, :channels].astype(np.uint32) << 16).view(np.float32)


@needs_matrices
@pytest.mark.parametrize(("size", "step"), [(3, 2), (2, 2), (3, 1), (5, 3)])
def test_the_largest_of_a_window(size: int, step: int) -> None:
    """Signs, infinities and NaN of either sign among them; a NaN is what its window gives."""
    random = np.random.default_rng(size)
    x = random.standard_normal((2, 40, 11, 13)).astype(np.float32)
    x[random.random(x.shape) < 0.02] = -np.inf
    x[random.random(x.shape) < 0.02] = np.nan
    x[random.random(x.shape) < 0.02] = -np.nan
    x[0, 0] = -np.abs(x[0, 0])
    arena, source = rounded(x)
    rows, columns = ((n - size) // step + 1 for n in x.shape[2:])
    target = buffer_of((40, rows, columns), LANES, 2, Halo()).at(source.offset + source.floats)
    axes = [[(i * step, i * step + size, size) for i in range(n)] for n in (rows, columns)]
    table_ = [n for axis in ([(0, 1, 1)], *axes) for window in axis for n in window]
    own = (1, *even(axes[1], 1), 1, 1, 1, *table_)  # one stripe, and the axes' steps
    kernel, d = link(call(half_narrow_pool if size < 4 else half_pool, 2, target, source, *own))
    kernel(arena, arena, d)
    windows = np.lib.stride_tricks.sliding_window_view(half_or_not(x), (size, size), (2, 3))
    wanted = windows[:, :, ::step, ::step].max(axis=(4, 5))
    np.testing.assert_array_equal(unrounded(arena, target, 40), wanted)


def half_or_not(x: Floats) -> Floats:
    """Finite numbers rounded to bfloat16."""
    return np.where(np.isfinite(x), half(np.nan_to_num(x, posinf=0, neginf=0)), x)


def test_what_is_compiled_ahead_has_the_kernels_of_matrices() -> None:
    kernels = {k for recipe in table.RECIPES.values() for k in recipe.half_kernels}
    assert (table.matrix.matrix in kernels) is matrices()
