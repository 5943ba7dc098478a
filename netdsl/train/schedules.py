"""Learning rate schedules (lecture 10): a factor of the base rate for every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi

from netdsl.faults import error

Factor = Callable[[float, "Schedule"], float]


@dataclass(frozen=True)
class Schedule:
    """How the learning rate moves over `steps` steps.

    kind: "constant"; "step" (times `gamma` at each share of the run in `milestones`); "cosine"
    and "linear" (down to 0 at the end); "rsqrt" (1/sqrt of the steps, flat during the first).
    warmup: steps at the start in which the factor climbs from near 0 to where the schedule is.
    """

    kind: str = "constant"
    steps: int = 1
    warmup: int = 0
    gamma: float = 0.1
    milestones: tuple[float, ...] = (0.5, 0.75)

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULES:
            raise error(
                "unknown-schedule",
                f"there is no schedule {self.kind!r}",
                help="one of " + ", ".join(SCHEDULES),
            )

    def __call__(self, step: int) -> float:
        """The factor at a step, the first is 0."""
        if step < self.warmup:
            return SCHEDULES[self.kind](0.0, self) * (step + 1) / self.warmup
        run = max(self.steps - self.warmup, 1)
        return SCHEDULES[self.kind](min((step - self.warmup) / run, 1.0), self)


def _rsqrt(done: float, how: Schedule) -> float:
    start = max(how.warmup, 1)
    run = max(how.steps - how.warmup, 1)
    return float((start / (start + done * run)) ** 0.5)


SCHEDULES: dict[str, Factor] = {
    "constant": lambda done, how: 1.0,
    "step": lambda done, how: how.gamma ** sum(done >= at for at in how.milestones),
    "cosine": lambda done, how: 0.5 * (1.0 + cos(pi * done)),
    "linear": lambda done, how: 1.0 - done,
    "rsqrt": _rsqrt,
}
"""Each kind of schedule as a function of the share of the run that is done."""
