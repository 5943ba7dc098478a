"""Strassen's algorithm for 1x1 convolutions, beside plain NumPy in double precision."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from layer import Layer, beside_a_long_sum, convolved, error

from netdsl.cpu import strassen
from netdsl.cpu.choices import Choice, choice, ways
from netdsl.cpu.conv import conv_needs, plan_conv
from netdsl.cpu.costs import Rates, Work, rates
from netdsl.cpu.micro.shapes import AVX512, Kind, Tile, wide
from netdsl.ops import Conv, Relu, Relu6, Window

pytestmark = pytest.mark.skipif(not wide(), reason="these tiles take AVX-512")


@pytest.fixture
def preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strassen's algorithm also where direct sums would be cheaper."""
    monkeypatch.setattr(Work, "strassen", lambda self: -1.0)


def point(*stride: int) -> Window:
    """A window of one cell."""
    axes = len(stride)
    return Window((1,) * axes, stride, ((0, 0),) * axes, (1,) * axes)


def checked(layer: Layer) -> float:
    """The error of a layer that Strassen's algorithm does."""
    assert choice(layer.task).name == "strassen"
    return error(layer.run(plan_conv, conv_needs), convolved(layer))


CASES = [
    # channels, filters, size, stride, batch
    (32, 32, (2,), (1,), 1),
    (64, 96, (31,), (1,), 3),
    (96, 64, (5,), (2,), 2),
    (32, 64, (1, 2), (1, 1), 1),
    (64, 32, (7, 7), (1, 1), 8),
    (160, 32, (14, 14), (1, 1), 1),
    (96, 288, (13, 9), (2, 2), 2),
    (544, 64, (6, 5), (1, 1), 3),
    (1088, 32, (4, 11), (1, 1), 1),
    (64, 1056, (3, 3), (1, 1), 2),
    (288, 160, (28, 28), (1, 1), 2),
    (64, 64, (56, 3), (2, 1), 1),
    (256, 256, (14, 14), (1, 1), 1),
    (32, 64, (3, 5, 4), (1, 1, 1), 2),
    (64, 32, (1, 7, 2), (1, 2, 1), 2),
]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("spare", [0, 1])
@pytest.mark.parametrize(("channels", "filters", "size", "stride", "batch"), CASES)
def test_layers_of_any_size(
    preferred: None,
    channels: int,
    filters: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    batch: int,
    spare: int,
    residual: bool,
) -> None:
    """With rows that go on from one to the next (no spare halo), and with ones that do not; with an
    odd place, row or plane left over; of sums in several parts, and of several groups."""
    act = Relu() if residual else Relu6()
    shape = (channels, *size)
    spare = spare if len(size) == 2 else 0
    for threads in (1, 2, 5):
        layer = Layer(
            Conv(filters, point(*stride)),
            shape,
            batch,
            residual,
            act,
            threads=threads,
            spare=spare,
            seed=threads,
        )
        assert checked(layer) < 1e-5


def test_random_layers(preferred: None) -> None:
    random = np.random.default_rng()
    seed = int(random.integers(1 << 30))
    random = np.random.default_rng(seed)
    for _ in range(12):
        channels, filters = (32 * int(n) for n in random.integers(1, (24, 12)))
        size = tuple(int(n) for n in random.integers(1, 18, 2))
        stride = tuple(int(n) for n in random.integers(1, 3, 2))
        layer = Layer(
            Conv(filters, point(*stride), bias=bool(random.integers(2))),
            (channels, *size),
            int(random.integers(1, 4)),
            bool(random.integers(2)),
            Relu() if random.integers(2) else None,
            threads=int(random.integers(1, 4)),
            spare=int(random.integers(2)),
            seed=int(random.integers(1 << 30)),
        )
        if np.prod(layer.made[1:]) > 1:
            assert checked(layer) < 1e-5, f"seed {seed}"


def test_no_sample_reads_another(preferred: None) -> None:
    """A NaN and an infinity spread to a place's like, in the same sample, and no further."""
    layer = Layer(Conv(64, point(1, 1)), (64, 9, 6), 3)
    layer.arrays[0][1, 5, 2, 3] = np.nan
    layer.arrays[0][1, 40, 8, 1] = np.inf
    found = layer.run(plan_conv, conv_needs)
    assert np.isfinite(found[[0, 2]]).all()
    assert np.isnan(found[1, :, 2, 3]).all()
    assert not np.isfinite(found[1, :, 8, 1]).any()
    assert np.isfinite(found[1, :, 0, 0]).all()


def test_weights_give_the_product_of_which_they_are_quarters() -> None:
    """Seven products of them and of the sums of inputs, put together as the docstring says; each
    part of the channels by itself."""
    random = np.random.default_rng(5)
    a, b = random.normal(size=(6, 96)), random.normal(size=(96, 10))
    made = strassen.quarters(a[:, :, None].astype(np.float32), [1, 2])[..., 0].astype(np.float64)
    found = np.zeros((6, 10))
    halves = b.reshape(3, 2, 16, 10)  # every other block of channels is of the second half
    for at, blocks in ((0, slice(0, 1)), (7 * 16, slice(1, 3))):
        upper, lower = (halves[blocks, i].reshape(-1, 10) for i in range(2))
        b11, b12, b21, b22 = upper[:, :5], upper[:, 5:], lower[:, :5], lower[:, 5:]
        t1, t3 = b12 - b11, b22 - b12
        t2 = b22 - t1
        weights = np.split(made[:, at : at + 7 * len(upper)], 7, axis=1)
        inputs = (b11, t2, t1, b22, t3, b21 - t2, b21)
        a11, s2, s1, s4, s3, a22, a12 = (w @ x for w, x in zip(weights, inputs, strict=True))
        u = a11 + s2
        found += np.block([[a11 + a12, u + s1 + s4], [u + s3 + a22, u + s3 + s1]])
    np.testing.assert_allclose(found, a @ b, atol=1e-5)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("tile", [tile for tile in AVX512 if tile.kind is Kind.POINTS])
