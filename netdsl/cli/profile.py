"""`netdsl run --profile`: where the time goes, a row a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netdsl.cost.sheet import Column, Sheet
from netdsl.cost.tables import show_sheet

if TYPE_CHECKING:
    from netdsl.runner import Arrays, Profiled

REPEATS = 5

COLUMNS = (
    Column("layer"),
    Column("op"),
    Column("ms", lambda ms: f"{ms:.3f}", right=True, bar=True),
    Column("GFLOP/s", lambda rate: f"{rate:.1f}", right=True),
    Column("way"),
)


def show_profile(plan: Profiled, inputs: Arrays, computed_in: str) -> None:
    """Times a plan's steps on a batch and prints a row each, with its share of the whole.

    computed_in: what the plan computes in, in words.
    """
    timings = plan.profile(inputs, REPEATS)
    rows = tuple((t.name, t.word, t.ms, _rate(t.macs, t.ms), t.way or None) for t in timings)
    ms, macs = sum(t.ms for t in timings), sum(t.macs for t in timings)
    samples = "1 sample" if plan.batch == 1 else f"{plan.batch} samples"
    notes = (f"The median of {REPEATS} runs of {samples}; a FLOP is half a multiply-add.",)
    total = ("total", None, ms, _rate(macs, ms), None)
    show_sheet(Sheet(f"time by layer, {computed_in}", COLUMNS, rows, (total,), notes))


def _rate(macs: int, ms: float) -> float | None:
    """10^9 floating-point operations a second; None for a layer without multiply-adds."""
    return 2 * macs / ms / 1e6 if macs and ms else None
