"""Every CUDA kernel compiled for the cards it is meant for, without one. Needs numba-cuda, NVIDIA's
compiler packages, and ptxas; a script too, that prints the table:

    python tests/cuda/test_offline.py
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

CARDS = ((8, 0), (9, 0))


class Compiled(NamedTuple):
    """What ptxas says of a kernel, and what its PTX holds."""

    kernel: str
    card: str
    registers: int
    shared: int
    stack: int
    spills: int
    doubles: int
    wide_divisions: int
    multiply_adds: int
    wide_loads: int
    fours: int
    twos: int
    ones: int
    share: float
    fragments: tuple[int, int, int]
    code: str
    home: str


def ptxas() -> Path | None:
    """The assembler of the package nvidia-cuda-nvcc, where it is installed."""
    for folder in (Path(entry) / "nvidia" for entry in sys.path):
        found = next(folder.glob("**/bin/ptxas"), None) if folder.is_dir() else None
        if found:
            return found
    return None


def kernels() -> dict[str, Any]:
    """Every kernel of the package by name, see registry.py."""
    import registry

    made = registry.kernels()

    from netdsl.cuda import cache
    from netdsl.cuda.backward.depthwise import STRIPS as WEIGHT_STRIPS
    from netdsl.cuda.backward.product import KERNELS as PRODUCTS
    from netdsl.cuda.backward.strips import BACK
    from netdsl.cuda.backward.tensor import KERNELS as ROUNDED
    from netdsl.cuda.backward.weighted import KERNELS as WEIGHTED
    from netdsl.cuda.depthwise import STRIPS
    from netdsl.cuda.doubled import DOUBLED
    from netdsl.cuda.gemm import KERNELS
    from netdsl.cuda.peak import PEAKS
    from netdsl.cuda.strips import LARGEST, MEANS, NOTING
    from netdsl.cuda.tensor import TENSOR_KERNELS
    from netdsl.cuda.units import UNITS
    from netdsl.cuda.winograd import PRODUCTS as WINOGRAD
    from netdsl.cuda.winograd_transforms import ENDS, FOURS, ONES, POOLED

    names = {id(kernel): f"conv_tile {t.m}x{t.n}x{t.k}" for t, kernel in KERNELS.items()}
    for (tile, weighted), kernel in PRODUCTS.items():
        names[id(kernel)] = f"product{'_w' * weighted} {tile.m}x{tile.n}x{tile.k}"
    for (tensor, precision), kernel in TENSOR_KERNELS.items():
        names[id(kernel)] = f"conv_tensor {tensor.m}x{tensor.n} {precision}"
    for (tensor, precision), kernel in ROUNDED.items():
        names[id(kernel)] = f"product_tensor {tensor.m}x{tensor.n} {precision}"
    for (tensor, precision, back), kernel in WEIGHTED.items():
        way = "back " if back else ""
        names[id(kernel)] = f"dense_tensor {way}{tensor.m}x{tensor.n} {precision}"
    for (window, precision), kernel in UNITS.items():
        names[id(kernel)] = f"max_units {window.size}s{window.stride} {precision}"
    for table in (LARGEST, MEANS, NOTING, BACK):
        for window, kernel in table.items():
            names[id(kernel)] = f"{kernel.py_func.__name__} {window.size}s{window.stride}"
    names |= {id(kernel): f"winograd_product {t.m}x{t.n}" for t, kernel in WINOGRAD.items()}
    ends = {FOURS: "fours", ONES: "ones", POOLED: "pooled"}
    names |= {id(ENDS[how]): f"winograd_outputs {said}" for how, said in ends.items()}
    for strips in (STRIPS, WEIGHT_STRIPS):
        for s, kernel in strips.items():
            words = f"{s.rows}x{s.columns}s{s.stride} {s.outputs}x{s.filters}{'+' * s.many}"
            names[id(kernel)] = f"{kernel.py_func.__name__} {words}"
    names |= {id(kernel): f"conv_doubled {size}" for size, kernel in DOUBLED.items()}
    names |= {id(kernel): f"peak {precision}" for precision, kernel in PEAKS.items()}
    said = {cache.described(kernel.py_func) for kernel in made}
    assert len(said - {None}) == len(made), "kernels that cannot be kept apart, or not at all"
    found: dict[str, Any] = {}
    for kernel in made:
        name = names.get(id(kernel)) or kernel.py_func.__name__
        found[name if name not in found else registry.words(kernel)] = kernel
    assert len(found) == len(made), "two kernels have one name"
    return found


def warp_kernels() -> dict[str, Any]:
    """Those that the warp's functions are tested with."""
    import warped

    names = ("lanes", "rounded", "product_tf32", "product_bf16", "product_turned")
    return {f"warp: {name}": getattr(warped, name) for name in names}


