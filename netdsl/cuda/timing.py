"""How long each step of a plan takes on the card, by the card's own clock."""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from netdsl.cuda import launch
from netdsl.cuda.sizes import SIMULATED
from netdsl.graph.timing import Timing

if TYPE_CHECKING:
    from netdsl.cuda.plan import Plan

AHEAD = 2
"""Whole runs that are started before a run is timed: the card is busy with them while the timed
launches are handed over, and so does not wait between those."""


def timed(plan: Plan, repeats: int) -> list[Timing]:
    """The time of each step over `repeats` runs on what the arena holds."""
    steps = [
        [(launch.configured(call, plan.stream), np.int32(call.at)) for call in step.calls]
        for step in plan.steps
    ]
    arguments = (plan.arena, plan.params, plan.ints)
    found: list[list[float]] = [[] for _ in plan.steps]
    for _ in range(repeats):
        for _ in range(AHEAD):
            plan.start()
        marks = [mark(plan.stream)]
        for calls in steps:
            for kernel, at in calls:
                kernel(*arguments, at)
            marks.append(mark(plan.stream))
        plan.stream.synchronize()
        for times, one, two in zip(found, marks[:-1], marks[1:], strict=True):
            times.append(between(one, two))
    return [
        Timing(step.name, step.word, step.macs * plan.batch, median(times), min(times))
        for step, times in zip(plan.steps, found, strict=True)
    ]


def mark(stream: Any) -> Any:
    """The time when the stream comes here; in the simulator it is there at once."""
    if SIMULATED:
        return perf_counter()
    mark = launch.event(timed=True)
    mark.record(stream)
    return mark


def between(one: Any, two: Any) -> float:
    """Milliseconds from one mark to another."""
    if SIMULATED:
        return 1000 * float(two - one)
    return float(one.elapsed_time(two))
