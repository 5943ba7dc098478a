"""Training on tensor cores, in Numba's simulator: outputs and gradients are those of rounded
factors, bugs planted in the kernels show, and state stays float32."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from test_simulated import simulate

from netdsl.cuda.backward.mixed import LONG
from netdsl.cuda.describe import splitting
from netdsl.faults import NetError
from netdsl.train import Settings
from netdsl.train.engine import on_card

SCRIPT = Path(__file__).parent / "simulated_rounded.py"

Case = tuple[str, str, int, str, int]

CHOSEN: list[Case] = [
    ("3x5x4", "conv3x3s2p1(5) -> relu", 3, "tf32", 3),
    ("5x4x3", "conv2x2p1(3, bias=no)", 2, "bf16", 4),
    ("4x8", "conv1(17)", 2, "tf32", 5),
    ("9x8", "conv1(18)", 2, "bf16", 5),
    ("3x4x4", "conv3x3p1(17)", 1, "tf32", 6),
    ("9x4x4", "conv2x2(18)", 2, "bf16", 6),
    ("2x130", "conv2(3)", 2, "tf32", 7),
    ("2x260", "conv3p1d2(2)", 2, "bf16", 7),
    ("3x3x3", "tconv2x2s2p1(3)", 4, "bf16", 8),
    ("2x3x2x3", "conv2p1(3)", 1, "tf32", 8),
    ("32x3x3", "conv1x1g2(32)", 2, "tf32", 10),
    ("32x9", "conv1g2(48) -> relu", 2, "bf16", 10),
    ("32x9", "tconv2s2g2(32)", 2, "tf32", 11),
    ("48x8", "conv2p1g3(60)", 2, "tf32", 12),
    # Of inputs that are no multiple of four the weights' gradients alone.
    ("9", "fc(5)", 17, "bf16", 9),
    ("5", "fc(18)", 16, "tf32", 9),
    ("12", "fc(21, bias=no)", 16, "tf32", 13),
    ("20", "fc(35)", 16, "bf16", 13),
    ("36", "fc(5)", 17, "tf32", 14),
    ("44", "fc(18)", 33, "bf16", 14),
    ("260", "fc(3)", 16, "tf32", 15),
    ("4", "fc(257)", 16, "tf32", 15),
]

# Of sums in float32, some hundred terms long, each half of the last of 24 bits off.
TOLERANCE = 100 * 2.0**-24


def agree(cases: list[Case]) -> list[float]:
    """Asserts it; gives how much of what rounding may do it did."""
    found = simulate("agree", cases, SCRIPT)
    assert len(found) == len(cases)
    for case, (apart, share) in zip(cases, found, strict=True):
        assert apart <= TOLERANCE, case
        assert share <= 1, case
    return [share for _, share in found]


def test_factors_are_rounded_and_sums_are_not() -> None:
    assert min(agree(CHOSEN)) > 1e-2


def test_shapes_that_nobody_chose() -> None:
    chance = random.Random()
    cases: list[Case] = []
    for _ in range(3):
        kernel, stride = chance.randint(1, 3), chance.choice((1, 2))
        size = f"{chance.randint(1, 9)}x{chance.randint(5, 7)}x{chance.randint(5, 7)}"
        word = f"conv{kernel}x{kernel}s{stride}p{kernel // 2}({chance.randint(1, 9)})"
        seed = chance.randrange(2**20)
        cases.append((size, word, chance.randint(2, 3), chance.choice(("tf32", "bf16")), seed))
    agree(cases)


def test_the_cases_meet_every_tile() -> None:
    found = simulate("kernels", CHOSEN, SCRIPT)
    assert set(found["all"]) - set(found["met"]) == set()
    assert {"tensor_finish", "dense_finish", "gather_words"} <= set(found["met"])


@pytest.mark.parametrize(
    ("channels", "word", "precision", "rounded"),
    [
        (32, "conv1g2(32)", "bf16", True),
        (32, "conv1g2(36)", "tf32", False),
        (36, "conv1g2(40)", "tf32", False),
        (40, "conv1g2(40)", "tf32", True),
        (40, "conv1g2(40)", "bf16", False),
        (32, "conv1g4(64)", "tf32", False),
    ],
)
def test_groups_of_few_or_broken_units_stay_in_float32(
    channels: int, word: str, precision: str, rounded: bool
) -> None:
    found = simulate("kernels", [(f"{channels}x9", word, 2, precision, 1)], SCRIPT)
    assert ("product_tile" not in found["met"]) == rounded


BUGS = {
    "no barrier after a slice has come": (
        "tensor",
        "                next_arrived()\n                cuda.syncthreads()\n",
        "                next_arrived()\n",
    ),
    "a slice is not waited for": ("tensor", "                next_arrived()\n", ""),
    "copies are in no group": ("tensor", "            commit()\n", ""),
    "a stage is multiplied twice": (
        "tensor",
        "a_read, b_read = int32(a_read + step), int32(b_read + step)",
        "a_read, b_read = int32(a_read + step * (s & 1)), int32(b_read + step * (s & 1))",
    ),
    "the second step multiplies the first": ("tensor", "a_read + A_STEP, b", "a_read, b"),
    "edges are not looked at": ("tensor", "(crossed & tap_edges[i]) |", "(0 & tap_edges[i]) |"),
    "positions past the last are read": ("tensor", "if not valid:", "if k < 0:"),
    "rows past the last are written": ("tensor", "if to >= 0 and r < rows:", "if to >= 0:"),
    "channels that only fill a unit are written": ("tensor", "if place >= 0 else", "if 1 else"),
    "no step to the next sample": ("tensor", "if p >= plane:", "if p < 0:"),
    "all parts start at the same position": (
        "tensor",
        "start = int32(split * ints[uint32(at + PART)])",
        "start = int32(0 * split)",
    ),
    "a part is left out": (
        "tensor",
        "for _ in range(ints[uint32(at + SPLITS)]):",
        "for _ in range(1, ints[uint32(at + SPLITS)]):",
    ),
    "all groups have the first one's filters": ("tensor", "group * words + a_word", "a_word"),
    "all groups have the first one's channels": (
        "tensor",
        "int32(group * ints[uint32(at + SOURCE_WORDS)])",
        "int32(0 * group)",
    ),
    "a group reads the next one's filters": (
        "tensor",
        "words = ints[uint32(at + LEFT_WORDS)]",
        "words = ints[uint32(at + LEFT_CELL)]",
    ),
    "a position's words are one group's": (
        "tensor",
        "POSITIONS * ints[uint32(at + LEFT_CELL)]",
        "POSITIONS * words",
    ),
    "all groups are written to the first one's place": (
        "tensor",
        "earlier = int32(group * rows)",
        "earlier = int32(0 * group)",
    ),
    "parts of groups lie on each other": (
        "tensor",
        "(split * ints[uint32(at + GROUPS)] + group) * rows",
        "(split + group) * rows",
    ),
    "one group's parts are added up": (
        "tensor",
        "int32(ints[uint32(at + GROUPS)] * ints[uint32(at + ROWS)] * columns)",
        "int32(ints[uint32(at + ROWS)] * columns)",
    ),
    "units are not exchanged where halves are read": (
        "tensor",
        "4 * (unit ^ mixed(q, int32(A_UNITS))))\n            q = int32(lane & 15)",
        "4 * unit)\n            q = int32(lane & 15)",
    ),
    "words are not exchanged where they are read": (
        "tensor",
        "((row + g) ^ (4 * mixed(q, int32(A_UNITS)))))",
        "(row + g))",
    ),
    "a fragment's positions are exchanged": (
        "tensor",
        "tile[uint64((b ^ (8 * j)) + B_FAR)]",
        "tile[uint64(b ^ (8 * j))]",
    ),
    "sums' rows are exchanged": ("tensor", "+ 2 * h + e]", "+ 2 * (1 - h) + e]"),
    "no barrier before words are packed": (
        "pack",
        "] = value\n        cuda.syncthreads()\n",
        "] = value\n",
    ),
    "no barrier before the next square": (
        "pack",
        "across))\n        cuda.syncthreads()\n",
        "across))\n",
    ),
    "no barrier before sums are added up": (
        "pack",
        "] = high_sum\n    cuda.syncthreads()\n",
        "] = high_sum\n",
    ),
    "what a relu took goes back": ("pack", "if other >= 0 and not", "if other < -9 and not"),
    "a gradient's halves are exchanged": ("pack", "as_bf16(low, high)", "as_bf16(high, low)"),
    "a bias has its neighbour's sum": (
        "pack",
        "high_sums[uint32(i)] if odd else",
        "high_sums[uint32(i)] if not odd else",
    ),
    "every block packs the first squares": (
        "pack",
        "s = int32(cuda.blockIdx.y * ints[uint32(at + EACH)])",
        "s = int32(0 * cuda.blockIdx.y)",
    ),
    "the last block packs more squares than there are": (
        "pack",
        "min(int32(s + ints[uint32(at + EACH)]), ints[uint32(at + SQUARES)])",
        "int32(s + ints[uint32(at + EACH)])",
    ),
    "parts of a bias lie on each other": (
        "pack",
        "c * ints[uint32(at + PARTS)] + cuda.blockIdx.y",
        "c * ints[uint32(at + PARTS)]",
    ),
    "a part of a bias is left out": ("pack", "range(t, count,", "range(t + 1, count,"),
    "no barrier after a slice of weights has come": (
        "weighted",
        "                next_arrived()\n                cuda.syncthreads()\n",
        "                next_arrived()\n",
    ),
    "a slice of weights is not waited for": ("weighted", "                next_arrived()\n", ""),
    "copies of weights are in no group": ("weighted", "            commit()\n", ""),
    "a stage of weights is multiplied twice": (
        "weighted",
        "a_read, b_read = int32(a_read + step), int32(b_read + step)",
        "a_read, b_read = int32(a_read + step * (s & 1)), int32(b_read + step * (s & 1))",
    ),
    "the samples' second half is the first": ("weighted", "a_read ^ 8, (", "a_read, ("),
    "the weights' second half is the first, forward": ("weighted", "b_read ^ B_TURN", "b_read"),
    "the weights' second half is the first, back": ("weighted", ") + B_STEP)", "))"),
    "words of the next sample are read": (
        "weighted",
        "sample + i * A_FAR < rows and word < words",
        "sample + i * A_FAR < rows",
    ),
    "products past the last are read, back": (
        "weighted",
        "k + i * B_FAR < products and column < columns",
        "column < columns",
    ),
    "samples past the last are written": ("weighted", "if r < rows:", "if r >= 0:"),
    "columns past the last are written": ("weighted", "if c < columns:", "if c >= 0:"),
    "weights are not rounded, forward": ("weighted", "rounded(r0), rounded(r1)", "r0, r1"),
    "weights are not rounded, back": (
        "weighted",
        "bits_of(as_tf32(tile[uint64(at + FOUR)]))",
        "bits_of(tile[uint64(at + FOUR)])",
    ),
    "neighbours are exchanged, forward": ("weighted", "paired(tile, at, at + 1)", "right[2 * j]"),
    "neighbours are exchanged, back": (
        "weighted",
        "paired(tile, at, at + LINE)",
        "paired(tile, at + LINE, at)",
    ),
    "units are not exchanged where columns are read": (
        "weighted",
        "b_read = mixed(int32(across + (lane >> 2)), int32((lane & 3) >> 1))",
        "b_read = int32((across + (lane >> 2)) * LINE + 4 * ((lane & 3) >> 1))",
    ),
    "units are not exchanged where rows are read": (
        "weighted",
        "b_read = mixed(q, int32((across + (lane >> 2)) >> 2))",
        "b_read = int32(q * LINE + across + ((lane >> 2) & 4))",
    ),
    "all parts start at the same product": (
        "weighted",
        "start = int32(cuda.blockIdx.z * ints[uint32(at + PART)])",
        "start = int32(0 * cuda.blockIdx.z)",
    ),
    "a part of a layer's sum is left out": (
        "weighted",
        "for _ in range(ints[uint32(at + SPLITS)]):",
        "for _ in range(1, ints[uint32(at + SPLITS)]):",
    ),
    "every part has the bias": (
        "weighted",
        "apart, bias = columns, int32(-1)",
        "apart = columns",
    ),
    "no bias": ("weighted", "if bias >= 0 else ZERO", "if bias >= 99999 else ZERO"),
    "no bias after parts": ("weighted", "    if bias >= 0:\n", "    if bias >= 99999:\n"),
    "halves of weights are exchanged": ("gather", "as_bf16(low, weight", "as_bf16(-low, weight"),
    "a weight that is not there": ("gather", "if place >= 0 else ZERO", "if place != -7 else ZERO"),
}

SHOWING: list[Case] = [
    ("5x3x6", "conv2x2p1(5)", 3, "bf16", 1),
    ("3x3x6", "conv2x2p1(17)", 3, "tf32", 1),
    ("2x260", "conv1(2)", 2, "tf32", 1),
    ("32x9", "conv1g2(32)", 2, "tf32", 1),
    ("32x130", "conv1g2(32)", 2, "tf32", 1),
]

PACKED: list[Case] = [
    ("5x3x4", "conv2x2p1(7) -> relu", 2, "bf16", 1),
    ("3x3x3", "conv1x1(6) -> relu", 3, "tf32", 1),
    ("5x3x4", "conv2x2p1(7)", 2, "bf16", 1),
]

WEIGHTED: list[Case] = [
    ("44", "fc(18)", 18, "bf16", 1),
    ("36", "fc(21)", 17, "tf32", 1),
    ("260", "fc(3)", 16, "tf32", 1),
]


def test_planted_bugs_are_found() -> None:
    assert not missed(("tensor", "gather"), SHOWING)


@pytest.mark.slow
def test_bugs_planted_in_fully_connected_layers_are_found() -> None:
    assert not missed(("weighted",), WEIGHTED)


def test_bugs_planted_where_gradients_are_packed_are_found() -> None:
    assert not missed(("pack",), PACKED)


def missed(homes: tuple[str, ...], cases: list[Case]) -> list[str]:
    """The bugs in these modules that no case shows."""
    home, bugs = homes[0], {name: bug for name, bug in BUGS.items() if bug[0] in homes}
    same = (home, "ZERO = np.float32(0)\n", "ZERO = np.float32(0)\n\n")
    found = simulate("planted", {"bugs": [same, *bugs.values()], "cases": cases}, SCRIPT)
    assert found[0] == ""
    return [name for name, shown in zip(bugs, found[1:], strict=True) if not shown]


def test_state_is_float32_and_a_run_goes_on_in_any_precision() -> None:
    found = simulate("facts", [], SCRIPT)
    assert found["same"]
    assert 0 < found["apart"]["tf32"] < found["apart"]["bf16"] < 1e-1


def test_the_parts_of_a_sum_have_every_slice() -> None:
    for blocks, slices in ((1, 9), (9, 196), (40, 12544), (300, 98)):
        splits, each = splitting(blocks, slices, 132, LONG)
        assert (splits - 1) * each < slices <= splits * each


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_the_cpu_trains_in_fp32_alone(precision: str) -> None:
    with pytest.raises(NetError, match=f"cpu does not train in {precision}"):
        on_card("cpu", precision)
    assert not on_card("cpu")


def test_a_precision_that_there_is_not() -> None:
    with pytest.raises(NetError, match="there is no precision 'fp8'"):
        Settings(precision="fp8").check()


def test_a_checkpoint_has_no_precision_in_it() -> None:
    settings = Settings(device="cuda", precision="tf32", batch=3)
    kept = settings.as_dict()
    assert not {"device", "precision"} & set(kept)
    assert Settings.from_dict(kept) == Settings(batch=3)
    assert Settings.from_dict(kept, precision="bf16").precision == "bf16"
