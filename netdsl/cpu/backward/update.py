"""The optimisers' updates, each one pass over the weights.

All parameters lie in one flat vector, so do their gradients and each optimiser's slots. `decay`
holds the weight decay of each block of 16 elements (a parameter begins on a new block), so that
norms and biases can go without. `scale` multiplies the gradient first (clipping). Each thread takes
a whole stretch of blocks, and no sum crosses elements, so the result does not depend on threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import prange
from numba.core import cgutils, types
from numba.extending import intrinsic

from netdsl.cpu import threads
from netdsl.cpu.lanes import load, muladd, sqrt, store
from netdsl.cpu.late import njit, real
from netdsl.cpu.numba_cache import cache_for

threads.tell_numba()

BLOCK = 16


def _parallel(function: Callable[..., Any]) -> Any:
    """Compiles a kernel whose loop over `parts` runs in threads; kept in our cache."""
    options = {"parallel": True, "fastmath": {"contract"}, "error_model": "numpy"}
    compiled = numba.njit(**options)(real(function))
    compiled._cache = cache_for(function)
    return compiled


@intrinsic
def pointer(typing: Any, array: Any) -> Any:
    """Where an array's numbers begin, for `load` and `store`."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0]).data

    return types.CPointer(array.dtype)(array), lower


@njit(forceinline=True)
def slope(w, g, i, decay, scale):  # type: ignore[no-untyped-def]
    """Sixteen of the gradient, clipped, with the weight decay."""
    fade = decay[i // BLOCK]
    return muladd(load(pointer(w), i), fade, load(pointer(g), i) * scale)


@njit(forceinline=True)
def move(w, i, way):  # type: ignore[no-untyped-def]
    """Takes `way` from sixteen weights."""
    store(pointer(w), i, load(pointer(w), i) - way)


@njit(forceinline=True)
def cut(blocks, part, parts):  # type: ignore[no-untyped-def]
    """Where the stretch of a thread begins; that of the next is its end."""
    return blocks * part // parts


@_parallel
def descend(w, g, decay, scale, rate, parts):  # type: ignore[no-untyped-def]
    """w <- w - rate (g + decay w)"""
    for part in prange(parts):
        for block in range(cut(len(decay), part, parts), cut(len(decay), part + 1, parts)):
            i = BLOCK * block
            move(w, i, slope(w, g, i, decay, scale) * rate)


@_parallel
def momentum(w, g, v, decay, scale, rate, keep, nesterov, parts):  # type: ignore[no-untyped-def]
    """v <- keep v + g, then w <- w - rate v; Nesterov's looks ahead: rate (g + keep v)."""
    for part in prange(parts):
        for block in range(cut(len(decay), part, parts), cut(len(decay), part + 1, parts)):
            i = BLOCK * block
            d = slope(w, g, i, decay, scale)
            speed = muladd(load(pointer(v), i), keep, d)
            store(pointer(v), i, speed)
            move(w, i, (muladd(speed, keep, d) if nesterov else speed) * rate)


@_parallel
def adagrad(w, g, s, decay, scale, rate, eps, parts):  # type: ignore[no-untyped-def]
    """s <- s + g^2, w <- w - rate g / (sqrt(s) + eps)"""
    for part in prange(parts):
        for block in range(cut(len(decay), part, parts), cut(len(decay), part + 1, parts)):
            i = BLOCK * block
            d = slope(w, g, i, decay, scale)
            square = muladd(d, d, load(pointer(s), i))
            store(pointer(s), i, square)
            move(w, i, d * rate / (sqrt(square) + eps))


@_parallel
def rmsprop(w, g, s, decay, scale, rate, keep, eps, parts):  # type: ignore[no-untyped-def]
    """s <- keep s + (1 - keep) g^2, w <- w - rate g / (sqrt(s) + eps)"""
    for part in prange(parts):
        for block in range(cut(len(decay), part, parts), cut(len(decay), part + 1, parts)):
            i = BLOCK * block
            d = slope(w, g, i, decay, scale)
            square = load(pointer(s), i) * keep + d * d * (np.float32(1.0) - keep)
            store(pointer(s), i, square)
            move(w, i, d * rate / (sqrt(square) + eps))


@_parallel
def adam(w, g, m, s, decay, scale, rate, keep, keep2, unbias, unbias2, eps, apart, parts):  # type: ignore[no-untyped-def]
    """Adam; `apart`: the decay leaves the moments alone (AdamW). unbias = 1 / (1 - keep^t)."""
    one = np.float32(1.0)
    for part in prange(parts):
        for block in range(cut(len(decay), part, parts), cut(len(decay), part + 1, parts)):
            i = BLOCK * block
            alone = load(pointer(g), i) * scale
            d = alone if apart else slope(w, g, i, decay, scale)
            first = load(pointer(m), i) * keep + d * (one - keep)
            second = load(pointer(s), i) * keep2 + d * d * (one - keep2)
            store(pointer(m), i, first)
            store(pointer(s), i, second)
            way = first * unbias / (sqrt(second * unbias2) + eps)
            if apart:
                way = muladd(load(pointer(w), i), decay[block], way)
            move(w, i, way * rate)


@_parallel
def square_sum(g):  # type: ignore[no-untyped-def]
    """The sum of squares in float64, in 64 fixed stretches: the same for any thread count."""
    sums = np.zeros(64)
    for part in prange(64):
        total = 0.0
        for i in range(len(g) * part // 64, len(g) * (part + 1) // 64):
            total += np.float64(g[i]) * np.float64(g[i])
        sums[part] = total
    return sums.sum()


@_parallel
def gather_blocks(params, start, bases, counts, stride, parts):  # type: ignore[no-untyped-def]
    """Blocks of 16: params[bases[b]], and on by `stride`, counts[b] of them, zeros after."""
    for part in prange(parts):
        for b in range(cut(len(bases), part, parts), cut(len(bases), part + 1, parts)):
            into, at, count = start + BLOCK * b, np.int64(bases[b]), counts[b]
            target, source = pointer(params), pointer(params)
            if count == BLOCK:
                for lane in range(BLOCK):
                    target[into + lane] = source[at + lane * stride]
            else:
                for lane in range(BLOCK):
                    found = source[at + lane * stride] if lane < count else np.float32(0.0)
                    target[into + lane] = found


@_parallel
def gather(params, start, places, parts):  # type: ignore[no-untyped-def]
    """params[start + i] <- params[places[i]], 0 where the place is -1."""
    for part in prange(parts):
        for i in range(len(places) * part // parts, len(places) * (part + 1) // parts):
            at = places[i]
            params[start + i] = params[at] if at >= 0 else np.float32(0.0)
