"""Plans in which no tensor stays packed, for those in which some do to be compared with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from netdsl.cuda import plan
from netdsl.cuda.backward import making
from netdsl.cuda.packing import NEVER, decide


@contextmanager
def each_packs_for_itself() -> Iterator[None]:
    """Plans that are made within the block are such."""
    plan.decide = lambda graph, held, precision, packs: decide(
        graph, held, precision, lambda node: NEVER
    )
    try:
        yield
    finally:
        plan.decide = decide


@contextmanager
def each_packs_in_training() -> Iterator[None]:
    """Plans of training that are made within the block keep nothing packed."""
    copies_of = making.copies_of
    making.copies_of = lambda *given: None  # type: ignore[assignment, return-value]
    try:
        yield
    finally:
        making.copies_of = copies_of
