"""Timing engines in turn, so that what disturbs one for a while disturbs all.

An engine's threads go on spinning for some milliseconds after its run, and would slow the next
one: hence the pause before each turn, and the run after it that does not count.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

from netdsl.bench.quiet import Watch

ROUNDS = 12
BURST = 0.03
"""Seconds of a turn, about, and at most LONGEST runs."""
LONGEST = 20


@dataclass(frozen=True)
class Times:
    """Milliseconds of one run."""

    least: float
    middle: float

    @classmethod
    def of(cls, seconds: list[float]) -> Times:
        return cls(1000 * min(seconds), 1000 * median(seconds))


Clock = Callable[[], float]


def rounds(
    runs: Mapping[str, Callable[[], Any]],
    count: int,
    watch: Watch,
    *,
    clock: Clock = perf_counter,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Times]:
    """The times of each run over some rounds; every round begins with another.

    watch: pauses before each turn. clock: gives seconds. advance: called after each round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    gc.collect()
    for i in range(count):
        at = i % len(names)
        for name in names[at:] + names[:at]:
            watch.pause()
            seconds[name] += turn(runs[name], clock)
        advance()
    return {name: Times.of(found) for name, found in seconds.items()}


def turn(run: Callable[[], Any], clock: Clock) -> list[float]:
    """The seconds of some runs after one that does not count."""
    first = timed(run, clock)
    more = max(1, min(LONGEST, int(BURST / max(first, 1e-6))))
    return [timed(run, clock) for _ in range(more)]


def timed(run: Callable[[], Any], clock: Clock) -> float:
    start = clock()
    run()
    return clock() - start
