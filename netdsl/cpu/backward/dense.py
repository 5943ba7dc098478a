"""Fully connected layers in training: weights stay as (outputs, inputs), rows unaligned.

Nothing is repacked between steps, since at small batches a step is bound by reading the weights.
A row's last vector may reach into the next row: the input's padding lanes are zero, so what is read
there counts for nothing, and nothing is ever written there.
"""

from __future__ import annotations

import numpy as np

from netdsl.cpu.backward.outer import ADD, FRESH, inner, outer
from netdsl.cpu.lanes import keep, load, store
from netdsl.cpu.late import njit
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import BATCH, BATCH_STRIDE, CHANNELS, ORIGIN
from netdsl.cpu.views import OTHER, OWN, SOURCE, TARGET

# Where params hold the weights and the bias (-1: none); where the arena takes their gradients;
# where each thread's scratch lies and its size; and a table of one row of zeros for `outer`.
WEIGHT, BIAS, INTO, SCRATCH, SCRATCH_STEP, ORIGIN_ROW = range(OWN, OWN + 6)
PANEL = 4
"""Pairs of vectors in a panel."""
MANY = 24
"""Samples from which copying columns together pays."""
CHUNK = 32
"""Outputs whose weights are read together on the way back."""

inner_tile = inner((8, 3), (8, 1), (1, 3), (1, 1))
outer_tile = outer((8, 2), (1, 2))
EIGHT, ONE = 0, 1
"""The numbers of the latter."""


def scratch_floats(batch: int) -> int:
    """Floats of scratch that each thread of weight_gradient wants: a tile, and a panel of x."""
    return 8 * 32 + PANEL * 32 * batch


@njit(forceinline=True)
def _dots(arena, params, d, n, o, samples, outputs):  # type: ignore[no-untyped-def]
    """Adds the products of 1 or 8 samples and 1 or 3 outputs to what the target holds."""
    x, x_step = d[SOURCE + ORIGIN] + n * d[SOURCE + BATCH_STRIDE], d[SOURCE + BATCH_STRIDE]
    size = d[SOURCE + CHANNELS]
    w, steps = d[WEIGHT] + o * size, (size + 15) // 16
    y, y_step = d[TARGET + ORIGIN] + n * d[TARGET + BATCH_STRIDE] + o, d[TARGET + BATCH_STRIDE]
    number = 2 * (samples == 1) + (outputs == 1)
    inner_tile(
        *(number, arena, x, x_step, 16, params, w, size, 16, arena, y, y_step, 1),
        *(d, d[ORIGIN_ROW], 1, steps, ADD),
    )


