"""Kernels of one warp for each of the warp's functions, and their run in Numba's simulator.

NUMBA_ENABLE_CUDASIM=1 python warped.py SEED        the largest difference of each from NumPy
NUMBA_ENABLE_CUDASIM=1 python warped.py wrong BUG   what a warp used wrongly ends in
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda.warp import (
    arrived,
    as_bf16,
    as_tf32,
    commit,
    copy16,
    larger_bf16,
    load4,
    matrices,
    matrices_across,
    mma_bf16,
    mma_tf32,
    shuffle,
    shuffle_down,
    shuffle_xor,
    store4,
    sync_warp,
)

WARP = 32
all_arrived, all_but_one = arrived(0), arrived(1)


@cuda.jit
def lanes(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Lane l's row of four: what the shuffles give of its number at `at`, and a sum of all."""
    t = int32(cuda.threadIdx.x)
    x = arena[uint32(at + t)]
    down, other = shuffle_down(x, 3), shuffle_xor(x, 5)
    total = x
    step = int32(16)
    while step > 0:
        total += shuffle_xor(total, step)
        step = int32(step // 2)
    first = shuffle(x, 7)
    sync_warp()
    store4(arena, uint32(at + 4 * t), down, other, total, first)


@cuda.jit
def rounded(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Four values as they are read, then rounded to TF32, and in pairs to bfloat16; the larger of
    these."""
    t = int32(cuda.threadIdx.x)
    a, b, c, d = load4(params, uint32(4 * t))
    store4(arena, uint32(8 * t), as_tf32(a), as_tf32(b), as_tf32(c), as_tf32(d))
    one, two = as_bf16(a, b), as_bf16(c, d)
    store4(arena, uint32(8 * t + 4), one, two, a, larger_bf16(one, two))


@cuda.jit(device=True)
def store_fragment(arena, t, c0, c1, c2, c3):  # type: ignore[no-untyped-def]
    """What thread t of a warp has of a product (16, 8)."""
    row, column = t // 4, 2 * (t % 4)
    arena[uint32(row * 8 + column)] = c0
    arena[uint32(row * 8 + column + 1)] = c1
    arena[uint32((row + 8) * 8 + column)] = c2
    arena[uint32((row + 8) * 8 + column + 1)] = c3


@cuda.jit
def product_tf32(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """(16, 8) = (16, 8) by (8, 8) transposed, copied to shared memory in two groups."""
    a_tile = cuda.shared.array(128, float32, 128)
    b_tile = cuda.shared.array(128, float32, 128)  # twice the same
    t = int32(cuda.threadIdx.x)
    copy16(a_tile, uint32(4 * t), params, uint32(4 * t), True)
    commit()
    copy16(b_tile, uint32(4 * t), params, uint32(128 + 4 * (t % 16)), t < at)
    commit()
    all_but_one()
    sync_warp()
    a0, a1, a2, a3 = matrices(a_tile, uint32((t % 16) * 8 + (t // 16) * 4))
    all_arrived()
    sync_warp()
    b0, b1, _, _ = matrices(b_tile, uint32((t % 8) * 8 + (t // 8 % 2) * 4))
    z = float32(0)
    c0, c1, c2, c3 = mma_tf32(z, z, z, z, a0, a1, a2, a3, b0, b1)
    store_fragment(arena, t, c0, c1, c2, c3)


@cuda.jit
def product_bf16(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """(16, 8) = (16, 16) by (8, 16) transposed + 1, of bfloat16 in pairs."""
    a_tile = cuda.shared.array(128, float32, 128)
    b_tile = cuda.shared.array(128, float32, 128)  # twice the same
    t = int32(cuda.threadIdx.x)
    copy16(a_tile, uint32(4 * t), params, uint32(4 * t), True)
    copy16(b_tile, uint32(4 * t), params, uint32(128 + 4 * (t % 16)), t < at)
    commit()
    all_arrived()
    sync_warp()
    a0, a1, a2, a3 = matrices(a_tile, uint32((t % 16) * 8 + (t // 16) * 4))
    b0, b1, _, _ = matrices(b_tile, uint32((t % 8) * 8 + (t // 8 % 2) * 4))
    z = float32(1)
    c0, c1, c2, c3 = mma_bf16(z, z, z, z, a0, a1, a2, a3, b0, b1)
    store_fragment(arena, t, c0, c1, c2, c3)


@cuda.jit
def product_turned(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """(16, 8) = (16, 16) transposed by (16, 8), of bfloat16 in pairs along the other axis."""
    a_tile = cuda.shared.array(128, float32, 128)
    b_tile = cuda.shared.array(128, float32, 128)  # twice the same
    t = int32(cuda.threadIdx.x)
    copy16(a_tile, uint32(4 * t), params, uint32(4 * t), True)
    copy16(b_tile, uint32(4 * t), params, uint32(128 + 4 * (t % 16)), t < at)
    commit()
    all_arrived()
    sync_warp()
    k, unit = t % 8 + 8 * (t // 16), t // 8 % 2
    a0, a1, a2, a3 = matrices_across(a_tile, uint32(k * 8 + unit * 4))
    b0, b1, _, _ = matrices_across(b_tile, uint32(4 * (t % 16)))
    z = float32(0)
    c0, c1, c2, c3 = mma_bf16(z, z, z, z, a0, a1, a2, a3, b0, b1)
    store_fragment(arena, t, c0, c1, c2, c3)


@cuda.jit
def wrong(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """What no kernel may do: `at` says what."""
    t = int32(cuda.threadIdx.x)
    if at == 0:
        if t < 9:
            sync_warp()
        else:
            shuffle(float32(0), 0)
    elif at == 1:
        if t < 9:
            sync_warp()
    elif at == 2:
        shuffle_xor(float32(0), 32)
    else:
        load4(params, uint32(2 + 4 * t))


WRONG = ("diverging", "absent", "far", "crooked")


def bits_of(values: np.ndarray, kept: int, *, away: bool = False) -> np.ndarray:
    """Values with so many bits behind the point, by arithmetic: half to even, or away from zero."""
    fraction, exponent = np.frexp(values.astype(np.float64))
    large = fraction * 2.0 ** (kept + 1)
    whole = np.trunc(large + np.copysign(0.5, large)) if away else np.round(large)
    return np.ldexp(whole / 2.0 ** (kept + 1), exponent)


def paired(values: np.ndarray) -> np.ndarray:
    """Values that bfloat16 holds, two to a word."""
    halves = values.astype(np.float32).view(np.uint32) >> 16
    return (halves[..., ::2] | (halves[..., 1::2] << 16)).astype(np.uint32).view(np.float32)


def launch(kernel: object, out: np.ndarray, given: np.ndarray, at: int) -> np.ndarray:
    kernel[(1, 1, 1), WARP](out, given.reshape(-1), np.zeros(4, np.int32), np.int32(at))  # type: ignore[index]
    return out


def differences(seed: int) -> Iterator[tuple[str, float]]:
    """The largest difference of each kernel from NumPy."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-99, 99, WARP).astype(np.float32)
    lane = np.arange(WARP)
    found = launch(lanes, np.concatenate([x, np.zeros(96, np.float32)]), x, 0).reshape(-1, 4)
    wanted = np.stack(
        [x[np.where(lane < 29, lane + 3, lane)], x[lane ^ 5], np.full(32, x.sum()), x[[7] * 32]], 1
    )
    yield "lanes", float(np.abs(found - wanted).max())

    x = (rng.normal(size=(WARP, 4)) * 10.0 ** rng.integers(-20, 20, (WARP, 4))).astype(np.float32)
    found = launch(rounded, np.zeros(8 * WARP, np.float32), x, 0).reshape(-1, 8)
    apart = np.abs(found[:, :4] / bits_of(x, 10, away=True) - 1).max()
    yield "as_tf32", float(apart)
    same = found[:, 4:6].view(np.uint32) == paired(bits_of(x, 7)).view(np.uint32)
    yield "as_bf16", float(1 - same.mean())
    yield "load4", float(np.abs(found[:, 6] - x[:, 0]).max())
    wanted = paired(np.maximum(bits_of(x[:, :2], 7), bits_of(x[:, 2:], 7))).view(np.uint32)
    yield "larger_bf16", float(1 - (found[:, 7:].view(np.uint32) == wanted).mean())
    x[0, 1] = x[1, 2] = np.nan
    found = launch(rounded, np.zeros(8 * WARP, np.float32), x, 0).reshape(-1, 8)
    wanted[0], wanted[1] = wanted[0] & 0xFFFF | 0x7FFF0000, wanted[1] & 0xFFFF0000 | 0x7FFF
    yield "larger_bf16, NaN", float(1 - (found[:, 7:].view(np.uint32) == wanted).mean())

    a, b = rng.normal(size=(16, 8)), rng.normal(size=(8, 8))
    a, b = bits_of(a, 10), bits_of(b, 10)
    given = np.concatenate([a.ravel(), b.ravel()]).astype(np.float32)
    for there, right in ((32, b), (0, 0 * b)):
        found = launch(product_tf32, np.full(128, np.nan, np.float32), given, there)
        yield f"product_tf32 {there}", float(np.abs(found.reshape(16, 8) - a @ right.T).max())

    a, b = bits_of(rng.normal(size=(16, 16)), 7), bits_of(rng.normal(size=(8, 16)), 7)
    given = np.concatenate([paired(a).ravel(), paired(b).ravel()])
    found = launch(product_bf16, np.full(128, np.nan, np.float32), given, 32)
    yield "product_bf16", float(np.abs(found.reshape(16, 8) - (1 + a @ b.T)).max())

    a, b = bits_of(rng.normal(size=(16, 16)), 7), bits_of(rng.normal(size=(16, 8)), 7)
    given = np.concatenate([paired(a).ravel(), paired(b).ravel()])
    found = launch(product_turned, np.full(128, np.nan, np.float32), given, 32)
    yield "product_turned", float(np.abs(found.reshape(16, 8) - a.T @ b).max())


def main() -> None:
    from simulated import poisonous

    poisonous()
    if sys.argv[1] == "wrong":
        launch(wrong, np.zeros(9, np.float32), np.zeros(256), WRONG.index(sys.argv[2]))
    else:
        print(json.dumps(dict(differences(int(sys.argv[1])))))


if __name__ == "__main__":
    main()