def compiled(folder: Path) -> list[Compiled]:
    """All kernels for all cards. Device functions ask which card there is, so one is made up."""
    import registry
    from numba import cuda
    from numba.cuda import dispatcher

    assembler = ptxas()
    assert assembler is not None
    # Whoever makes a kernel is watched from the first import of the package's modules on.
    wanted = kernels() | warp_kernels()

    from netdsl.cuda.launch import SIGNATURE

    rows = []
    for card in CARDS:
        made_up = SimpleNamespace(compute_capability=card)
        dispatcher.get_current_device = lambda made_up=made_up: made_up
        for name, kernel in wanted.items():
            ptx, _ = cuda.compile_ptx(kernel.py_func, SIGNATURE, cc=card)
            most = kernel.targetoptions.get("max_registers")
            row = assembled(name, f"sm_{card[0]}{card[1]}", ptx, most, assembler, folder)
            rows.append(row._replace(home=registry.home(kernel)))
    return rows


def assembled(
    name: str, card: str, ptx: str, most: int | None, assembler: Path, folder: Path
) -> Compiled:
    """What the assembler says of one kernel's PTX, given at most so many registers.

    Raises AssertionError where it refuses.
    """
    source = folder / "kernel.ptx"
    source.write_text(ptx, encoding="utf-8")
    command = [str(assembler), "-v", f"-arch={card}", str(source), "-o", str(folder / "kernel")]
    command += [] if most is None else [f"-maxrregcount={most}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{name}: {done.stderr}"

    def number(pattern: str) -> int:
        return sum(map(int, re.findall(pattern, done.stderr)))

    return Compiled(
        name,
        card,
        number(r"Used (\d+) registers"),
        number(r"(\d+) bytes smem"),
        number(r"(\d+) bytes stack frame"),
        number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
        len(re.findall(r"\.f64\b", ptx)),
        len(re.findall(r"\b(?:div|rem)\.[us]64\b", ptx)),
        len(re.findall(r"\bfma\.rn\.f32\b", ptx)),
        len(re.findall(r"\bld\.shared\.v4\.f32\b", ptx)),
        len(re.findall(r"\b(?:ld|st)\.global\.v4\.f32\b", ptx)),
        len(re.findall(r"\bst\.global\.v2\.f32\b", ptx)),
        len(re.findall(r"\bld\.global\.f32\b", ptx)),
        share_of(ptx, "fma.rn.f32"),
        (
            len(
                re.findall(
                    r"\bmma\.sync\.aligned\.m16n8k(?:8\.row\.col\.f32\.tf32|16\.row\.col\.f32\.bf16)",
                    ptx,
                )
            ),
            len(re.findall(r"\bldmatrix\.sync\.aligned\.m8n8\.x4(?:\.trans)?\.shared", ptx)),
            len(re.findall(r"\bcp\.async\.c[ag]\.shared\.global", ptx)),
        ),
        code_of(ptx),
        "",
    )


def code_of(ptx: str) -> str:
    """A digest of a kernel's instructions, whatever it and its arrays are called."""
    body = ptx[ptx.index(".entry") :]
    named = re.sub(r"\b_ZN\w+|(?<=_cudapy_smem_)\d+", "", body)
    return sha256(named.encode()).hexdigest()


def share_of(ptx: str, word: str) -> float:
    """The largest share that these instructions have of a loop that holds dozens of them."""
    lines = [line.strip() for line in ptx.splitlines()]
    labels = {line[:-1]: i for i, line in enumerate(lines) if re.fullmatch(r"\$L\w+:", line)}
    best = 0.0
    for i, line in enumerate(lines):
        jump = re.search(r"\bbra(?:\.uni)?\s+(\$L\w+);", line)
        start = labels[jump[1]] if jump else i
        body = [each for each in lines[start:i] if each.endswith(";")]
        count = sum(word in each for each in body)
        if count >= 48:
            best = max(best, count / len(body))
    return best


def table(rows: list[Compiled]) -> str:
    """The rows as text."""
    head = f"{'kernel':27} {'card':6} {'registers':>9} {'shared':>7} {'stack':>6} {'spills':>6}"
    head += f" {'products':>8} {'mma':>3} {'matrices':>8} {'copies':>6}"
    lines = [
        f"{r.kernel:27} {r.card:6} {r.registers:9} {r.shared:7} {r.stack:6} {r.spills:6}"
        + (f" {r.share:8.1%}" if r.share > 0.4 else " " * 9)
        + (" {:3} {:8} {:6}".format(*r.fragments) if any(r.fragments) else "")
        for r in rows
    ]
    return "\n".join([head, *lines])


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Compiled]:
    """All kernels compiled, in a process that has no simulator."""
    if find_spec("numba_cuda") is None or ptxas() is None:
        pytest.skip("numba-cuda or ptxas is not installed")
    folder = tmp_path_factory.mktemp("ptx")
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), str(folder)],
        env={k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = [Compiled(*row) for row in json.loads(done.stdout.splitlines()[-1])]
    print(table(found))
    return found


def test_every_kernel_in_the_sources_is_compiled(rows: list[Compiled]) -> None:
    import registry

    folder = Path(__file__).parents[2] / "netdsl" / "cuda"
    missed = registry.written(folder) - {r.home for r in rows}
    assert len(registry.written(folder)) > 40
    assert missed == set()


def test_both_cards_are_given_the_same_instructions(rows: list[Compiled]) -> None:
    """So that what is run for one on the machine of ptx is what the other runs."""
    codes = {r.code for r in rows}
    assert len(rows) == 2 * len({(r.home, r.kernel) for r in rows})
    assert all(sum(r.code == code for r in rows) % 2 == 0 for code in codes)


def test_nothing_spills(rows: list[Compiled]) -> None:
    assert len(rows) > 30
    assert [r for r in rows if r.spills] == []


def test_sums_stay_in_registers(rows: list[Compiled]) -> None:
    assert [r for r in rows if r.stack] == []


def test_nothing_is_computed_in_float64(rows: list[Compiled]) -> None:
    assert [r for r in rows if r.doubles] == []


def test_no_index_is_divided_in_64_bits(rows: list[Compiled]) -> None:
    assert [r for r in rows if r.wide_divisions] == []


def test_two_blocks_of_the_widest_tile_fit_a_multiprocessor(rows: list[Compiled]) -> None:
    """65,536 registers for two blocks of 256 threads."""
    tiles = [r for r in rows if r.kernel.startswith("conv_tile")]
    assert len(tiles) == 8
    assert max(r.registers for r in tiles) <= 128
    assert max(r.shared for r in tiles) <= 48 * 1024


FOURS = {
    "bent curved affine sloped add bent_back curved_back drop norm_apply pair_loss descend": 2,
    "gated": 2,
    "times gate_back": 3,
    "norm_whole slope_back momentum by_squares norm_combine channel_sums": 3,
    "norm_back_whole adam": 5,
    "norm_moments norm_pulls scale_sums square_parts": 1,
    "norm_few norm_back_few": 16,
    "softmax_held": 16,
}
"""The least number of loads and stores of four floats in each of these kernels."""


def test_passes_over_elements_take_four_at_a_time(rows: list[Compiled]) -> None:
    least = {kernel: n for names, n in FOURS.items() for kernel in names.split()}
    found = {(r.kernel, r.card): r.fours for r in rows if r.kernel in least}
    assert len(found) == len(least) * len(CARDS)
    assert {key: n for key, n in found.items() if n < least[key[0]]} == {}


@pytest.mark.parametrize(
    ("window", "cells", "kinds"),
    [("2s2", 16, 3), ("3s2", 27, 3), ("2s1", 18, 3), ("3s1", 30, 3), ("5s1", 60, 1)],
)
def test_a_strip_reads_each_cell_once_and_asks_for_none_in_a_loop(
    rows: list[Compiled], window: str, cells: int, kinds: int
) -> None:
    """So many loads stand in the code, next to those of the descriptor, which are words."""
    names = {f"{name} {window}" for name in ("max_strips", "max_strips_noting", "mean_strips")}
    found = [r for r in rows if r.kernel in names]
    assert len(found) == kinds * len(CARDS)
    assert {r.ones for r in found} == {cells}


@pytest.mark.parametrize(("window", "cells"), [("2s2", 8), ("3s2", 20), ("2s1", 36), ("3s1", 60)])
def test_a_strip_reads_each_tap_and_gradient_once(
    rows: list[Compiled], window: str, cells: int
) -> None:
    found = [r for r in rows if r.kernel == f"max_back_strips {window}"]
    assert {r.ones for r in found} == {cells}


@pytest.mark.parametrize(
    ("kernel", "loads"),
    [("max_windows", 16), ("mean_windows", 16), ("max_windows_noting", 16), ("max_back", 16)],
)
def test_windows_of_any_kind_have_loads_under_way_together(
    rows: list[Compiled], kernel: str, loads: int
) -> None:
    """Four taps of four channels, or two numbers of eight."""
    found = [r for r in rows if r.kernel == kernel]
    assert len(found) == len(CARDS)
    assert all(r.ones >= loads for r in found)


@pytest.mark.parametrize(
    ("strip", "cells", "products"),
    [
        ("3x3s1 7x1", 27, 63),
        ("3x3s1 7x1+", 27, 63),
        ("5x5s1 7x1", 55, 175),
        ("5x5s1 14x1", 90, 350),
        ("7x7s1 7x1", 91, 343),
        ("7x7s1 14x1", 140, 686),
        ("3x3s2 4x1", 27, 36),
        ("3x3s2 4x1+", 27, 36),
        ("5x5s2 4x1", 55, 100),
        ("7x7s2 4x1", 91, 196),
        ("1x3s1 1x1", 3, 3),
        ("1x5s1 1x1", 5, 5),
        ("1x7s1 1x1", 7, 7),
        ("1x1s1 7x4+", 7, 28),
        ("3x3s1 7x4+", 27, 252),
        ("3x3s2 4x4+", 27, 144),
    ],
)
def test_a_strip_of_a_convolution_reads_each_cell_once(
    rows: list[Compiled], strip: str, cells: int, products: int
) -> None:
    """So many loads stand in the code, next to those of the residual, of biases and of the
    activation's two numbers; weights and descriptors come by fours. Two blocks share a
    multiprocessor."""
    outputs, filters = map(int, strip.rstrip("+").partition(" ")[2].split("x"))
    found = [r for r in rows if r.kernel == f"conv_strips {strip}"]
    assert len(found) == 2
    assert {r.ones for r in found} == {cells + outputs * filters + filters + 2}
    assert all(r.multiply_adds >= products and r.registers <= 128 for r in found)


@pytest.mark.parametrize(
    ("kernel", "loads", "products"),
    [
        ("weight_strips 3x3s1 7x1", 27 + 7, 63),
        ("weight_strips 5x5s1 7x1", 55 + 7, 175),
        ("weight_strips 7x7s1 7x1", 91 + 7, 343),
        ("weight_strips 3x3s2 4x1", 27 + 4, 36),
        ("weight_strips 5x5s2 4x1", 55 + 4, 100),
        ("weight_strips 7x7s2 4x1", 91 + 4, 196),
        ("weight_strips 1x7s1 1x1", 7 + 1, 7),
        # Besides the residual, the bias, the activation's numbers.
        ("conv_doubled 3", 10 + 16 + 3, 36),
        ("conv_doubled 5", 18 + 16 + 3, 100),
        ("conv_doubled 7", 28 + 16 + 3, 196),
    ],
)
def test_depthwise_layers_go_back_by_strips(
    rows: list[Compiled], kernel: str, loads: int, products: int
) -> None:
    """So many loads of single floats stand in the code of a strip."""
    found = [r for r in rows if r.kernel == kernel]
    assert len(found) == 2
    assert {r.ones for r in found} == {loads}
    assert all(r.multiply_adds >= products for r in found)


@pytest.mark.parametrize(("window", "cells"), [("2s2", 4), ("3s2", 9), ("2s1", 4), ("3s1", 9)])
def test_packed_pools_take_a_unit_at_a_time(rows: list[Compiled], window: str, cells: int) -> None:
    """All loads of a plane stand in the code one by one, and a store, of 16 bytes each. Pairs of
    bfloat16 are loaded as words, as descriptors are."""
    units = {
        p: [r for r in rows if r.kernel == f"max_units {window} {p}"] for p in ("tf32", "bf16")
    }
    assert [len(found) for found in units.values()] == [2, 2]
    assert all(r.fours > cells and r.ones == 0 for r in units["tf32"])
    assert all(r.fours >= 1 and r.ones == 0 for r in units["bf16"])


@pytest.mark.parametrize(
    ("kernel", "products", "loads", "share"),
    [
        ("conv_tile 128x128x8", 512, 32, 0.82),
        ("product 128x64x8", 256, 24, 0.66),
        ("product_w 128x64x8", 256, 24, 0.66),
    ],
)
def test_tiles_are_multiplied_out_of_vectors(
    rows: list[Compiled], kernel: str, products: int, loads: int, share: float
) -> None:
    """Products stand unrolled, and shared memory is read in vectors. Of the forward tile's loop 84%
    are multiply-adds, counted in the card's own instructions."""
    wide = [r for r in rows if r.kernel == kernel]
    assert len(wide) == 2
    assert all(r.multiply_adds >= products and r.wide_loads >= loads for r in wide)
    assert all(r.share >= share for r in wide)


@pytest.mark.parametrize(
    ("tile", "products", "loads", "share"),
    [("128x64", 512, 32, 0.88), ("64x64", 256, 24, 0.82), ("32x64", 128, 16, 0.73)],
)
def test_products_of_winograds_algorithm_are_multiplied_out_of_vectors(
    rows: list[Compiled], tile: str, products: int, loads: int, share: float
) -> None:
    """And read from and written to memory in nothing but fours. Four blocks of 128 threads share a
    multiprocessor."""
    found = [r for r in rows if r.kernel == f"winograd_product {tile}"]
    assert len(found) == 2
    assert all(r.multiply_adds >= products and r.wide_loads >= loads for r in found)
    assert all(r.share >= share and r.ones == 0 for r in found)
    assert all(r.registers <= 128 and r.shared <= 48 * 1024 for r in found)


def test_transforms_of_winograds_algorithm_read_each_value_once(rows: list[Compiled]) -> None:
    """36 loads of a tile stand in the code, by predicate where they may lie outside; and of outputs
    those of the bias and the activation's numbers. Registers let 1,024 threads share a
    multiprocessor."""
    found = [r for r in rows if r.kernel.startswith("winograd_") and "product" not in r.kernel]
    assert len(found) == 8
    assert all(r.registers <= 64 for r in found)
    ones = {r.kernel: r.ones for r in found}
    assert ones["winograd_inputs"] == 36
    assert {ones[f"winograd_outputs {how}"] for how in ("fours", "ones", "pooled")} == {36 + 16 + 3}
    assert all(r.fours >= 4 for r in found if r.kernel.endswith("fours"))


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize(
    ("tile", "fragments"),
    [("128x128", (64, 16, 8)), ("128x64", (64, 16, 12)), ("64x64", (16, 8, 4))],
)
def test_tensor_cores_are_fed_by_matrix_loads_and_asynchronous_copies(
    rows: list[Compiled], tile: str, fragments: tuple[int, int, int], precision: str
) -> None:
    """A slice's products of fragments stand unrolled, a half's fragments are loaded once, and every
    thread's copies of 16 bytes stand once. Two blocks of the largest tile share a multiprocessor,
    four of the others."""
    found = [r for r in rows if r.kernel == f"conv_tensor {tile} {precision}"]
    assert len(found) == 2
    assert all(tuple(r.fragments) == fragments for r in found)
    held, threads = (2, 128) if tile == "128x128" else (4, 64 if tile == "128x64" else 128)
    assert all(-(-r.registers // 8) * 8 * threads * held <= 65536 for r in found)
    assert all(r.shared <= 48 * 1024 and r.stack == 0 for r in found)
    # What is packed goes out two words at a time: of bfloat16 four sums, of TF32 two.
    assert all(r.twos >= fragments[0] // (1 if precision == "tf32" else 2) for r in found)


@pytest.mark.parametrize(
    ("kernel", "fragments"),
    [
        ("128x128 tf32", (32, 0, 4)),
        ("128x128 bf16", (32, 12, 4)),
        ("128x64 tf32", (32, 0, 6)),
        ("128x64 bf16", (32, 12, 6)),
        ("64x64 tf32", (16, 0, 4)),
        ("64x64 bf16", (16, 8, 4)),
    ],
)
def test_gradients_of_weights_are_fed_like_the_way_forward(
    rows: list[Compiled], kernel: str, fragments: tuple[int, int, int]
) -> None:
    """TF32 has no turned loads of matrices: its words are read one by one."""
    found = [r for r in rows if r.kernel == f"product_tensor {kernel}"]
    assert len(found) == 2
    assert all(tuple(r.fragments) == fragments for r in found)
    assert all(r.registers <= 128 and r.shared <= 48 * 1024 for r in found)


@pytest.mark.parametrize(
    ("kernel", "fragments"),
    [
        ("128x64 tf32", (32, 12, 6)),
        ("128x64 bf16", (32, 8, 8)),
        ("64x64 tf32", (16, 8, 4)),
        ("64x64 bf16", (16, 4, 6)),
        ("back 128x64 tf32", (32, 8, 6)),
        ("back 128x64 bf16", (32, 8, 8)),
        ("back 64x64 tf32", (16, 4, 4)),
        ("back 64x64 bf16", (16, 4, 6)),
    ],
)
def test_weights_that_are_learned_come_by_asynchronous_copies_too(
    rows: list[Compiled], kernel: str, fragments: tuple[int, int, int]
) -> None:
    """Samples, and forward TF32's weights, are loaded as matrices, other weights by words."""
    found = [r for r in rows if r.kernel == f"dense_tensor {kernel}"]
    assert len(found) == 2
    assert all(tuple(r.fragments) == fragments for r in found)
    assert all(r.registers <= 128 and r.shared <= 48 * 1024 for r in found)


def test_the_peak_is_measured_by_little_but_products(rows: list[Compiled]) -> None:
    """In float32 more than nine tenths of the loop; on tensor cores nothing but fragments."""
    tiles = [r for r in rows if r.kernel == "peak fp32"]
    assert len(tiles) == 2
    assert all(r.share >= 0.9 and r.multiply_adds >= 512 for r in tiles)
    tensors = [r for r in rows if r.kernel in ("peak tf32", "peak bf16")]
    assert len(tensors) == 4
    for multiplied, loaded, copied in (r.fragments for r in tensors):
        assert multiplied >= 32
        assert multiplied == 4 * loaded
        assert copied == 0
    assert all(r.registers <= 128 and r.shared <= 48 * 1024 for r in tiles)
    # Two blocks a multiprocessor: of 256 threads, and of 128.
    assert all(r.registers <= 255 and r.shared <= 48 * 1024 for r in tensors)


def test_the_script_for_a_card_launches_every_kernel() -> None:
    """Of a card with so many multiprocessors that small layers go by small tiles."""
    if find_spec("numba_cuda") is None:
        pytest.skip("numba-cuda is not installed")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("covered.py"))],
        env={k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found["count"] > 80
    assert found["missed"] == []


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(compiled(Path(sys.argv[1]))))
    else:
        from tempfile import TemporaryDirectory

        with TemporaryDirectory() as folder:
            print(table(compiled(Path(folder))))
