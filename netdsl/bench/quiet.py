"""Whether the machine has time for us: what others take of it while we sleep."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic, sleep

STEP = 0.05
"""Seconds of one look."""

QUIET = 0.15
"""Share of the cores that others may take without being waited for."""


class Watch:
    """Sleeps before turns, and notes how busy others were meanwhile.

    patience: seconds in all that it waits longer for others to be done. Where the kernel does not
    say (no /proc/stat), it sleeps and knows nothing.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.seen: list[float] = []

    def pause(self) -> None:
        """Sleeps a step, and further steps while others are busy and there is patience."""
        share = look()
        while share is not None and share > QUIET and self.patience > 0:
            start = monotonic()
            share = look()
            self.patience -= monotonic() - start
        if share is not None:
            self.seen.append(share)

    @property
    def busy(self) -> float | None:
        """The share of the cores, 0 to 1, that others took right before our turns, on average."""
        return sum(self.seen) / len(self.seen) if self.seen else None


def look() -> float | None:
    """The share of the cores in use during a short sleep of ours."""
    # Our own threads may go on spinning for a while; they are waited out first.
    sleep(STEP)
    before, start = _used(), monotonic()
    sleep(STEP)
    after, seconds = _used(), monotonic() - start
    if before is None or after is None:
        return None
    return min(1.0, (after - before) / seconds / (os.cpu_count() or 1))


def _used() -> float | None:
    """Seconds that all cores together have worked since the machine started."""
    try:
        numbers = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        user, nice, system, _, _, irq, soft, steal = map(int, numbers[:8])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
