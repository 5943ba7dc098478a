"""Divisions by way of products."""

from __future__ import annotations

import random

from netdsl.cuda.arith import MOST, reciprocal


def test_a_product_with_the_reciprocal_is_the_quotient() -> None:
    """At the ends of the range, and around multiples, where a rounding would show first."""
    draw, most = random.Random(), MOST - 1
    for b in [*range(1, 600), *(draw.randrange(1, most) for _ in range(2000)), most]:
        multiplier, shift = reciprocal(b)
        assert 0 < multiplier < 1 << 31
        highest = most // b
        for times in (0, 1, draw.randint(0, highest), highest):
            for a in (b * times - 1, b * times, b * times + 1, most):
                if 0 <= a <= most:
                    assert (a * multiplier >> 30) >> shift == a // b, (a, b)
