"""How large a file and its net may be, so that no text can run the machine over."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """The largest of everything. The last six guard the reader itself and are never lifted."""

    file: int = 1 << 20
    """bytes of a file"""
    tokens: int = 50_000
    """words, numbers and signs of a file"""
    nodes: int = 100_000
    """steps of the net, each op, join and `id` of each repeat and call"""
    repeats: int = 10_000
    """of one step"""
    number: int = 1 << 20
    """a kernel's, stride's, padding's or dilation's size"""
    elements: int = 1 << 31
    """of one tensor, and of an input"""
    activations: int = 1 << 36
    """bytes of all tensors of one sample together, in single precision"""
    parameters: int = 10**11
    """of the whole net"""

    text: int = 10_000
    """characters of one word or string"""
    digits: int = 18
    """of a whole number"""
    nesting: int = 50
    """brackets within brackets"""
    depth: int = 100
    """brackets and calls within each other, when blocks are expanded"""
    parameters_of_a_block: int = 100
    faults: int = 100
    """after so many, reading stops"""


DEFAULT = Limits()

LIFTED = Limits(
    file=1 << 62,
    tokens=1 << 62,
    nodes=1 << 62,
    repeats=1 << 62,
    number=(1 << 31) - 1,
    elements=1 << 62,
    activations=1 << 80,
    parameters=1 << 80,
)
"""What `limits=None` and --no-limits mean: as much as the machine can bear."""
