"""The generator of depthwise rows: what it writes, for the CPUs that it is made for."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from assembly import compiled, multiplies, spilled
from llvmlite import binding, ir
from numpy.lib.stride_tricks import sliding_window_view

from netdsl.cpu.direct import bits
from netdsl.cpu.micro.row_shapes import (
    AVX512_ROWS,
    KERNELS,
    NARROW_ROWS,
    ROW_FIELDS,
    STRIDES,
    choose,
    rows,
)
from netdsl.cpu.micro.rows import name_of, row_function
from netdsl.cpu.native import assembled

LINUX = "x86_64-unknown-linux-gnu"
TARGETS = {
    "znver4": AVX512_ROWS,
    "skylake-avx512": AVX512_ROWS,
    "haswell": NARROW_ROWS,
    "znver2": NARROW_ROWS,
}


@pytest.mark.parametrize("cpu", TARGETS)
def test_no_sum_leaves_its_register(cpu):
    module = ir.Module("rows")
    functions = compiled([row_function(module, row) for row in TARGETS[cpu]], LINUX, cpu)
    assert set(functions) == {name_of(row) for row in TARGETS[cpu]}
    assert [name for name, lines in functions.items() if spilled(lines)] == []
    for row in TARGETS[cpu]:
        assert len(multiplies(functions[name_of(row)])) == row.pixels * row.kernel


def test_it_compiles_for_neon():
    module = ir.Module("rows")
    made = [row_function(module, row) for row in NARROW_ROWS]
    for lines in compiled(made, "aarch64-unknown-linux-gnu", "neoverse-n1").values():
        assert any("fmla" in line for line in lines)


@pytest.fixture(scope="module", params=["wide", "narrow"])
def library(request):
    """The functions of all ways, compiled for this CPU, whatever its registers, by way."""
    chosen = {"wide": AVX512_ROWS, "narrow": NARROW_ROWS}[request.param]
    module = ir.Module("rows")
    for row in chosen:
        row_function(module, row).linkage = "external"
    engine = binding.create_mcjit_compiler(
        binding.parse_assembly(""), binding.Target.from_default_triple().create_target_machine()
    )
    engine.add_object_file(binding.ObjectFileRef.from_data(assembled(str(module))))
    engine.finalize_object()
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    kind = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, number, number, number, number)
    yield {row: kind(engine.get_function_address(name_of(row))) for row in chosen}
    del engine


@pytest.mark.parametrize("more", [0, 1, 3, 10])
def test_a_row_is_what_numpy_says(library, more):
    for row, function in library.items():
        width = row.pixels + more
        random = np.random.default_rng([more, *row])
        inputs = random.standard_normal((3, (width - 1) * row.stride + row.kernel, 16))
        weights, bias = random.standard_normal((3, row.kernel, 16)), random.standard_normal(16)
        windows = sliding_window_view(inputs, row.kernel, axis=1)[:, :: row.stride]
        wanted = np.clip(np.einsum("rwck,rkc->wc", windows, weights) + bias, -1.5, 2.0)
        below = np.full((width + 2, 16), 7.0)
        arena = np.concatenate([inputs.ravel(), below.ravel()]).astype(np.float32)
        params = np.concatenate([weights.ravel(), bias]).astype(np.float32)
        apart = inputs[0].size
        fields = (3, ROW_FIELDS, width, bits(-1.5), bits(2.0), 0, apart, 2 * apart)
        t = np.array(fields, np.int64)
        places = (0, 0, inputs.size + 16, weights.size)
        function(arena.ctypes.data, params.ctypes.data, t.ctypes.data, *places)
        found = arena[inputs.size :].reshape(width + 2, 16)
        # 3 x 5 terms of unit size in single precision.
        np.testing.assert_allclose(found[1:-1], wanted, atol=1e-5, err_msg=str(row))
        assert (found[[0, -1]] == 7.0).all(), row


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("stride", STRIDES)
def test_a_way_for_every_width(kernel, stride):
    for width in range(1, 40):
        row = rows()[choose(width, kernel, stride)]
        assert (row.kernel, row.stride) == (kernel, stride)
        assert row.pixels <= width