@worker
def forward(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """y = W x + b: source x, a vector; target y."""
    batch, outputs = d[TARGET + BATCH], d[TARGET + CHANNELS]
    low = share((outputs + 2) // 3, part, parts) * 3
    high = min(share((outputs + 2) // 3, part + 1, parts) * 3, outputs)
    for n in range(batch):
        y = d[TARGET + ORIGIN] + n * d[TARGET + BATCH_STRIDE]
        for o in range(low, high):
            arena[y + o] = params[d[BIAS] + o] if d[BIAS] >= 0 else np.float32(0.0)
    for o in range(low, high, 3):
        whole = o + 3 <= high
        n = 0
        while n < batch:
            samples = 8 if n + 8 <= batch else 1
            if whole:
                _dots(arena, params, d, n, o, samples, 3)
            else:
                for last in range(o, high):
                    _dots(arena, params, d, n, last, samples, 1)
            n += samples


@worker
def input_gradient(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """dx = W^T dy: source dy, target dx, both vectors. Each thread takes its columns of W."""
    batch, size, outputs = d[TARGET + BATCH], d[TARGET + CHANNELS], d[SOURCE + CHANNELS]
    g_step, x_step = d[SOURCE + BATCH_STRIDE], d[TARGET + BATCH_STRIDE]
    vectors = (size + 31) // 32
    low, high = share(vectors, part, parts), share(vectors, part + 1, parts)
    zero = d[ORIGIN_ROW]
    for o in range(0, outputs, CHUNK):
        steps = min(CHUNK, outputs - o)
        mode = FRESH if o == 0 else ADD
        for i in range(32 * low, 32 * high, 32):
            # The last of an odd number of vectors stands alone: 16 floats on is another sample.
            apart = 16 if i + 16 < size else 0
            w, n = d[WEIGHT] + o * size + i, 0
            while n < batch:
                g = d[SOURCE + ORIGIN] + n * g_step + o
                x = d[TARGET + ORIGIN] + n * x_step + i
                number = EIGHT if n + 8 <= batch else ONE
                outer_tile(
                    *(number, arena, g, g_step, 1, params, w, apart, size, arena, x, x_step, apart),
                    *(d, zero, 1, steps, mode),
                )
                n += 8 if number == EIGHT else 1
    if part == parts - 1 and size % 16:
        for n in range(batch):
            last = d[TARGET + ORIGIN] + n * x_step + size // 16 * 16
            store(arena, last, keep(load(arena, last), 0, size % 16))


@njit()
def _by_panels(arena, d, part, parts):  # type: ignore[no-untyped-def]
    """The same for many samples: a thread copies some columns of x together, so that they come
    from its nearest cache for all outputs."""
    batch, outputs, size = d[SOURCE + BATCH], d[SOURCE + CHANNELS], d[OTHER + CHANNELS]
    g_step, x_step = d[SOURCE + BATCH_STRIDE], d[OTHER + BATCH_STRIDE]
    zero, step = d[ORIGIN_ROW], 32 * batch
    tile = d[SCRATCH] + part * d[SCRATCH_STEP]
    panel = tile + 8 * 32
    panels = (size + 32 * PANEL - 1) // (32 * PANEL)
    for item in range(share(panels, part, parts), share(panels, part + 1, parts)):
        start = 32 * PANEL * item
        end = min(start + 32 * PANEL, size)
        for i in range(start, end, 16):
            into = panel + (i - start) // 32 * step + i % 32
            for n in range(batch):
                store(arena, into + 32 * n, load(arena, d[OTHER + ORIGIN] + n * x_step + i))
        for o in range(0, outputs, 8):
            rows = min(8, outputs - o)
            g = d[SOURCE + ORIGIN] + o
            for i in range(start, end, 32):
                x, into = panel + (i - start) // 32 * step, d[INTO] + o * size + i
                whole = rows == 8 and i + 32 <= size
                c, line = (into, size) if whole else (tile, 32)
                outer_tile(
                    *(EIGHT, arena, g, 1, g_step, arena, x, 16, 32, arena, c, line, 16),
                    *(d, zero, 1, batch, FRESH),
                )
                if not whole:
                    for row in range(rows):
                        for j in range(min(32, size - i)):
                            arena[into + row * size + j] = arena[tile + 32 * row + j]


@worker
def weight_gradient(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """dW = dy^T x: source dy, OTHER x, both vectors; written as (outputs, inputs)."""
    batch, outputs, size = d[SOURCE + BATCH], d[SOURCE + CHANNELS], d[OTHER + CHANNELS]
    if batch >= MANY:
        _by_panels(arena, d, part, parts)
        return
    g_step, x_step = d[SOURCE + BATCH_STRIDE], d[OTHER + BATCH_STRIDE]
    scratch, zero = d[SCRATCH] + part * d[SCRATCH_STEP], d[ORIGIN_ROW]
    tiles = (outputs + 7) // 8
    for tile in range(share(tiles, part, parts), share(tiles, part + 1, parts)):
        o = 8 * tile
        rows = min(8, outputs - o)
        g = d[SOURCE + ORIGIN] + o
        for i in range(0, size, 32):
            x, into = d[OTHER + ORIGIN] + i, d[INTO] + o * size + i
            apart = 16 if i + 16 < size else 0
            whole = rows == 8 and i + 32 <= size
            c, line = (into, size) if whole else (scratch, 32)
            outer_tile(
                *(EIGHT, arena, g, 1, g_step, arena, x, apart, x_step, arena, c, line, apart),
                *(d, zero, 1, batch, FRESH),
            )
            if whole:
                continue
            for row in range(rows):
                for j in range(min(32, size - i)):
                    arena[into + row * size + j] = arena[scratch + 32 * row + j]
