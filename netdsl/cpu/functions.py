"""exp and its kin on 16 floats at once, within a few units in the last place.

exp takes x = n ln 2 + r apart, so that exp(x) = 2^n exp(r) with |r| <= ln(2)/2, and a polynomial
does the rest. All polynomials are our own least-squares fits at Chebyshev nodes.
"""

from __future__ import annotations

import numpy as np

from netdsl.cpu.lanes import (
    estimable,
    magnitude,
    muladd,
    root_estimate,
    scale_by_power,
    splat,
    sqrt,
    where_less,
    with_sign,
)
from netdsl.cpu.late import njit

LOG2_E = np.float32(1.44269504)
LN2_HIGH = np.float32(0.693359375)  # few enough bits that n times it is exact
LN2_LOW = np.float32(-2.12194440e-4)
SHIFT = np.float32(1.5 * 2.0**23)  # adding it rounds to an integer, in the lowest bits
ROOT_HALF = np.float32(0.707106781)
ROOT_TWO_OVER_PI = np.float32(0.797884561)


@njit(forceinline=True)
def reduced(x):  # type: ignore[no-untyped-def]
    """exp(r) - 1 and the shifted n of x = n ln 2 + r."""
    x = where_less(x, -104.0, -104.0, x)
    x = where_less(89.0, x, 89.0, x)
    shifted = muladd(x, LOG2_E, SHIFT)
    n = shifted - SHIFT
    r = muladd(n, -LN2_LOW, muladd(n, -LN2_HIGH, x))
    q = splat(np.float32(0.00139337336))
    q = muladd(q, r, 0.00836323574)
    q = muladd(q, r, 0.041666463)
    q = muladd(q, r, 0.166665763)
    q = muladd(q, r, 0.5)
    return muladd(r * r, q, r), shifted


@njit(forceinline=True)
def exp(x):  # type: ignore[no-untyped-def]
    """e to the x; 0 and inf where it leaves the range."""
    less_one, shifted = reduced(x)
    return scale_by_power(less_one + 1.0, shifted)


@njit(forceinline=True)
def exp_less_one(x):  # type: ignore[no-untyped-def]
    """e^x - 1, exact also near 0."""
    less_one, shifted = reduced(x)
    one = splat(np.float32(1.0))
    return scale_by_power(less_one, shifted) + (scale_by_power(one, shifted) - 1.0)


@njit(forceinline=True)
def sigmoid(x):  # type: ignore[no-untyped-def]
    """1 / (1 + e^-x)"""
    return 1.0 / (exp(0.0 - x) + 1.0)


@njit(forceinline=True)
def tanh(x):  # type: ignore[no-untyped-def]
    """The hyperbolic tangent: a polynomial near 0, by exp elsewhere."""
    a = magnitude(x)
    s = x * x
    q = splat(np.float32(-0.00605369732))
    q = muladd(q, s, 0.0209681876)
    q = muladd(q, s, -0.0538449883)
    q = muladd(q, s, 0.133327335)
    q = muladd(q, s, -0.333333284)
    near = muladd(x * s, q, x)
    far = with_sign(1.0 - 2.0 / (exp(a + a) + 1.0), x)
    return where_less(a, 0.625, near, far)


@njit(forceinline=True)
def erfc(a):  # type: ignore[no-untyped-def]
    """1 - erf(a) for a >= 0: a polynomial below 1, e^-polynomial above."""
    s = a * a
    p = splat(np.float32(7.88249672e-05))
    p = muladd(p, s, -0.000801885501)
    p = muladd(p, s, 0.00518931216)
    p = muladd(p, s, -0.0268543288)
    p = muladd(p, s, 0.112835974)
    p = muladd(p, s, -0.37612626)
    p = muladd(p, s, 1.12837911)
    c = where_less(4.2, a, 4.2, a)
    t = splat(np.float32(-1.52557516e-06))
    t = muladd(t, c, 4.38532443e-05)
    t = muladd(t, c, -0.000578239618)
    t = muladd(t, c, 0.00467275176)
    t = muladd(t, c, -0.0261748135)
    t = muladd(t, c, 0.109647073)
    t = muladd(t, c, 0.632286012)
    t = muladd(t, c, 1.12996387)
    t = muladd(t, c, -0.000253407372)
    return where_less(a, 1.0, 1.0 - a * p, where_less(4.2, a, 0.0, exp(0.0 - t)))


@njit(forceinline=True)
def gelu(x):  # type: ignore[no-untyped-def]
    """x times the normal distribution of x."""
    tail = 0.5 * erfc(magnitude(x) * ROOT_HALF)
    return x * where_less(x, 0.0, tail, 1.0 - tail)


@njit(forceinline=True)
def gelu_tanh(x):  # type: ignore[no-untyped-def]
    """gelu with tanh(sqrt(2/pi) (x + 0.044715 x^3)) in place of the error function."""
    inner = ROOT_TWO_OVER_PI * muladd(x * x * x, 0.044715, x)
    return 0.5 * x * (tanh(inner) + 1.0)


@njit(forceinline=True)
def three_quarters(x):  # type: ignore[no-untyped-def]
    """x to the power of -3/4, within two units in the last place.

    An estimate p is within 2^-9 or so; where e = 1 - x^3 p^4, what is wanted is p (1 - e)^(-1/4).
    """
    if not estimable(x):
        root = sqrt(x)
        return 1.0 / (root * sqrt(root))
    root = root_estimate(x)
    p = root * root_estimate(root) * root
    fourth = x * p
    e = muladd(fourth * fourth, fourth * p * np.float32(-1.0), 1.0)
    return muladd(p * e, muladd(e, np.float32(5 / 32), np.float32(0.25)), p)
