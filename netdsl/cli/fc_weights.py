"""`--fc-weights`: the flag, and what is said of its cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console

if TYPE_CHECKING:
    from netdsl.runner import Runner

FcWeights = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="KIND",
        help="What fully connected layers' weights are kept in: fp32, bf16 or int8. Default: as "
        "the precision says.",
    ),
]


def say_rounding(runner: Runner, fc_weights: str | None) -> None:
    """Says on standard error by how much weights of fully connected layers are off, where they
    were asked for in fewer bits."""
    from netdsl.cpu import Plan

    if fc_weights in (None, "fp32") or not isinstance(runner.plan, Plan):
        return
    off = ", ".join(f"{name} {error:.2%}" for name, error in runner.plan.rounding.items())
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"weights rounded to {fc_weights} are off by, in root mean square: {off}"
        if off
        else f"{runner.graph.name} has no fully connected layer: --fc-weights changes nothing",
        style="yellow",
    )
