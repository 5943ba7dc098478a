"""Direct sums of floats as three bfloat16 each (AMX), beside plain NumPy in double precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from assembly import compiled
from layer import Layer, beside_a_long_sum, convolved, error, transposed
from llvmlite import ir

from netdsl.cpu import costs, table, thirds
from netdsl.cpu.choices import choice, ways
from netdsl.cpu.conv import conv_needs, plan_conv
from netdsl.cpu.layout import aligned
from netdsl.cpu.micro import matrices
from netdsl.cpu.micro.shapes import THIRDS, Shape
from netdsl.cpu.micro.thirds import name_of, tile_function
from netdsl.cpu.transposed import plan_transposed, together, transposed_needs
from netdsl.ops import Conv, ConvTranspose, Relu, Relu6, Window

needs_matrices = pytest.mark.skipif(
    not matrices(), reason="this CPU has no AMX, or the system gives no leave to use it"
)


@pytest.fixture
def preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """This way also where others would be cheaper."""
    monkeypatch.setattr(thirds, "cycles", lambda task: -1.0)


def window(
    kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, axes: int = 2
) -> Window:
    return Window(
        (kernel,) * axes, (stride,) * axes, ((padding, padding),) * axes, (dilation,) * axes
    )


def checked(layer: Layer) -> float:
    """The error of a layer that goes this way, as a part of what it may be: a sum is rounded six
    times for each 32 terms, where it has some five standard deviations at most, and the largest of
    many errors that add up in squares is some five times their root of the mean square."""
    assert choice(layer.task).name == "thirds"
    terms = np.prod(layer.op.parameters((layer.shape,))[0].shape[1:])
    rounding = 5 * 2.0**-24 / np.sqrt(3)
    may_be = 5 * rounding * np.sqrt(6 * np.ceil(terms / 32))
    return error(layer.run(plan_conv, conv_needs), convolved(layer)) / may_be


def parts_of(values: np.ndarray) -> list[np.ndarray]:
    """The three parts of packed weights (rows of 16 filters), each as doubles, put back in rows."""
    rows = values.size // 16
    made = thirds.packed(values, values.size, 1, rows // 16, 1, aligned)
    bits = made.view(np.uint16).reshape(-1, 3, 16, 16, 2).astype(np.uint32) << 16
    parts = bits.view(np.float32).astype(np.float64)
    # [32 channels][part][pair][filter][of the pair] as [part][channel][filter]
    return list(parts.transpose(1, 0, 2, 4, 3).reshape(3, -1, 16)[:, :rows])


def test_a_float_is_the_sum_of_its_parts() -> None:
    random = np.random.default_rng()
    values = random.normal(0, 1, (48, 16)) * 10.0 ** random.integers(-25, 30, (48, 16))
    values[0, :6] = 0.0, -0.0, 1.0, 1 + 2.0**-23, 2 - 2.0**-23, -3e38
    plain = values.astype(np.float32)
    first, second, third = parts_of(plain.reshape(-1))
    assert np.array_equal(first + second + third, plain.astype(np.float64))
    size = np.abs(plain).astype(np.float64)
    assert np.all(np.abs(second) <= size * 2.0**-8)
    assert np.all(np.abs(third) <= size * 2.0**-16)


def test_what_is_dropped_is_as_often_above_as_below() -> None:
    """Parts are rounded: cut off, those behind the first would all have its sign."""
    values = np.random.default_rng(3).uniform(1, 2, (320, 16)).astype(np.float32)
    _, second, third = parts_of(values.reshape(-1))
    for part in (second, third):
        assert abs(np.mean(np.sign(part))) < 0.05


def test_tiles_load_and_multiply_as_often_as_they_must() -> None:
    module = ir.Module("thirds")
    functions = [tile_function(module, shape) for shape in THIRDS]
    found = compiled(functions, "x86_64-unknown-linux-gnu", "sapphirerapids")
    assert set(found) == {name_of(shape) for shape in THIRDS}
    for shape in THIRDS:
        lines, sums = found[name_of(shape)], shape.pixels * shape.blocks
        at = [i for i, line in enumerate(lines) if "tdpbf16ps" in line]
        assert len(at) == 6 * sums, shape
        loop = lines[at[0] : at[-1]]
        assert not any("tilestored" in line or "(%rsp" in line for line in loop), shape
        assert sum("tilestored" in line for line in lines) == sums
        # Those of before, and per turn three parts of inputs and four of weights.
        loads = sum("tileloadd" in line for line in lines) - sums
        assert loads == 3 * shape.pixels + 4 * shape.blocks


CASES = [
    # channels, filters, size, window, batch
    (64, 64, (14, 14), window(1), 1),
    (48, 40, (9, 11), window(1), 3),
    (1100, 32, (7, 7), window(1), 2),
    (256, 100, (8, 8), window(1, 2), 2),
    (80, 70, (13, 7), window(3, 1, 1), 2),
    (33, 17, (12, 15), window(3, 2, 1), 1),
    (20, 100, (15, 15), window(5, 2, 2), 1),
    (32, 48, (20, 20), window(3, 1, 2, 2), 1),
    (256, 64, (14, 14), window(3, 2, 1), 3),
    (256, 320, (6, 6), window(3, 2, 1), 5),
    (16, 16, (1, 1), window(1), 1),
    (9, 16, (3, 40), window(2), 1),
    (40, 30, (33,), window(3, 1, 1, axes=1), 2),
    (24, 36, (3, 5, 6), window(3, 1, 1, axes=3), 2),
]


@needs_matrices
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("channels", "filters", "size", "over", "batch"), CASES)
def test_layers_of_any_size(
    preferred: None,
    channels: int,
    filters: int,
    size: tuple[int, ...],
    over: Window,
    batch: int,
    residual: bool,
) -> None:
    """Rows with a halo and without, threads that share places or filters."""
    act = Relu() if residual else Relu6()
    for threads in (1, 2, 5):
        layer = Layer(
            Conv(filters, over),
            (channels, *size),
            batch,
            residual,
            act,
            threads=threads,
            spare=threads % 2 if len(size) == 2 else 0,
            seed=threads,
        )
        assert checked(layer) < 1


@needs_matrices
def test_random_layers(preferred: None) -> None:
    seed = int(np.random.default_rng().integers(1 << 30))
    random = np.random.default_rng(seed)
    for _ in range(20):
        kernel, stride = (int(n) for n in random.integers(1, 4, 2))
        size = tuple(int(n) for n in random.integers(kernel, 24, 2))
        layer = Layer(
            Conv(
                int(random.integers(1, 200)),
                window(kernel, stride, int(random.integers(kernel))),
                bias=bool(random.integers(2)),
            ),
            (int(random.integers(9, 400)), *size),
            int(random.integers(1, 4)),
            bool(random.integers(2)),
            Relu() if random.integers(2) else None,
            threads=int(random.integers(1, 4)),
            spare=int(random.integers(2)),
            seed=int(random.integers(1 << 30)),
        )
        assert checked(layer) < 1, f"seed {seed}"


@needs_matrices
@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("places", [1, 15, 16, 17, 32, 33, 63])
def test_odd_tiles(preferred: None, blocks: int, places: int) -> None:
    """A sixteen or a block of filters without another beside it."""
    layer = Layer(Conv(16 * blocks - 1, window(1)), (48, 1, places), threads=1)
    assert checked(layer) < 1


@needs_matrices
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    ("channels", "filters", "size", "kernel"),
    [
        (64, 32, (7, 7), (2, 2)),
        (40, 20, (5, 6), (2, 3)),
        (33, 70, (9,), (4,)),
        (16, 16, (3, 4, 2), (2, 1, 2)),
        (200, 48, (12, 11), (3, 3)),
    ],
)
def test_all_phases_of_a_transposed_layer_at_once(
    monkeypatch: pytest.MonkeyPatch,
    channels: int,
    filters: int,
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    residual: bool,
) -> None:
    monkeypatch.setattr(thirds, "cost", lambda *args: -1.0)
    over = Window(kernel, kernel, ((0, 0),) * len(size), (1,) * len(size))
    op = ConvTranspose(filters, over, (0,) * len(size))
    for threads in (1, 2):
        layer = Layer(op, (channels, *size), 2, residual, Relu(), threads=threads, seed=threads)
        assert together(layer.task) is not None
        found = layer.run(plan_transposed, transposed_needs)
        assert error(found, transposed(layer)) < 3e-6


@needs_matrices
@pytest.mark.parametrize(("kernel", "padding", "more"), [(3, 1, 1), (2, 0, 1), (4, 1, 0)])
def test_phases_that_read_or_make_other_places(kernel: int, padding: int, more: int) -> None:
    """They are done one by one."""
    op = ConvTranspose(32, window(kernel, 2, padding), (more, more))
    assert together(Layer(op, (256, 9, 9), 8).task) is None


@needs_matrices
def test_no_place_reads_another(preferred: None) -> None:
    """An infinity and a NaN make what reads them NaN, and nothing else."""
    layer = Layer(Conv(48, window(3, 1, 1)), (64, 9, 6), 2)
    layer.arrays[0][1, 5, 2, 3] = np.nan
    layer.arrays[0][1, 40, 8, 1] = np.inf
    found = layer.run(plan_conv, conv_needs)
    broken = np.zeros((9, 6), bool)
    broken[1:4, 2:5] = broken[7:, :3] = True
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1][:, broken]).all()
    assert np.isfinite(found[1][:, ~broken]).all()


@needs_matrices
def test_error_is_no_larger_than_a_sum_of_floats(preferred: None) -> None:
    """Inputs of one sign, as behind a ReLU, beside terms summed in their order."""
    layer = Layer(Conv(64, window(1)), (1024, 8, 8), 1)
    layer.arrays[0] = np.maximum(layer.arrays[0], 0)
    assert choice(layer.task).name == "thirds"
    assert beside_a_long_sum(layer, layer.run(plan_conv, conv_needs)) < 1


@needs_matrices
def test_small_numbers_keep_their_digits(preferred: None) -> None:
    """Down to where parts of products are the smallest floats, which AMX takes for zeros."""
    layer = Layer(Conv(64, window(1), bias=False), (64, 8, 8))
    assert choice(layer.task).name == "thirds"
    layer.arrays[0] *= np.float32(1e-30)
    found, wanted = layer.run(plan_conv, conv_needs), convolved(layer)
    assert error(found * 1e30, wanted * 1e30) < 3e-6


@needs_matrices
@pytest.mark.parametrize(
    "changed", [{"exact": True}, {"precision": "bf16"}, {"fixed": False}], ids=str
)
def test_where_it_is_not_taken(preferred: None, changed: dict[str, object]) -> None:
    task = Layer(Conv(64, window(1)), (64, 8, 8)).task
    assert thirds.suits(task)
    assert not thirds.suits(replace(task, **changed))


@needs_matrices
@pytest.mark.parametrize(("channels", "groups"), [(3, 1), (8, 1), (64, 2), (64, 64)])
def test_planes_and_groups_are_summed_otherwise(channels: int, groups: int) -> None:
    assert not thirds.suits(Layer(Conv(64, window(3), groups), (channels, 9, 9)).task)


def test_cpus_without_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thirds, "matrices", lambda: False)
    assert not thirds.suits(Layer(Conv(64, window(1)), (64, 8, 8)).task)


@needs_matrices
def test_tuning_measures_it() -> None:
    task = Layer(Conv(64, window(1)), (64, 8, 8)).task
    assert "thirds" in {way.name for way in ways(task)}
    assert choice(replace(task, choice="thirds")).name == "thirds"


@needs_matrices
def test_layers_that_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those whose weights come from memory for a few places, nor where there are few sums."""
    monkeypatch.setattr(costs, "rates", lambda: costs.FAST)
    names = [
        choice(Layer(Conv(filters, window(1)), (channels, size, size), batch).task).name
        for channels, filters, size, batch in (
            (1024, 256, 14, 8),
            (256, 64, 56, 1),
            (2048, 512, 7, 1),
            (512, 24, 14, 1),
        )
    ]
    assert names == ["thirds", "thirds", "direct", "direct"]


def test_scratch_is_what_threads_take() -> None:
    random = np.random.default_rng()
    for _ in range(300):
        taps, blocks = (int(n) for n in random.integers(1, (400, 140)))
        places, threads = (int(n) for n in random.integers(1, (5000, 9)))
        how = thirds.tiling(taps, blocks, places, threads)
        assert how.cut in (1, how.parts)
        assert how.parts <= threads
        assert 2 * how.turns >= taps > 2 * how.turns - 2
        assert how.together % 2 == 0
        assert how.scratch >= how.parts * how.own > 0


def test_what_is_compiled_ahead_has_its_kernels() -> None:
    kernels = {k for recipe in table.RECIPES.values() for k in recipe.float_kernels}
    assert set(table.THIRDS) <= kernels if matrices() else not set(table.THIRDS) & kernels


def test_shapes_are_those_that_registers_hold() -> None:
    for high, across in map(Shape._make, THIRDS):
        assert high * across + high + across <= 8
