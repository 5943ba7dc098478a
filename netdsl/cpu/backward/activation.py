"""Gradients of activations: the output's gradient times the slope.

Each takes the target (the input's gradient), the source (the output's gradient; they may be one
buffer) and OTHER, what was saved: the output of relu, clip, sigmoid, tanh and softmax, the input
of the rest.
"""

from __future__ import annotations

import numpy as np

from netdsl.cpu.activation import (
    CLIP,
    ELU,
    GELU,
    GELU_TANH,
    HARD_SIGMOID,
    HARD_SWISH,
    KIND,
    LEAKY,
    NUMBERS,
    RELU,
    SIGMOID,
    SILU,
)
from netdsl.cpu.functions import ROOT_HALF, ROOT_TWO_OVER_PI, erfc, exp, sigmoid, tanh
from netdsl.cpu.lanes import (
    keep,
    load,
    magnitude,
    muladd,
    splat,
    store,
    total,
    where_less,
    wide_splat,
    widen,
)
from netdsl.cpu.late import njit
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import BATCH, BLOCK_STRIDE, BLOCKS, DEPTH, HEIGHT
from netdsl.cpu.views import (
    OTHER,
    OWN,
    SOURCE,
    TARGET,
    lanes_of,
    row_at,
    row_count,
    row_place,
    row_width,
)

ROOT_TAU = np.float32(2.50662827)  # sqrt(2 pi)


@njit(forceinline=True)
def bend_back(kind, g, v, a, b):  # type: ignore[no-untyped-def]
    """g times the slope of an activation of straight pieces, at output v (relu, clip) or input."""
    if kind == RELU:
        return where_less(0.0, v, g, 0.0)
    if kind == CLIP:
        return where_less(0.0, v, where_less(v, a, g, 0.0), 0.0)
    if kind == LEAKY:
        return where_less(0.0, v, g, g * a)
    if kind == HARD_SIGMOID:
        t = muladd(v, a, b)
        return where_less(0.0, t, where_less(t, 1.0, g * a, 0.0), 0.0)
    if kind == HARD_SWISH:
        inside = g * (v + v + 3.0) / 6.0
        return where_less(v, -3.0, 0.0, where_less(v, 3.0, inside, g))
    return g


@worker
def bent_back(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The gradient of an activation made of straight pieces."""
    work, columns, kind, numbers = row_count(d), row_width(d), d[KIND], d[NUMBERS]
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        source, out = row_at(d, SOURCE, n, b, z, y), row_at(d, TARGET, n, b, z, y)
        saved = row_at(d, OTHER, n, b, z, y)
        first, second = load(params, numbers + 32 * b), load(params, numbers + 32 * b + 16)
        for x in range(columns):
            g, v = load(arena, source + 16 * x), load(arena, saved + 16 * x)
            store(arena, out + 16 * x, bend_back(kind, g, v, first, second))


@njit(forceinline=True)
def curve_back(kind, g, v, a):  # type: ignore[no-untyped-def]
    """g times the slope of a curved activation, at output v (sigmoid, tanh) or input v."""
    if kind == SIGMOID:
        return g * v * (1.0 - v)
    if kind == SILU:
        s = sigmoid(v)
        return g * s * (v * (1.0 - s) + 1.0)
    if kind == ELU:
        return where_less(v, 0.0, g * a * exp(v), g)
    if kind == GELU:
        tail = 0.5 * erfc(magnitude(v) * ROOT_HALF)
        below = where_less(v, 0.0, tail, 1.0 - tail)
        return g * (below + v * exp(v * v * -0.5) / ROOT_TAU)
    if kind == GELU_TANH:
        t = tanh(ROOT_TWO_OVER_PI * muladd(v * v * v, 0.044715, v))
        steep = ROOT_TWO_OVER_PI * (v * v * 0.134145 + 1.0)
        return g * 0.5 * (t + 1.0 + v * (1.0 - t * t) * steep)
    return g * (1.0 - v * v)


@worker
def curved_back(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The gradient of an activation that needs e to some power."""
    work, columns, kind = row_count(d), row_width(d), d[KIND]
    alpha = splat(params[d[NUMBERS]])
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        source, out = row_at(d, SOURCE, n, b, z, y), row_at(d, TARGET, n, b, z, y)
        saved = row_at(d, OTHER, n, b, z, y)
        lanes = lanes_of(d, b)
        for x in range(columns):
            g, v = load(arena, source + 16 * x), load(arena, saved + 16 * x)
            store(arena, out + 16 * x, keep(curve_back(kind, g, v, alpha), 0, lanes))


# Of prelu and prelu_back: where params hold the slope of each channel.
SLOPES = OWN


@worker
def prelu(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """x where positive, the channel's learned slope times x elsewhere."""
    work, columns = row_count(d), row_width(d)
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        source, out = row_at(d, SOURCE, n, b, z, y), row_at(d, TARGET, n, b, z, y)
        slope = load(params, d[SLOPES] + 16 * b)
        for x in range(columns):
            v = load(arena, source + 16 * x)
            store(arena, out + 16 * x, where_less(0.0, v, v, v * slope))


@worker
def prelu_back(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The input's gradient of prelu; OTHER is its input."""
    work, columns = row_count(d), row_width(d)
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        source, out = row_at(d, SOURCE, n, b, z, y), row_at(d, TARGET, n, b, z, y)
        saved = row_at(d, OTHER, n, b, z, y)
        slope = load(params, d[SLOPES] + 16 * b)
        for x in range(columns):
            g, v = load(arena, source + 16 * x), load(arena, saved + 16 * x)
            store(arena, out + 16 * x, where_less(0.0, v, g, g * slope))


LOG = OWN
"""Of softmax_back: whether the output is softmax's logarithm."""


@worker
def softmax_back(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """y (g - sum of y g) across the channels; of the logarithm g - softmax sum of g."""
    blocks, columns = d[TARGET + BLOCKS], row_width(d)
    of_x, of_g, of_y = (
        d[TARGET + BLOCK_STRIDE],
        d[SOURCE + BLOCK_STRIDE],
        d[OTHER + BLOCK_STRIDE],
    )
    rows, depth, log = d[TARGET + HEIGHT], d[TARGET + DEPTH], d[LOG]
    work = d[TARGET + BATCH] * depth * rows
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, z, y = item // (rows * depth), item // rows % depth, item % rows
        for x in range(columns):
            out = row_at(d, TARGET, n, 0, z, y) + 16 * x
            source = row_at(d, SOURCE, n, 0, z, y) + 16 * x
            saved = row_at(d, OTHER, n, 0, z, y) + 16 * x
            sums = wide_splat(0.0)
            for b in range(blocks):
                g, v = load(arena, source + b * of_g), load(arena, saved + b * of_y)
                sums += widen(keep(g if log else g * v, 0, lanes_of(d, b)))
            whole = np.float32(total(sums))
            for b in range(blocks):
                g, v = load(arena, source + b * of_g), load(arena, saved + b * of_y)
                back = g - exp(v) * whole if log else v * (g - whole)
                store(arena, out + b * of_x, keep(back, 0, lanes_of(d, b)))
