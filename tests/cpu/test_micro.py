"""The generator of tiles: what it writes for the CPUs that it is made for."""

from __future__ import annotations

import platform
import re
from functools import cache
from itertools import product

import pytest
from assembly import SPILL, compiled, multiplied, multiplies, spilled
from llvmlite import ir

from netdsl.cpu.micro import Kind, code, sandwich, tiles
from netdsl.cpu.micro.fields import ASKS, LINES, SIZES, Size
from netdsl.cpu.micro.points import points_function
from netdsl.cpu.micro.product import product_function, product_name
from netdsl.cpu.micro.quarters import quarters_function
from netdsl.cpu.micro.sandwich import input_function, output_function
from netdsl.cpu.micro.shapes import AVX512, DOTS, MATRICES, NARROW, SAMPLES, Shape, Tile, asks
from netdsl.cpu.micro.tile import ends_asked_for, name_of, tile_function
from netdsl.cpu.micro.turn import Turn, written_out

TARGETS = {
    "zen4": ((*AVX512, *DOTS), "x86_64-unknown-linux-gnu", "znver4"),
    "skylake": (AVX512, "x86_64-unknown-linux-gnu", "skylake-avx512"),
    "sapphire": ((*AVX512, *DOTS, *SAMPLES), "x86_64-unknown-linux-gnu", "sapphirerapids"),
    "haswell": (NARROW, "x86_64-unknown-linux-gnu", "haswell"),
    "zen2": (NARROW, "x86_64-unknown-linux-gnu", "znver2"),
}
BASELINE = "x86-64"
SMALLEST = Tile(Shape(1, 1), Kind.POINTS)
"""Of which LLVM makes several loops, with the tile's start among them."""


def doubled(tile):
    """Whether LLVM makes several loops of a tile: of points, also where an end asks for nothing."""
    return tile == SMALLEST or (tile.kind is Kind.POINTS and not asks())


def of(chosen, triple, cpu):
    """The assembly of these tiles, and of their products, function by function."""
    if any(map(written_out, chosen)) and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("LLVM reads a CPU's instructions only where it runs on one of the family")
    module = ir.Module("tiles")
    functions = [function_of(tile)(module, tile) for tile in chosen]
    functions += [product_function(module, t) for t in chosen if t.kind is Kind.BLOCKED]
    return compiled(functions, triple, cpu)


def function_of(tile):
    """What writes a tile."""
    return points_function if tile.kind is Kind.POINTS else tile_function


@cache
def for_target(name):
    return of(*TARGETS[name])


@pytest.mark.parametrize("target", TARGETS)
def test_no_sum_leaves_its_register(target):
    functions = dict(for_target(target))
    chosen = TARGETS[target][0]
    products = {product_name(tile) for tile in chosen if tile.kind is Kind.BLOCKED}
    assert set(functions) == {name_of(tile) for tile in chosen} | products
    functions.pop(name_of(SMALLEST), None)
    assert [name for name, lines in functions.items() if spilled(lines)] == []


@pytest.mark.parametrize("target", ["zen4", "skylake", "sapphire"])
def test_sums_of_quarters_leave_their_registers_only_to_be_kept(target):
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("LLVM reads a CPU's instructions only where it runs on one of the family")
    module = ir.Module("quarters")
    chosen = [tile for tile in AVX512 if tile.kind is Kind.BLOCKED and written_out(tile)]
    functions = compiled([quarters_function(module, t) for t in chosen], *TARGETS[target][1:])
    assert len(functions) == len(chosen)
    assert [name for name, lines in functions.items() if spilled(lines)] == []


@pytest.mark.parametrize("target", ["zen4", "skylake", "sapphire"])
def test_written_tiles_keep_addresses_in_registers(target):
    functions = for_target(target)
    for tile in filter(written_out, TARGETS[target][0]):
        if tile.kind is Kind.POINTS:  # which asks for three things besides
            continue
        lines = functions[name_of(tile)]
        at = multiplies(lines)
        assert not any("(%rsp" in line for line in lines[at[0] : at[-1] + 1]), tile


@pytest.mark.parametrize(("pixels", "blocks"), [(14, 2), (28, 1), (8, 3), (7, 4), (4, 6)])
@pytest.mark.parametrize("near", [False, True])
def test_a_written_turn_reads_each_number_from_where_it_is(pixels, blocks, near):
    """Every multiply-add, by what a machine of three lines makes of the text."""
    tile = Tile(Shape(pixels, blocks), Kind.BLOCKED)
    found = multiplied(Turn(tile, near), x=10_000, w=500_000, step=64, across=7_000)
    expected = {
        (10_000 + 64 * pixel + 4 * channel, 500_000 + 7_000 * block + 64 * channel, total)
        for channel in range(4)
        for total, (pixel, block) in enumerate(product(range(pixels), range(blocks)))
    }
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(("target", "split"), [("zen4", 1), ("sapphire", 1), ("haswell", 2)])
def test_a_multiply_add_for_each_sum_and_lane(target, split):
    """Four input channels a turn of the loop (one where a tap has one; of tight weights one in its
    inner loop, and the eighth), and no more unrolling."""
    functions = for_target(target)
    for tile in TARGETS[target][0]:
        if doubled(tile):
            continue
        sums = tile.shape.pixels * tile.shape.blocks * split
        turns = 2 if tile.kind is Kind.TIGHT else 4 if tile.kind.lanes == 16 else 1
        assert len(multiplies(functions[name_of(tile)])) == sums * turns, tile
        if tile.kind is Kind.BLOCKED:
            made = functions[product_name(tile)]
            assert len(multiplies(made)) == sums * turns, tile
            asked = sum("prefetch" in line for line in made)
            assert asked == LINES * tile.shape.blocks, tile


