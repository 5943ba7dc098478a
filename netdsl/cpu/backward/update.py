"""The optimisers' updates, each one pass over the weights.

All parameters lie in one flat vector, so do their gradients and each optimiser's slots. `decay`
holds the weight decay of each block of 16 elements (a parameter begins on a new block), so that
norms and biases can go without. `scale` multiplies the gradient first (clipping). Each thread takes
a whole stretch of blocks, and no sum crosses elements, so the result does not depend on threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, prange

from netdsl.cpu.cache import cache_for

BLOCK = 16


def _parallel(function: Callable[..., Any]) -> Any:
    """Compiles a kernel whose loop over `parts` runs in threads; kept in our cache."""
    compiled = njit(parallel=True, fastmath={"contract"}, error_model="numpy")(function)
    compiled._cache = cache_for(function)
    return compiled


@njit(forceinline=True)
def _stretch(blocks: int, part: int, parts: int) -> tuple[int, int]:
    """The elements from and to that part `part` of `parts` takes."""
    return blocks * part // parts * BLOCK, blocks * (part + 1) // parts * BLOCK


@_parallel
def descend(w, g, decay, scale, rate, parts):  # type: ignore[no-untyped-def]
    """w <- w - rate (g + decay w)"""
    for part in prange(parts):
        start, end = _stretch(len(decay), part, parts)
        for i in range(start, end):
            w[i] -= rate * (g[i] * scale + decay[i >> 4] * w[i])


@_parallel
def momentum(w, g, v, decay, scale, rate, keep, nesterov, parts):  # type: ignore[no-untyped-def]
    """v <- keep v + g, then w <- w - rate v; Nesterov's looks ahead: rate (g + keep v)."""
    ahead = np.float32(keep if nesterov else 0.0)
    at = np.float32(1.0 if nesterov else 0.0)
    for part in prange(parts):
        start, end = _stretch(len(decay), part, parts)
        for i in range(start, end):
            d = g[i] * scale + decay[i >> 4] * w[i]
            speed = keep * v[i] + d
            v[i] = speed
            w[i] -= rate * (at * d + ahead * speed + (np.float32(1.0) - at) * speed)


@_parallel
def adagrad(w, g, s, decay, scale, rate, eps, parts):  # type: ignore[no-untyped-def]
    """s <- s + g^2, w <- w - rate g / (sqrt(s) + eps)"""
    for part in prange(parts):
        start, end = _stretch(len(decay), part, parts)
        for i in range(start, end):
            d = g[i] * scale + decay[i >> 4] * w[i]
            square = s[i] + d * d
            s[i] = square
            w[i] -= rate * d / (np.sqrt(square) + eps)


@_parallel
def rmsprop(w, g, s, decay, scale, rate, keep, eps, parts):  # type: ignore[no-untyped-def]
    """s <- keep s + (1 - keep) g^2, w <- w - rate g / (sqrt(s) + eps)"""
    fresh = np.float32(1.0) - keep
    for part in prange(parts):
        start, end = _stretch(len(decay), part, parts)
        for i in range(start, end):
            d = g[i] * scale + decay[i >> 4] * w[i]
            square = keep * s[i] + fresh * d * d
            s[i] = square
            w[i] -= rate * d / (np.sqrt(square) + eps)


@_parallel
def adam(w, g, m, s, decay, scale, rate, keep, keep2, unbias, unbias2, eps, apart, parts):  # type: ignore[no-untyped-def]
    """Adam; `apart`: the decay leaves the moments alone (AdamW). unbias = 1 / (1 - keep^t)."""
    one = np.float32(1.0)
    inside, outside = (np.float32(0.0), one) if apart else (one, np.float32(0.0))
    for part in prange(parts):
        start, end = _stretch(len(decay), part, parts)
        for i in range(start, end):
            pull = decay[i >> 4] * w[i]
            d = g[i] * scale + inside * pull
            first = keep * m[i] + (one - keep) * d
            second = keep2 * s[i] + (one - keep2) * d * d
            m[i] = first
            s[i] = second
            w[i] -= rate * (first * unbias / (np.sqrt(second * unbias2) + eps) + outside * pull)


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
def gather(params, start, places, parts):  # type: ignore[no-untyped-def]
    """params[start + i] <- params[places[i]], 0 where the place is -1."""
    for part in prange(parts):
        for i in range(len(places) * part // parts, len(places) * (part + 1) // parts):
            at = places[i]
            params[start + i] = params[at] if at >= 0 else np.float32(0.0)
