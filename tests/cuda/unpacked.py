"""Plans in which no tensor stays packed, for those in which some do to be compared with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from netdsl.cuda import plan
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
