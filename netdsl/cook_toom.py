"""The matrices of Winograd's convolutions, by Cook and Toom's construction, exactly.

m outputs of a filter of r taps take m + r - 1 products: Y = A [(G g) * (B d)], where g are the
taps, d the m + r - 1 inputs and * goes element by element (Lavin and Gray 2016, arXiv:1509.09308).
In two dimensions every matrix stands on both sides: A [(G g G') * (B d B')] A'.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import prod
from typing import NamedTuple

Matrix = tuple[tuple[Fraction, ...], ...]


# Pairs +-p of points beside infinity for so many inputs, and beside 0 where inputs are even, by the
# error measured over eighths: the usual 1 and 2 double that of F(4x4, 3x3). All constants but the
# filters' are exact in single precision.
POINTS = {
    3: (Fraction(1),),
    4: (Fraction(1),),
    5: (Fraction(1, 2), Fraction(5, 4)),
    6: (Fraction(5, 8), Fraction(3, 2)),
    7: (Fraction(1, 4), Fraction(7, 8), Fraction(13, 8)),
    8: (Fraction(1, 2), Fraction(1), Fraction(2)),
}


class Matrices(NamedTuple):
    """A (outputs, inputs), G (inputs, taps), B (inputs, inputs)."""

    output: Matrix
    filter: Matrix
    input: Matrix


@cache
def matrices(outputs: int, taps: int) -> Matrices:
    """The exact matrices of a size. The last row of G and B, and column of A, is infinity's."""
    finite = outputs + taps - 2
    pairs = [s * p for p in POINTS[finite + 1] for s in (1, -1)]
    return cook_toom(outputs, taps, [*[Fraction(0)] * (finite - len(pairs)), *pairs])


def cook_toom(outputs: int, taps: int, points: list[Fraction]) -> Matrices:
    """The matrices for these finite points, of which there must be outputs + taps - 2."""
    assert len(points) == outputs + taps - 2
    ends = tuple((*(p**i for p in points), Fraction(int(i == outputs - 1))) for i in range(outputs))
    filters = []
    inputs = []
    for point in points:
        others = [p for p in points if p != point]
        scale = prod((point - p for p in others), start=Fraction(1))
        filters.append(tuple(point**i / scale for i in range(taps)))
        inputs.append((*_expanded(others), Fraction(0)))
    filters.append(tuple(Fraction(int(i == taps - 1)) for i in range(taps)))
    inputs.append(tuple(_expanded(points)))
    return Matrices(ends, tuple(filters), tuple(inputs))


def _expanded(roots: list[Fraction]) -> list[Fraction]:
    """The coefficients of (x - r0)(x - r1)..., the constant first."""
    found = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *found]
        found = [a - root * b for a, b in zip(shifted, [*found, Fraction(0)], strict=True)]
    return found