def test_every_tile(
    preferred: None, monkeypatch: pytest.MonkeyPatch, tile: Tile, residual: bool
) -> None:
    """Of layers of several groups, and with strides; 1088 channels are summed up in parts."""
    pixels, blocks = tile.shape
    chosen = Choice(shape=tile.shape, strassen=True)
    for channels, stride in ((96, 2), (1088, 1)):
        op = Conv(2 * 16 * 2 * blocks, point(stride, stride))
        shape = (channels, stride * 6, stride * 2 * pixels)
        layer = Layer(op, shape, 3, residual, Relu(), spare=1)
        monkeypatch.setattr("netdsl.cpu.conv.choice", lambda task: chosen)
        assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 1e-5


def test_error_beside_that_of_one_long_sum(preferred: None) -> None:
    """Inputs of one sign, as behind a ReLU, beside terms summed in their order."""
    layer = Layer(Conv(64, point(1, 1)), (1024, 8, 8), 1)
    layer.arrays[0] = np.maximum(layer.arrays[0], 0)
    assert beside_a_long_sum(layer, layer.run(plan_conv, conv_needs)) < 1.5


def test_halves_of_a_joined_tensor(preferred: None) -> None:
    """The first half of the channels is a thousand times as large as the second, and weighs a
    thousandth: were they added to the small ones, those would lose three digits."""
    layer = Layer(Conv(64, point(1, 1)), (128, 8, 8))
    layer.arrays[0][:, :64] *= 1024
    layer.weights["weight"][:, :64] /= 1024
    assert checked(layer) < 1e-5


@pytest.mark.parametrize(
    ("channels", "filters", "groups", "kernel"),
    [(48, 64, 1, 1), (64, 48, 1, 1), (64, 64, 2, 1), (64, 64, 1, 3)],
)
def test_layers_that_have_no_whole_halves(
    preferred: None, channels: int, filters: int, groups: int, kernel: int
) -> None:
    pads = ((kernel // 2,) * 2,) * 2
    op = Conv(filters, Window((kernel,) * 2, (1, 1), pads, (1, 1)), groups)
    assert not strassen.suits(Layer(op, (channels, 8, 8)).task)


def test_cpus_without_such_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others' registers do not hold them."""
    layer = Layer(Conv(64, point(1, 1)), (64, 8, 8))
    assert strassen.suits(layer.task)
    monkeypatch.setattr(strassen, "quartered", tuple)
    assert not strassen.suits(layer.task)


def test_exact_layers_are_summed_directly(preferred: None) -> None:
    layer = Layer(Conv(64, point(1, 1)), (64, 8, 8), exact=True)
    assert choice(layer.task).name == "direct"
    rounded = replace(layer.task, exact=False, precision="bf16")
    assert choice(rounded).name == "direct"


def test_tuning_measures_it() -> None:
    task = Layer(Conv(64, point(1, 1)), (64, 8, 8)).task
    assert "strassen" in {way.name for way in ways(task)}
    assert choice(replace(task, choice="strassen")).name == "strassen"


def test_large_layers_are_worth_it(no_thirds: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it was measured: not those of few channels, nor of few places for many weights."""
    from netdsl.cpu import costs

    monkeypatch.setattr(costs, "rates", lambda: costs.WIDE)
    names = [
        choice(Layer(Conv(filters, point(1, 1)), (channels, size, size), batch).task).name
        for channels, filters, size, batch in (
            (1024, 256, 14, 8),
            (1024, 256, 14, 1),
            (512, 2048, 7, 8),
            (512, 2048, 7, 1),
            (64, 64, 56, 8),
        )
    ]
    assert names == ["strassen", "strassen", "strassen", "direct", "direct"]


def test_parts_of_a_sum_are_short_and_even() -> None:
    for channels in range(1, 70):
        lengths = strassen.Halves(channels, 1).lengths
        assert sum(lengths) == channels
        assert max(lengths) <= 16
        assert max(abs(a - b) for a, b in pairwise([*lengths, lengths[0]])) <= 1


def test_costs_where_it_was_not_measured(no_thirds: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from netdsl.cpu import costs

    plain: Rates = rates()._replace(strassen=None)
    monkeypatch.setattr(costs, "rates", lambda: plain)
    assert choice(Layer(Conv(256, point(1, 1)), (1024, 14, 14), 8).task).name == "direct"


def test_groups_have_room_for_their_places() -> None:
    """Whatever tiles a row is cut into: as many neighbours as have room, and not one more."""
    random = np.random.default_rng()
    for _ in range(200):
        widths = [int(n) for n in random.integers(1, 29, random.integers(1, 9))]
        places = int(random.choice([strassen.PLACES, strassen.FEWER]))
        count = strassen._together(widths, places)
        many = widths * 60
        sums = [sum(many[i : i + count]) for i in range(len(widths))]
        more = [sum(many[i : i + count + 1]) for i in range(len(widths))]
        assert max(sums) <= places < max(more), widths
