"""Winograd's algorithm on a card, in Numba's simulator: right, and bugs planted in it show; and
where it is taken."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from test_simulated import simulate

from netdsl.cuda.conv import choose
from netdsl.cuda.launch import H200
from netdsl.cuda.sizes import BROAD, EVEN, FLAT, Tile
from netdsl.cuda.winograd import CELLS, SCRATCH, Chunks, quicker
from netdsl.cuda.winograd_costs import Card, Layer

SCRIPT = Path(__file__).parent / "simulated_winograd.py"

Case = tuple[str, int, int, int]

CHOSEN: list[Case] = [
    ("input 3x5x6; conv3x3p1(5) -> relu", 2, 0, 1),
    ("input 3x8x8; conv3x3p1(9) -> leaky(0.2)", 2, 1, 1),
    ("input 2x7x4; conv3x3p2(17, bias=no) -> relu6", 1, 2, 2),
    ("input 2x3x9; conv3x3(4) -> hswish", 3, 2, 1),
    ("input 2x6x5; conv3x3p1(3, pad_end=3)", 1, 0, 3),
    # Channels in several parts, the last one shorter, and not whole slices.
    ("input 11x4x3; conv3x3p1(3)", 1, 0, 2),
    ("input 13x3x3; conv3x3p1(2)", 1, 1, 1),
    # Residuals of whole fours and others; a branch that is written where it is joined.
    ("input 3x4x4; conv1x1(3) as a; [a -> conv3x3p1(3) + a] -> relu", 2, 1, 2),
    ("input 3x5x5; conv1x1(3) as a; [a -> conv3x3p1(3) + a] -> hsigmoid", 2, 0, 2),
    ("input 2x4x4; [conv3x3p1(3) | conv1x1(1) | conv3x3p1(5)] -> conv3x3p1(2)", 2, 0, 1),
    ("input 2x4x4; [conv1x1(1) | conv3x3p1(2)]", 2, 0, 1),
    # Pools of whole and of cut tiles, and of odd sizes.
    ("input 2x8x10; conv3x3p1(5) -> relu -> maxpool2 -> conv1x1(2)", 2, 0, 2),
    ("input 3x7x5; conv3x3p1(3) -> leaky(-0.5) -> maxpool2", 3, 1, 1),
    # And such as are not taken over: of what something else reads, of other sizes, and residuals.
    ("input 2x6x6; conv3x3p1(3) as a -> maxpool2 -> conv1x1(1) as b; output a, b", 1, 0, 1),
    ("input 2x7x5; conv3x3p1(3) -> maxpool2ceil -> maxpool3s1p1", 1, 2, 1),
    ("input 3x4x4 as a; a -> [conv3x3p1(3) + a] -> relu -> maxpool2", 1, 2, 1),
    # By sums: none of these is of 3 x 3 on two axes with neither stride, holes nor groups.
    ("input 2x9x9; conv3x3d2(3) -> conv3x3s2(2) -> conv2x1(2)", 1, 0, 1),
    ("input 4x4x4; conv3x3p1g2(34) -> conv3x3s2x1(3)", 1, 0, 1),
    ("input 1x3x5x4; conv1x3x3(2) -> conv3p1(2)", 1, 0, 1),
    ("input 2x4x4; tconv3x3p1(3)", 1, 0, 1),
]

TOLERANCE = 1e-5


def test_outputs_equal_the_reference() -> None:
    found = simulate("agree", CHOSEN, SCRIPT)
    assert len(found) == len(CHOSEN)
    assert [case for case, apart in zip(CHOSEN, found, strict=True) if not apart < TOLERANCE] == []


def drawn(chance: random.Random) -> Case:
    before, after = chance.randint(0, 3), chance.randint(0, 3)
    height, width = (max(chance.randint(1, 9), 3 - before - after) for _ in range(2))
    channels, filters = chance.randint(1, 9), chance.randint(1, 9)
    word = f"conv3x3p{before}({filters}, pad_end={after})"
    text = f"input {channels}x{height}x{width}; {word} -> relu"
    return text, chance.randint(1, 3), chance.randrange(3), chance.randint(1, 3)


def test_shapes_that_nobody_chose() -> None:
    chance = random.Random()
    cases = [drawn(chance) for _ in range(6)]
    found = simulate("agree", cases, SCRIPT)
    assert [case for case, apart in zip(cases, found, strict=True) if not apart < TOLERANCE] == []


def test_the_cases_meet_every_kernel() -> None:
    found = simulate("kernels", CHOSEN[:-4], SCRIPT)
    assert len(found["all"]) > 5
    assert set(found["all"]) - set(found["met"]) == set()
    # The others meet none.
    assert not any("winograd" in name for name in simulate("kernels", CHOSEN[-4:], SCRIPT)["met"])


def test_what_is_exact_goes_without() -> None:
    found = simulate("exact", None, SCRIPT)
    by = {name: any("winograd" in k for k in kernels) for name, kernels in found.items()}
    assert by.pop("may")
    assert by.pop("net")
    assert set(by) == {"exact", "exact net", "trained", "tf32", "bf16"}
    assert not any(by.values())
    assert len(found["trained"]) > 3


def quick(
    batch: int, channels: int, filters: int, size: int, card: Card
) -> tuple[Layer, Chunks | None]:
    """A layer of a square image, and how it is done if by Winograd's algorithm."""
    positions, across = batch * size**2, -(-size // 4)
    read, written = (n * positions for n in (channels, filters))
    layer = Layer(batch * across**2, positions, channels, filters, read, written)
    return layer, quicker(layer, choose(positions, filters, 1, 9 * channels, 132), card)


@pytest.mark.parametrize(
    ("batch", "channels", "filters", "size", "tile"),
    [
        # VGG-16's first layer is all transforms; its last at batch 1 have few tiles.
        (64, 3, 64, 224, None),
        (64, 64, 64, 224, BROAD),
        (64, 512, 512, 14, BROAD),
        (64, 512, 512, 7, EVEN),
        (1, 64, 64, 224, BROAD),
        (1, 512, 512, 14, FLAT),
        (1, 16, 48, 14, None),
        (1, 512, 512, 7, None),
    ],
)
def test_it_is_taken_where_it_is_reckoned_faster(
    batch: int, channels: int, filters: int, size: int, tile: Tile | None
) -> None:
    layer, way = quick(batch, channels, filters, size, Card(132, H200))
    assert (way and way.tile) == tile
    if way:
        assert way.chunk % way.tile.m == 0
        assert 4 * CELLS * way.chunk * (channels + filters) <= SCRATCH
        chunks = -(-layer.tiles // way.chunk)
        # No chunk less than a tile of products shorter than the others would be.
        assert way.chunk - way.tile.m < layer.tiles / chunks


def test_a_card_with_little_bandwidth_for_its_arithmetic_makes_sums_of_few_channels() -> None:
    """As an RTX 4090, which has a sixth of an H200's, but for the second cache."""
    card = Card(128, 0.024)
    assert quick(64, 64, 64, 224, card)[1] is None
    assert quick(64, 512, 512, 28, card)[1] is not None


PRODUCT, TRANSFORMS = "winograd_product", "winograd_transforms"
BUGS = {
    "no barrier after a slice": (
        PRODUCT,
        "                cuda.syncthreads()\n            # A part",
        "            # A part",
    ),
    "no barrier before the first slice": (
        PRODUCT,
        "        cuda.syncthreads()\n        own",
        "        own",
    ),
    "one buffer instead of two": (
        PRODUCT,
        "a_write, b_write = int32(a_write ^ A_SLICE), int32(b_write ^ B_SLICE)",
        "a_write, b_write = a_write, b_write",
    ),
    "the slice that is written is multiplied": (
        PRODUCT,
        "int32(4 * across), int32(B_START + 4 * down)",
        "int32(4 * across + A_SLICE), int32(B_START + B_SLICE + 4 * down)",
    ),
    "sums put aside are not added": (PRODUCT, "if end > part:", "if end < 0:"),
    "sums are not put aside": (PRODUCT, "if end < slices:", "if end < 0:"),
    "sums put aside are added once": (PRODUCT, "if end > part:", "if end == 2 * part:"),
    "sums go on after they were put aside": (
        PRODUCT,
        "sums[i] = ZERO\n\n    @cuda",
        "pass\n\n    @cuda",
    ),
    "threads put aside in one place": (PRODUCT, "own = int32(ASIDE + 4 * t)", "own = ASIDE"),
    "every thread has something to store": (
        PRODUCT,
        "if ALL or t < FOURS:\n            for i in range(LOADS):\n                k",
        "if True:\n            for i in range(LOADS):\n                k",
    ),
    "filters past the last are written": (PRODUCT, "if f < filters:", "if f >= 0:"),
    "columns beyond the input are read": (
        TRANSFORMS,
        "columns[k] = within(int32(x0 + k), width)",
        "columns[k] = int32(1)",
    ),
    "rows beyond the input are read": (
        TRANSFORMS,
        "row = there & within(int32(y0 + r), height)",
        "row = there",
    ),
    "channels past the last are read": (
        TRANSFORMS,
        "there = int32(c < ints[uint32(layer + PRODUCTS)])",
        "there = int32(1)",
    ),
    "channels past the last are left": (
        TRANSFORMS,
        "if to >= point:",
        "if c >= ints[uint32(ints[uint32(at + LAYER)] + PRODUCTS)]:",
    ),
    "threads past the last tile write": (TRANSFORMS, "    if to >= point:\n        return\n", ""),
    "threads past the last filter write": (
        TRANSFORMS,
        "        if f >= ints[uint32(layer + FILTERS)]:\n            return\n",
        "",
    ),
    "rows past the last are written": (TRANSFORMS, "if int32(y0 + r) < height:", "if height > 0:"),
    "columns past the last are written": (
        TRANSFORMS,
        "if int32(x0 + k) < width:",
        "if width > 0:",
    ),
    "pooled rows past the last are written": (
        TRANSFORMS,
        "int32(y0 + 2 * r + 1) < height and",
        "height > 0 and",
    ),
    "pooled columns past the last are written": (
        TRANSFORMS,
        "and int32(x0 + 2 * k + 1) < width:",
        "and width > 0:",
    ),
    "chunks all begin at the first tile": (TRANSFORMS, "ints[uint32(at + FIRST)] + t", "t"),
}

SHOWING: list[Case] = [
    ("input 3x5x6; conv3x3p1(5) -> relu", 2, 0, 1),
    ("input 3x5x6; conv3x3p1(5)", 2, 2, 1),
    ("input 2x3x9; conv3x3p1(3)", 2, 0, 1),
    ("input 2x7x5; conv3x3p1(3) -> maxpool2", 2, 0, 1),
    ("input 13x3x3; conv3x3p1(3)", 1, 0, 1),
    ("input 3x5x5; conv1x1(3) as a; [a -> conv3x3p1(3) + a]", 1, 0, 1),
]


def test_planted_bugs_are_found() -> None:
    same = (PRODUCT, "ZERO = np.float32(0)\n", "ZERO = np.float32(0)\n\n")
    given = {"bugs": [same, *BUGS.values()], "cases": SHOWING}
    found = simulate("planted", given, SCRIPT)
    assert found[0] == ""
    missed = [name for name, shown in zip(BUGS, found[1:], strict=True) if not shown]
    assert not missed
