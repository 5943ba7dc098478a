"""Bugs to be planted in the gradient kernels, and for each a case that must show it.

Each is [module of netdsl.cuda, what stands there once, what stands there instead, mode, case].
"""

from __future__ import annotations

from typing import Any

BARRIER = "    barrier()\n"
READS = "for i in range(WARPS):\n        total += shared[uint32(i)]\n"
READS_TWO = "        second += shared[uint32(i + WARPS)]\n"
READS_BEST = "            best = other\n"

PARTS = ["ops", ["input 1x5x9; bn", 3, 0]]
CHANNELS = ["ops", ["input 24x3; bn", 2, 0]]
MANY = ["ops", ["input 6x3x44; in", 1, 0]]
WHOLE = ["ops", ["input 3x5x2; bn", 2, 0]]
FOURS = ["ops", ["input 8x2x2; gn2", 2, 0]]
EDGES = ["ops", ["input 2x7x3; bn", 3, 0]]
LITTLE = ["ops", ["input 3x5; in", 3, 1]]
SHARED = ["ops", ["input 132; ln", 1, 0]]
COLUMNS = ["ops", ["input 11; ln", 5, 0]]
SLOPES = ["ops", ["input 2x9x8; prelu", 2, 1]]
TILE = ["ops", ["input 6x5; lrn3(beta=0.6, alpha=1)", 1, 0]]
HOLES = ["ops", ["input 2x7; maxpool2s1d2", 1, 0]]
WINDOW = ["ops", ["input 3x5x6; maxpool3x2s2x1p1x0", 2, 1]]
DEEP = ["ops", ["input 1x5x3x4; maxpool3x2x3s1", 1, 0]]
DEEPER = ["ties", ["input 2x5x4x3; maxpool3s2p1", 1, 0]]
LAST = ["ties", ["input 1x2800; maxpool4", 1, 0]]
TIES = ["ops", ["input 1x6x7; maxpool4x5s3x2p1x2", 1, 0]]
MEAN = ["ops", ["input 2x8x9; avgpool5s4p2(count_pad=yes)", 2, 1]]
LARGEST = ["ops", ["input 2x3x2x3; gmp", 2, 0]]
PASS = ["ops", ["input 5x5; tanh", 3, 1]]
ROWS = ["ops", ["input 12; softmax", 2, 0]]
POSITIONS = ["ops", ["input 3x33; softmax", 1, 0]]
GATE = ["ops", ["input 4x1x1 as a; input 4x3x5 as b; a -> [id * b]", 2, 0]]
PLANES = ["ops", ["input 4x3x1 as a; input 1x3x5 as b; a -> [id * b]", 2, 0]]
ENTROPY = ["losses", ["cross_entropy", [10], 3, 0, 0.1]]
ENTROPIES = ["losses", ["cross_entropy", [3, 5, 7], 1, 0, 0.1]]
HINGE = ["losses", ["hinge", [10], 3, 0, 0.0]]
SQUARES = ["losses", ["mse", [5, 7], 2, 1, 0.0]]
CLIPPED = ["updates", ["momentum", 80, 0.5, 1.0]]
STOPPED = ["updates", ["adamw", 48, 1.5, float("nan")]]
MASK = ["masks", ["input 20; dropout(0.2)", 3, 1]]
TIE = ["ties", ["input 2x5x5; maxpool3s3p1", 2, 0]]
NEXT = ["ties", ["input 2x5x7; maxpool3s1p1", 2, 0]]
STRIPS = ["ties", ["input 2x5x5; maxpool3s2p1", 2, 0]]
MEANS = ["ops", ["input 2x5x5; avgpool3s2p1", 2, 0]]
SCORES = ["ops", ["input 10; softmax", 3, 0]]
SLICED = ["ops", ["input 9x33; softmax", 1, 0]]
BEYOND = ["ops", ["input 2x5x6; avgpool3s2p1ceil(count_pad=yes)", 2, 0]]

