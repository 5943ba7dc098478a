"""How rows are cut into tiles, and sums in parts over tiles of several widths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer import Layer, convolved, error

from netdsl.cpu import costs
from netdsl.cpu.conv import conv_needs, plan_conv
from netdsl.cpu.micro import Kind, Tile, tiles
from netdsl.cpu.tiling import by_cost, ending, product_tile, turn
from netdsl.cpu.walks import GROUP, STEPS
from netdsl.ops import Conv, Relu, Window

KINDS = [Kind.BLOCKED, Kind.PLANAR, Kind.DEPTHWISE, Kind.HALVED]


@given(
    kind=st.sampled_from(KINDS),
    columns=st.integers(1, 400),
    rows=st.integers(1, 60),
    runs=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    parts=st.integers(1, 5),
    overlap=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_a_row_is_covered(
    kind: Kind, columns: int, rows: int, runs: list[int], parts: int, overlap: bool
) -> None:
    found = by_cost(kind, columns, rows, runs, parts, overlap)
    assert found
    for row in found:
        times = np.zeros(columns, int)
        tiled = [row.tile] * row.whole + list(row.rest)
        assert row.length == len(tiled)
        for first, tile in zip(row.starts, tiled, strict=True):
            assert tile.kind is kind
            assert tile.shape.blocks == row.shape.blocks
            assert first + tile.shape.pixels <= columns
            times[first : first + tile.shape.pixels] += 1
        assert times.min() == 1
        assert overlap or times.max() == 1
        assert row.shape.blocks <= min(runs)
        assert overlap or all(run % row.shape.blocks == 0 for run in runs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("columns", range(14))
def test_an_ending_is_the_cheapest(kind: Kind, columns: int) -> None:
    """Beside trying all ways one after the other."""
    widths = [t for t in tiles() if t.kind is kind and t.shape.blocks == 1]

    def least(rest: int) -> float:
        if rest == 0:
            return 0.0
        fits = [t for t in widths if t.shape.pixels <= rest]
        return min(turn(t) + least(rest - t.shape.pixels) for t in fits)

    cycles, found = ending(kind, 1, columns)
    assert sum(t.shape.pixels for t in found) == columns
    assert sum(map(turn, found)) == pytest.approx(cycles)
    assert cycles == pytest.approx(least(columns))


@pytest.mark.parametrize("kind", KINDS)
def test_what_no_tiles_cover_takes_forever(kind: Kind) -> None:
    assert ending(kind, 99, 7) == (np.inf, ())


@pytest.mark.parametrize("columns", [1, 3, 13, 49, 200])
@pytest.mark.parametrize("filter_blocks", [1, 2, 5, 12])
@pytest.mark.parametrize("parts", [1, 2, 7])
def test_the_tile_of_a_product_is_the_cheapest(
    columns: int, filter_blocks: int, parts: int
) -> None:
    """Beside the cycles of every tile that fits."""

    def cycles(tile: Tile) -> float:
        (pixels, blocks), turns = tile.shape, costs.turn(tile.shape, costs.rates().chosen)
        return -(-36 * -(-filter_blocks // blocks) // parts) * -(-columns // pixels) * turns

    fits = [
        tile
        for tile in tiles()
        if tile.kind is Kind.BLOCKED
        and tile.shape.pixels <= columns
        and tile.shape.blocks <= filter_blocks
    ]
    assert cycles(product_tile(columns, filter_blocks, 36, parts)) == min(map(cycles, fits))


LONG = [
    (1, 1, 700, 40, (9, 11), 1),
    (1, 1, 1030, 16, (23, 17), 3),
    (1, 1, 300, 100, (31, 30), 2),
    (1, 2, 530, 33, (15, 13), 2),
    (3, 2, 150, 24, (14, 15), 1),
    (3, 1, 40, 20, (7, 5), 4),
    (5, 3, 64, 50, (13, 29), 2),
]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("kernel", "stride", "channels", "filters", "size", "batch"), LONG)
def test_long_sums(
    kernel: int,
    stride: int,
    channels: int,
    filters: int,
    size: tuple[int, int],
    batch: int,
    threads: int,
) -> None:
    """Sums in several parts, over tiles of several widths, in several groups."""
    pads = ((kernel // 2,) * 2,) * 2
    window = Window((kernel,) * 2, (stride,) * 2, pads, (1, 1))
    shape = (channels, *size)
    layer = Layer(
        Conv(filters, window), shape, batch, True, Relu(), exact=True, threads=threads, seed=threads
    )
    assert error(layer.run(plan_conv, conv_needs), convolved(layer)) < 1e-5


def test_the_layers_above_have_parts_and_groups() -> None:
    """So that the test of them tests what it says."""
    sums, groups = set(), set()
    for kernel, stride, channels, filters, size, batch in LONG:
        window = Window((kernel,) * 2, (stride,) * 2, ((kernel // 2,) * 2,) * 2, (1, 1))
        layer = Layer(Conv(filters, window), (channels, *size), batch, exact=True)
        called = []

        def plan(task, places, called=called):  # type: ignore[no-untyped-def]
            called.extend(plan_conv(task, places))
            return called

        layer.run(plan, conv_needs)
        (call,) = called
        sums.add(int(call.d[STEPS]))
        tiles_in_all = int(np.prod(call.d[2:6]))
        groups.add(-(-tiles_in_all // int(call.d[GROUP])))
    assert max(sums) > 3
    assert max(groups) > 2
