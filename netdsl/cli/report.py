"""`netdsl report`: a net's costs as one HTML page."""

from __future__ import annotations

from typing import Annotated

import typer

from netdsl.cli.cost import NoLimits, Texts, graphs
from netdsl.faults import error


def report(
    net: Annotated[str, typer.Argument(metavar="NET", help="A zoo name or a .net file.")] = "",
    text: Texts = [],  # noqa: B006
    out: Annotated[
        str, typer.Option("-o", "--out", metavar="FILE", help="An .html file.")
    ] = "report.html",
    batch: Annotated[int, typer.Option(help="Samples at once.")] = 1,
    dtype: Annotated[
        str, typer.Option(help="float32, float16, bfloat16, float64 or int8.")
    ] = "float32",
    no_limits: NoLimits = False,
) -> None:
    """One self-contained page: the graph, charts, a table to sort, notes."""
    from netdsl.cost import count
    from netdsl.draw.report import save_report

    found = graphs([net] if net else [], text, no_limits)
    if len(found) > 1:
        raise error("two-nets", "report takes one net")
    save_report(count(found[0], batch, dtype), out)
    print(f"wrote {out}")