BUGS: dict[str, tuple[Any, ...]] = {
    "a block's sum is read too early": (
        "wide",
        BARRIER + "    total = ZERO\n    " + READS,
        "    total = ZERO\n    " + READS,
        *ROWS,
    ),
    "a block's next sum is written too early": ("wide", READS + BARRIER, READS, *CHANNELS),
    "two sums are read too early": (
        "wide",
        BARRIER + "    first, second",
        "    first, second",
        *WHOLE,
    ),
    "the next two sums are written too early": ("wide", READS_TWO + BARRIER, READS_TWO, *MANY),
    "the largest is read too early": (
        "wide",
        BARRIER + "    best = shared",
        "    best = shared",
        *LARGEST,
    ),
    "a sum after the largest is written too early": (
        "wide",
        READS_BEST + BARRIER,
        READS_BEST,
        "losses",
        ["cross_entropy", [9], 12, 0, 0.1],
    ),
    "a warp's sum lacks a step": (
        "wide",
        "mask = int32(lanes // 2)\n    while mask > 0:\n        value +=",
        "mask = int32(lanes // 4)\n    while mask > 0:\n        value +=",
        *WHOLE,
    ),
    "a block's sum lacks a warp": ("wide", READS, READS.replace("(WARPS)", "(1)"), *ROWS),
    "elements past the last are written": (
        "wide",
        "            if int32(i + k * THREADS) < count:\n                array",
        "            if count > 0:\n                array",
        *PASS,
    ),
    "a part reaches into the next": (
        "groups",
        "min(int32(first + each), total)",
        "int32(first + each + 1)",
        *PARTS,
    ),
    "the last part is as long as the others": (
        "groups",
        "min(int32(first + each), total)",
        "int32(first + each)",
        "ops",
        ["input 1x5x11; bn", 3, 0],
    ),
    "no carry from row to row": ("groups", "if column >= units:", "if column < 0:", *EDGES),
    "a part's count is its fours": (
        "norm",
        "int32(found + max(there, int32(0)))",
        "int32(found + unit)",
        *EDGES,
    ),
    "another row's are measured": (
        "groups",
        "values[0] = a if within(begin, length) else missing",
        "values[0] = a",
        *EDGES,
    ),
    "a row's last are another's": (
        "groups",
        "values[3] = d if within(int32(begin + 3), length) else missing",
        "values[3] = d",
        *EDGES,
    ),
    "what lies before a row is written": (
        "groups",
        "elif begin >= 0 and int32(begin + EACH) <= length:",
        "elif int32(begin + EACH) <= length:",
        *EDGES,
    ),
    "what lies past a row is written": (
        "groups",
        "elif begin >= 0 and int32(begin + EACH) <= length:",
        "elif begin >= 0:",
        *EDGES,
    ),
    "a row has no room for both its ends": (
        "groups",
        "int32(row + 2 * (EACH - 1))",
        "int32(row + EACH - 1)",
        "ops",
        ["input 2x5x3; bn", 3, 0],
    ),
    "the neighbours of a small group are measured": (
        "few",
        "if not within(int32(begin + k), length):",
        "if length < 0:",
        *LITTLE,
    ),
    "a small group's neighbours are missed by its mean": (
        "norm",
        "lane, lanes, length, mean)",
        "lane, lanes, length, ZERO)",
        *LITTLE,
    ),
    "a small group's neighbours are written": (
        "few",
        "if within(int32(begin + k), length):",
        "if length > 0:",
        *LITTLE,
    ),
    "all of a small group's fours are its own": (
        "few",
        "if begin >= 0 and int32(begin + EACH) <= length:",
        "if begin >= 0:",
        *LITTLE,
    ),
    "a small group's neighbours pull": (
        "backward.few",
        "    filled(g, first, skew, lane, lanes, length, ZERO)\n",
        "",
        *LITTLE,
    ),
    "a small group's neighbours turn": (
        "backward.few",
        "    filled(x, first, skew, lane, lanes, length, mean)\n",
        "",
        *LITTLE,
    ),
    "a small group's channels pull by the first one's scale": (
        "backward.few",
        "c = divided(there, by_plane, shift)",
        "c = int32(0)",
        "ops",
        ["input 8; ln", 2, 0],
    ),
    "what a relu takes pulls a small group": (
        "backward.few",
        "if relu and not",
        "if length < 0 and not",
        "ops",
        ["input 3x5; in -> relu", 3, 0],
    ),
    "a small group's deviation is left out": ("backward.few", " - x[j] * turn", "", *LITTLE),
    "a small group's mean is left out": ("backward.few", "(g[j] - pull)", "g[j]", *LITTLE),
    "lanes past the last group have one": ("few", "if q < count:", "if q >= 0:", *LITTLE),
    "a small group's channels have the first one's scale": (
        "norm",
        "c = divided(there, by_plane, shift)",
        "c = int32(0)",
        "ops",
        ["input 8; ln", 2, 0],
    ),
    "a lane has only its first fours": (
        "norm",
        "squares += (values[k] - mean) * (values[k] - mean)\n        first = int32(first + step)",
        "squares += (values[k] - mean) * (values[k] - mean)\n        first = fours",
        "ops",
        ["input 2x31; in", 1, 0],
    ),
    "parts have one mean": ("norm", "squares + count * apart * apart", "squares", *PARTS),
    "the pivot is left out": ("norm", "return pivot + off", "return off", *WHOLE),
    "the squares are from the pivot": (
        "norm",
        "max(squares - total * off, ZERO)",
        "squares",
        *WHOLE,
    ),
    "every part moves the statistics": (
        "norm",
        "keeper = t if part == 0 else int32(1)",
        "keeper = t",
        *PARTS,
    ),
    "a scale for four channels": (
        "norm",
        "if wide != SINGLE and not mixed:",
        "if wide != SINGLE:",
        *SHARED,
    ),
    "a scale's gradient for four channels": (
        "backward.norm",
        "int32(across + k) if plane == 1",
        "int32(across) if plane == 1",
        *SHARED,
    ),
    "the mean's own gradient is left out": ("backward.norm", "((wg - pull) - ", "(wg - ", *WHOLE),
    "the deviation's is left out": ("backward.norm", " - (x[k] - mean) * rate * turn", "", *PARTS),
    "what a relu takes pulls": (
        "backward.norm",
        "                wg = passed(relu, g[k], x[k], mean, rate, scale, shift)\n",
        "                wg = g[k]\n",
        "ops",
        ["input 2x3x4; bn -> relu", 3, 0],
    ),
    "a relu passes what it took": (
        "backward.norm",
        "wg = scale * passed(relu, g[k], x[k], mean, rate, scale, shift)\n",
        "wg = scale * g[k]\n",
        "ops",
        ["input 2x3x4; bn -> relu", 3, 0],
    ),
    "a relu's gradient is the scale's": (
        "backward.norm",
        "            own = passed(relu, g[k], x[k], mean, rate, scale, shift)",
        "            own = g[k]",
        "ops",
        ["input 8x2x2; gn2 -> relu", 2, 0],
    ),
    "a relu's gradient is a column's": (
        "backward.norm",
        "        g = passed(relu, g, x, mean, rate, scale, shift)\n",
        "",
        "ops",
        ["input 132; ln -> relu", 1, 0],
    ),
    "no relu after a norm": (
        "norm",
        "if relu and x < ZERO",
        "if relu and x < mean - mean - 99",
        "ops",
        ["input 2x3x4; bn -> relu", 3, 1],
    ),
    "only the first part pulls": ("backward.norm", "if t < parts:", "if t < 1:", *PARTS),
    "samples of a part of columns are left out": (
        "backward.norm",
        "(part + 1) * rows)",
        "(part + 1) * (rows - 1))",
        *COLUMNS,
    ),
    "the groups' table is one sample's": (
        "backward.norm",
        "        found = int32(table + 2 * groups * row)\n"
        "        mean, rate = arena[uint32(found)], arena[uint32(found + 1)]\n        from_g",
        "        found = int32(table)\n"
        "        mean, rate = arena[uint32(found)], arena[uint32(found + 1)]\n        from_g",
        *FOURS,
    ),
    "a part of a sum is left out": (
        "backward.sums",
        "for part in range(parts):",
        "for part in range(1, parts):",
        *SLOPES,
    ),
    "parts lie on each other": (
        "backward.sums",
        "q * parts + part)] = total\n\n\n@cuda.jit\ndef column",
        "q * parts)] = total\n\n\n@cuda.jit\ndef column",
        "biases",
        [[1, 9, 8], 2, 1, True],
    ),
    "a bias is given what a relu took": (
        "backward.sums",
        "if not y[k] > ZERO:",
        "if y[k] < ZERO:",
        "biases",
        [[1, 9, 8], 2, 1, True],
    ),
    "a relu leaves its gradient": (
        "backward.sums",
        "            give(arena, begin, across, length, wide, g)\n",
        "",
        "biases",
        [[2, 5, 4], 4, 0, True],
    ),
    "channels past the last have a bias": (
        "backward.sums",
        "if c >= ints[uint32(at + GROUPS)]:",
        "if c < 0:",
        "biases",
        [[9], 1, 1, False],
    ),
    "samples of a bias are left out": (
        "backward.sums",
        "(part + 1) * rows)",
        "(part + 1) * (rows - 1))",
        "biases",
        [[11], 5, 1, False],
    ),
    "squares are read too early": (
        "backward.response",
        "x * x\n    cuda.syncthreads()\n",
        "x * x\n",
        *TILE,
    ),
    "pulls are read too early": (
        "backward.response",
        "= pull\n    cuda.syncthreads()\n",
        "= pull\n",
        *TILE,
    ),
    "positions past the last are written": (
        "backward.response",
        "int32(LINES)):\n        if inside(int32(low + r), channels) and p < plane:",
        "int32(LINES)):\n        if inside(int32(low + r), channels):",
        *TILE,
    ),
    "channels past the last are written": (
        "backward.response",
        "int32(LINES)):\n        if inside(int32(low + r), channels) and p < plane:",
        "int32(LINES)):\n        if p < plane:",
        "ops",
        ["input 6x5; lrn3(beta=0.6, alpha=1)", 1, 1],
    ),
    "windows reach as far up as down": (
        "backward.response",
        "first, last = max(int32(c - above), int32(0)), min(int32(c + below)",
        "first, last = max(int32(c - below), int32(0)), min(int32(c + above)",
        "ops",
        ["input 9x3; lrn6(alpha=2)", 1, 0],
    ),
    "a tap of another row": ("backward.window", "ky * columns", "ky", *WINDOW),
    "a tap of another plane": ("backward.window", "kz * taps", "kz", *DEEP),
    "an output of another row": (
        "backward.window",
        "o = int32(oz * area + oy * line",
        "o = int32(oz * area + oy",
        *WINDOW,
    ),
    "every window's gradient is an input's": (
        "backward.window",
        "slopes[k] if noted[k] == tap else ZERO",
        "slopes[k]",
        *HOLES,
    ),
    "channels past the last have a gradient": (
        "backward.window",
        "if int32(c + k) < channels:",
        "if c >= 0:",
        *WINDOW,
    ),
    "channels past the last are read": (
        "backward.window",
        "min(int32(c + k), int32(channels - 1))",
        "int32(c + k)",
        *LAST,
    ),
    "taps of another sample are read": (
        "backward.window",
        " + n * ints[uint64(at + KEPT_ROW)])",
        ")",
        "ops",
        ["input 2x7; maxpool2s1d2", 3, 1],
    ),
    "outputs are summed with another's weight": (
        "backward.window",
        "share = by * float_of(uint32(by_x))",
        "share = by",
        *BEYOND,
    ),
    "a row's weight is left out": (
        "backward.window",
        "float_of(uint32(by_z)) * float_of(uint32(by_y))",
        "float_of(uint32(by_z))",
        "ops",
        ["input 1x4x3x4; avgpool2s1", 1, 0],
    ),
    "the last of the largest": (
        "windows",
        "if value > best[k] or value != value:",
        "if value >= best[k] or value != value:",
        *TIE,
    ),
    "a window of padding has no tap": (
        "windows",
        "LEAST, float32(tap)",
        "LEAST, ZERO",
        *TIE,
    ),
    "the tap after a row's last is the next": (
        "windows",
        "number, after = int32(number + columns - across), int32(0)",
        "after = int32(0)",
        *TIE,
    ),
    "a window's rows are as long as the input's": (
        "windows",
        "int32(line - across * step), last",
        "line, last",
        *MEAN,
    ),
    "a window reaches past its last tap": ("windows", "min(offset, last)", "offset", *TIES),
    "a mean counts its last tap more than once": (
        "windows",
        "cells[j * EACH + k] if there else ZERO",
        "cells[j * EACH + k]",
        *MEAN,
    ),
    "the next fours begin a row": (
        "windows",
        "    return column\n",
        "    return int32(0)\n",
        "ops",
        ["input 2x8x9; avgpool5s4p2", 1, 0],
    ),
    "channels past the last have a window": (
        "windows",
        "if int32(c + k) < channels:",
        "if c >= 0:",
        *MEAN,
    ),
    "channels past the last have cells": (
        "windows",
        "min(int32(c + k), int32(channels - 1))",
        "int32(c + k)",
        *LAST,
    ),
    "windows of another sample": (
        "windows",
        "ints[uint64(at + PLACES)] + n * ints[uint64(at + PLACES + 1)]",
        "ints[uint64(at + PLACES)]",
        *MEAN,
    ),
    "a column of another window has a tap": (
        "backward.strips",
        "if columns[k] == o and tap < K else",
        "if tap < K else",
        *NEXT,
    ),
    "a tap past a window's columns": (
        "backward.strips",
        "if columns[k] == o and tap < K else",
        "if columns[k] == o else",
        "ops",
        ["input 2x9x9; maxpool3s2p1", 2, 0],
    ),
    "a row outside has a tap": (
        "backward.strips",
        "if there == o else NONE",
        "if K else NONE",
        *NEXT,
    ),
    "windows above are left out": (
        "backward.strips",
        "for s in range(C):\n                    if",
        "for s in range(1):\n                    if",
        *NEXT,
    ),
    "a strip's inputs lie in the padding": (
        "backward.strips",
        "if y >= 0 and y < height:",
        "if y < height:",
        *STRIPS,
    ),
    "a strip reaches over the last row": (
        "backward.strips",
        "if y >= 0 and y < height:",
        "if y >= 0:",
        *STRIPS,
    ),
    "planes of windows are one": ("backward.strips", "tap - deeper if", "tap if", *DEEPER),
    "windows end a plane early": (
        "backward.strips",
        "by_stride, shift) + 1), out_depth)",
        "by_stride, shift)), out_depth)",
        *DEEPER,
    ),
    "windows begin a plane late": (
        "backward.strips",
        "max(int32(z + before - deep + stride), int32(0))",
        "max(int32(z + before - deep + 2 * stride), int32(0))",
        *DEEPER,
    ),
    "the gradient of another sample": (
        "backward.strips",
        "source = int32(source + n * source_batch)",
        "source = int32(source)",
        *STRIPS,
    ),
    "a strip's rows reach over the edge": (
        "strips",
        "clamped(int32(y0 + r), height)",
        "(y0 + r)",
        *STRIPS,
    ),
    "a strip's columns reach too far": ("strips", "int32(size - 1)", "size", *STRIPS),
    "strips of a column are counted by another's": (
        "strips",
        "int32((lines - planes * strips) * R)",
        "int32((lines - planes * height) * R)",
        *STRIPS,
    ),
    "the last of a strip's largest": (
        "strips",
        "if value > best[o] or value != value:",
        "if value >= best[o] or value != value:",
        *STRIPS,
    ),
    "a tap of padding is noted": ("strips", " + columns[0] - x0)", ")", *STRIPS),
    "a tap below another row": ("strips", "* K + down) * K - x0)", "* K + r) * K - x0)", *STRIPS),
    "taps are noted where another sample's are": (
        "strips",
        "n * ints[uint64(at + SAMPLE)] + first",
        "first",
        *STRIPS,
    ),
    "a column outside has a part in a mean": (
        "strips",
        "if columns[k] == int32(x0 + k)",
        "if K",
        *MEANS,
    ),
    "a row outside has a part in a mean": (
        "strips",
        "if clamped(line, height) == line",
        "if K",
        *MEANS,
    ),
    "all windows are as tall": ("strips", "(share * one_by(down))", "(share * THIRD)", *MEANS),
    "cells past the padding are part of a mean": (
        "strips",
        "min(int32(start + size), end)",
        "int32(start + size)",
        *BEYOND,
    ),
    "four neighbours are of one channel": (
        "norm",
        "if wide != SINGLE and not mixed:",
        "if wide != SINGLE:",
        "ops",
        ["input 24x3; gn2", 2, 0],
    ),
    "the next channel is one early": (
        "norm",
        "left = int32((c - channel + 1) * plane - across)",
        "left = int32((c - channel + 1) * plane - across - 1)",
        "ops",
        ["input 24x3; gn2", 2, 0],
    ),
    "all channels after the next are as long": (
        "norm",
        "left, c = plane, int32(c + 1)",
        "left, c = int32(4), int32(c + 1)",
        "ops",
        ["input 40; ln", 2, 0],
    ),
    "a group's later channels have the first one's scale": (
        "norm",
        "        if channels > 1:\n            c = int32(",
        "        if channels > 99:\n            c = int32(",
        "ops",
        ["input 18x2x2; gn2", 2, 0],
    ),
    "scores past the last count": (
        "softmax",
        "NOTHING = np.float32(-np.inf)",
        "NOTHING = np.float32(0)",
        *SCORES,
    ),
    "a warp past the last position has a softmax": (
        "softmax",
        " if q < ints[uint32(at + ITEMS)] else int32(0)",
        "",
        "ops",
        ["input 10; softmax", 3, 3],
    ),
    "a lane's fours are another's": (
        "softmax",
        "i = int32((j * WARP + lane) * EACH)",
        "i = int32((j * WARP + lane + 1) * EACH)",
        "ops",
        ["input 24; softmax", 2, 0],
    ),
    "shares of a position are read too early": ("softmax", "        barrier()\n", "", *SLICED),
    "shares of a position have their own largest": (
        "softmax",
        " * power(bests[there] - best)",
        "",
        *SLICED,
    ),
    "a position's threads all sum the same": (
        "softmax",
        "int32(part * positions), int32(slices",
        "int32(0), int32(slices",
        *SLICED,
    ),
    "positions past the last have shares": (
        "softmax",
        "    if p >= positions:\n        return\n",
        "",
        *SLICED,
    ),
    "what four scores add has another largest": (
        "softmax",
        "total = total * power(best - top)\n        total +=",
        "total +=",
        "ops",
        ["input 20x33; softmax", 1, 0],
    ),
    "the last of a channel's largest": (
        "backward.window",
        "max(first, float32(int32(-i)))",
        "float32(int32(-i))",
        "ties",
        ["input 3x3x4; gmp", 2, 0],
    ),
    "a class is left out": (
        "backward.activation",
        "for i in range(int32(t * positions), end, step):\n        g = ",
        "for i in range(int32((t + 1) * positions), end, step):\n        g = ",
        *ROWS,
    ),
    "positions past the last have a softmax": (
        "backward.activation",
        "if p >= positions:",
        "if p < 0:",
        *POSITIONS,
    ),
    "no block ends": (
        "backward.arrange",
        "if i < count:",
        "if i < count + 99:",
        "masks",
        ["input 20; dropout(0.2)", 3, 4],
    ),
    "a thread's places are left out": (
        "backward.join",
        "range(first, ints[uint32(at + ALL)], step)",
        "range(int32(0), ints[uint32(at + ALL)], step)",
        *PLANES,
    ),
    "a lane's part of a channel is left out": (
        "backward.join",
        "range(int32(first * unit), end, int32(step * unit))",
        "range(int32(0), end, int32(step * unit))",
        *GATE,
    ),
    "the gates are the first sample's": (
        "backward.join",
        "row_of(ints, at + GATE, n)",
        "row_of(ints, at + GATE, int32(0))",
        *GATE,
    ),
    "the other factor's gradient is left out": (
        "backward.join",
        "if ints[uint32(at + TARGET)] >= 0:",
        "if n < 0:",
        *GATE,
    ),
    "a gradient is not multiplied by its gate": ("backward.join", "g[k] *= gate", "pass", *GATE),
    "elements past the last have a product": (
        "backward.join",
        "if i < ints[uint32(at + COUNT)]:",
        "if i >= 0:",
        *PLANES,
    ),
    "a warp past the last channel has a mean": (
        "pool",
        "if first == 0 and there:",
        "if first == 0:",
        "ops",
        ["input 3x3x3; gap", 1, 1],
    ),
    "lanes past the last channel have a mean": (
        "pool",
        "if first == 0 and q < items:",
        "if first == 0:",
        "ops",
        ["input 3x2x2; gap", 1, 1],
    ),
    "a warp past the last channel has a gradient": (
        "backward.window",
        "if q < ints[uint32(at + ITEMS)]:",
        "if q >= 0:",
        "ops",
        ["input 3x3x3; gmp", 1, 1],
    ),
    "a warp past the last element has a product": (
        "backward.join",
        "if first == 0 and there:\n        arena[uint32(row_of(ints, at + TARGET",
        "if first == 0:\n        arena[uint32(row_of(ints, at + TARGET",
        "ops",
        ["input 3x3x1 as a; input 1x3x4 as b; a -> [id * b]", 1, 1],
    ),
    "a warp past the last channel has a gate": (
        "backward.join",
        "if first == 0 and there:\n        arena[uint32(row_of(ints, at + INTO",
        "if first == 0:\n        arena[uint32(row_of(ints, at + INTO",
        "ops",
        ["input 3x1x1 as a; input 3x3x4 as b; a -> [id * b]", 1, 1],
    ),
    "another sample's mask": ("backward.arrange", "int32(n + row)", "int32(n)", *MASK),
    "one mask for four": ("backward.arrange", "int32(i + k * THREADS)", "i", *MASK),
    "the largest of a thread": ("backward.losses", "total * power(best - most)", "total", *ENTROPY),
    "positions past the last have a loss": (
        "backward.losses",
        "if p >= positions:",
        "if p < 0:",
        *ENTROPIES,
    ),
    "the right class is as the others": (
        "backward.losses",
        "if i == own else even",
        "if i < 0 else even",
        *ENTROPY,
    ),
    "the right class has a margin": ("backward.losses", "if i != own:", "if i >= 0:", *HINGE),
    "the loss of what is not there": (
        "backward.losses",
        "there = wide or int32(i + k * THREADS) < count",
        "there = count > 0",
        "losses",
        ["bce", [5, 7], 2, 1, 0.0],
    ),
    "a block's loss on another's": (
        "backward.losses",
        "n * cuda.gridDim.x + cuda.blockIdx.x",
        "n",
        *SQUARES,
    ),
    "a loss is left out": (
        "backward.losses",
        "for i in range(t, ints[uint32(at + HOW_MANY)]",
        "for i in range(int32(t + 1), ints[uint32(at + HOW_MANY)]",
        *ENTROPY,
    ),
    "a part of the norm is left out": (
        "backward.update",
        "for i in range(t, ints[uint32(at + PARTS)]",
        "for i in range(int32(t + 1), ints[uint32(at + PARTS)]",
        *CLIPPED,
    ),
    "the norm is one block's": (
        "backward.update",
        "(cuda.blockIdx.x * THREADS + t) * EACH",
        "t * EACH",
        *CLIPPED,
    ),
    "the weights move after a loss that is none": (
        "backward.update",
        "        end = int32(0)\n",
        "        end = int32(end)\n",
        *STOPPED,
    ),
}