@pytest.mark.parametrize(("pooled", "asked"), [(False, 16), (True, 4)])
def test_a_tile_of_outputs_asks_for_those_of_the_next(pooled, asked, monkeypatch):
    """On CPUs that gain by it."""
    for gains in (True, False):
        monkeypatch.setattr(sandwich, "asks", lambda gains=gains: gains)
        made = str(output_function(ir.Module(), Size(4, 3), pooled))
        assert made.count("llvm.prefetch") == asked * gains


def test_a_written_tile_asks_for_its_outputs_and_its_residual():
    """Once each, before its sums, or not at all."""
    functions = for_target("zen4")
    for tile in TARGETS["zen4"][0]:
        if tile.kind is Kind.POINTS:
            continue
        lines = functions[name_of(tile)]
        asked = [i for i, line in enumerate(lines) if "prefetch" in line]
        vectors = tile.shape.pixels * tile.shape.blocks
        ends = 2 * vectors if ends_asked_for(tile) else 0
        more = tile.shape.blocks if tile.kind is Kind.TIGHT else 0
        assert len(asked) == ends + more, tile
        assert not ends or asked[ends - 1] < multiplies(lines)[0]
    chosen = [Tile(Shape(14, 2), Kind.BLOCKED), Tile(Shape(10, 2), Kind.PLANAR)]
    assert [ends_asked_for(tile) for tile in chosen] == [asks()] * 2
    assert not ends_asked_for(Tile(Shape(1, 8), Kind.BLOCKED))


def test_a_tile_of_points_asks_turn_by_turn():
    """For weights, for inputs, and of a pixel for outputs and residual."""
    functions = for_target("zen4")
    for tile in TARGETS["zen4"][0]:
        if tile.kind is Kind.POINTS and not doubled(tile):
            asked = sum("prefetch" in line for line in functions[name_of(tile)])
            ends = 2 * tile.shape.blocks if asks() else 0
            assert asked == LINES * tile.shape.blocks + ASKS + ends, tile


@pytest.mark.parametrize("target", ["zen4", "sapphire"])
def test_registers_of_avx512_hold_what_lies_between_two_rows_of_transformed_inputs(target):
    """But for two rows of seven inputs: sums that both share save more than their spills take."""
    module = ir.Module("transforms")
    functions = [input_function(module, size, again=True) for size in SIZES if size.taps == 3]
    found = compiled(functions, *TARGETS[target][1:])
    spills = {name: sum(map(bool, map(SPILL.search, lines))) for name, lines in found.items()}
    assert spills.pop("netdsl.input7") < 30
    assert set(spills.values()) == {0}


def test_vectors_that_transforms_keep_on_the_stack_lie_within_cache_lines():
    module = ir.Module("transforms")
    # Sizes with as many inputs share a function.
    inputs = [input_function(module, size, again=False) for size in SIZES]
    functions = list({f.name: f for f in inputs}.values())
    functions += [output_function(module, size) for size in SIZES]
    found = compiled(functions, *TARGETS["haswell"][1:])
    kept = {name: lines for name, lines in found.items() if any("(%rsp)" in n for n in lines)}
    assert "netdsl.input6" in kept
    for name, lines in kept.items():
        assert any(re.search(r"andq\s+\$-64, %rsp", line) for line in lines), name


def test_pairs_are_multiplied_at_once():
    """The products of pairs are AVX512-BF16's, and nothing else is."""
    functions = for_target("zen4")
    for tile in TARGETS["zen4"][0]:
        paired = any("vdpbf16ps" in line for line in functions[name_of(tile)])
        assert paired is (tile in DOTS)


def test_it_compiles_for_neon_and_for_a_cpu_without_multiply_add():
    neon = of(NARROW, "aarch64-unknown-linux-gnu", "neoverse-n1")
    old = of(NARROW, "x86_64-unknown-linux-gnu", BASELINE)
    for tile in NARROW:
        assert any("fmla" in line for line in neon[name_of(tile)])
        assert any("mulps" in line for line in old[name_of(tile)])
        assert not any("fmaf" in line for line in old[name_of(tile)]), "a library call a lane"


@pytest.mark.parametrize("kind", Kind)
def test_the_smallest_tile_of_each_kind_is_there(kind):
    tables = {Kind.PAIRED: [DOTS], Kind.PLANAR_PAIR: [DOTS], Kind.MATRIX: [MATRICES]}
    tables[Kind.POINTS] = [AVX512]
    for chosen in tables.get(kind, [AVX512, NARROW]):
        assert (1, 1) in [tuple(t.shape) for t in chosen if t.kind is kind]


def test_codes_name_tiles():
    assert [code(tile) for tile in tiles()] == list(range(len(tiles())))
