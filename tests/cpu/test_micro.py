"""The generator of tiles: what it writes for the CPUs that it is made for."""

from __future__ import annotations

import re
from functools import cache

import pytest
from llvmlite import binding, ir

from netdsl.cpu.micro import Kind, code, tiles
from netdsl.cpu.micro.shapes import AVX512, DOTS, NARROW
from netdsl.cpu.micro.tile import name_of, tile_function

TARGETS = {
    "zen4": ((*AVX512, *DOTS), "x86_64-unknown-linux-gnu", "znver4"),
    "skylake": (AVX512, "x86_64-unknown-linux-gnu", "skylake-avx512"),
    "haswell": (NARROW, "x86_64-unknown-linux-gnu", "haswell"),
    "zen2": (NARROW, "x86_64-unknown-linux-gnu", "znver2"),
}
TO_STACK = re.compile(r"vmov\w+\s+%[xyz]mm\d+, -?\d*\(%rsp\)")
BASELINE = "x86-64"


def compiled(chosen, triple, cpu):
    """The assembly of these tiles, function by function."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    module = ir.Module("tiles")
    module.triple = triple
    for tile in chosen:
        tile_function(module, tile).linkage = "external"
    machine = binding.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.slp_vectorization = options.loop_vectorization = True
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in machine.emit_assembly(parsed).splitlines():
        label = re.match(r'"?(netdsl\.\w+)"?:', line)
        if label:
            lines = found.setdefault(label[1], [])
        lines.append(line)
    return found


@cache
def for_target(name):
    return compiled(*TARGETS[name])


def multiplies(lines):
    """Where the multiply-adds stand, or the products of pairs."""
    return [i for i, line in enumerate(lines) if "fmadd" in line or "vdpbf16ps" in line]


def loop(lines):
    """From the first multiply-add to the last: the loop over taps is the only place with any."""
    at = multiplies(lines)
    return lines[at[0] : at[-1] + 1]


@pytest.mark.parametrize("target", TARGETS)
def test_no_sum_leaves_its_register(target):
    functions = for_target(target)
    spilled = {
        name: [line for line in loop(lines) if TO_STACK.search(line)]
        for name, lines in functions.items()
    }
    assert set(functions) == {name_of(tile) for tile in TARGETS[target][0]}
    assert {name for name, lines in spilled.items() if lines} == set()


@pytest.mark.parametrize(("target", "split"), [("zen4", 1), ("haswell", 2)])
def test_a_multiply_add_for_each_sum_and_lane(target, split):
    """Four input channels a turn of the loop (one where a tap has one), and no more unrolling."""
    functions = for_target(target)
    for tile in TARGETS[target][0]:
        sums = tile.shape.pixels * tile.shape.blocks * split
        turns = 4 if tile.kind.lanes == 16 else tile.kind.taps
        assert len(multiplies(functions[name_of(tile)])) == sums * turns, tile


def test_pairs_are_multiplied_at_once():
    """The products of pairs are AVX512-BF16's, and nothing else is."""
    functions = for_target("zen4")
    for tile in TARGETS["zen4"][0]:
        paired = any("vdpbf16ps" in line for line in functions[name_of(tile)])
        assert paired is (tile in DOTS)


def test_it_compiles_for_neon_and_for_a_cpu_without_multiply_add():
    neon = compiled(NARROW, "aarch64-unknown-linux-gnu", "neoverse-n1")
    old = compiled(NARROW, "x86_64-unknown-linux-gnu", BASELINE)
    for tile in NARROW:
        assert any("fmla" in line for line in neon[name_of(tile)])
        assert any("mulps" in line for line in old[name_of(tile)])
        assert not any("fmaf" in line for line in old[name_of(tile)]), "a library call a lane"


@pytest.mark.parametrize("kind", Kind)
def test_the_smallest_tile_of_each_kind_is_there(kind):
    for chosen in [DOTS] if kind in (Kind.PAIRED, Kind.PLANAR_PAIR) else [AVX512, NARROW]:
        assert (1, 1) in [tuple(t.shape) for t in chosen if t.kind is kind]


def test_codes_name_tiles():
    assert [code(tile) for tile in tiles()] == list(range(len(tiles())))
