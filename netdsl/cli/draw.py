"""`netdsl draw`: a picture of a net's graph."""

from __future__ import annotations

from typing import Annotated

import typer

from netdsl.cli.cost import NoLimits, Texts, graphs
from netdsl.faults import error


def draw(
    net: Annotated[str, typer.Argument(metavar="NET", help="A zoo name or a .net file.")] = "",
    text: Texts = [],  # noqa: B006
    out: Annotated[
        str, typer.Option("-o", "--out", metavar="FILE", help="A .svg, .png or .html file.")
    ] = "",
    opened: Annotated[
        list[str],
        typer.Option("--open", metavar="BLOCK", help="Show this block from within, in its place."),
    ] = [],  # noqa: B006
    everything: Annotated[bool, typer.Option("--all", help="Fold no block.")] = False,
    no_limits: NoLimits = False,
) -> None:
    """A picture of the graph with shapes and costs: blocks folded, and each kind of block beside.

    Branches lie side by side. Bars show what a box costs.
    """
    from netdsl.cost import count
    from netdsl.draw import save
    from netdsl.formats.atomic import called

    found = graphs([net] if net else [], text, no_limits)
    if len(found) > 1:
        raise error("two-nets", "draw takes one net")
    cost = count(found[0])
    file = out or str(called(cost.net, ".svg"))
    save(cost, file, None if everything else frozenset(opened))
    print(f"wrote {file}")
