"""`netdsl cost`: what nets cost, layer by layer."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from netdsl.faults import error
from netdsl.graph import Graph


def cost(
    nets: Annotated[Optional[list[str]], typer.Argument(metavar="NET…")] = None,  # noqa: UP045
    text: Annotated[list[str], typer.Option("-e", metavar="TEXT", help="A net as text.")] = [],  # noqa: B006
    batch: Annotated[int, typer.Option(help="Samples at once.")] = 1,
    dtype: Annotated[str, typer.Option(help="What numbers are held in.")] = "float32",
    json: Annotated[bool, typer.Option("--json", help="A JSON list, an object a net.")] = False,
) -> None:
    """What nets cost: activation memory, parameters, multiply-adds, receptive fields."""
    from netdsl.cost import count

    costs = [count(graph, batch, dtype) for graph in graphs(nets or [], text)]
    if json:
        from json import dumps

        print(dumps([one.as_json() for one in costs], indent=2))
        return
    from netdsl.cost.tables import cost_sheet, show_sheet

    for at, one in enumerate(costs):
        if at:
            print()
        show_sheet(cost_sheet(one))


def graphs(nets: list[str], texts: list[str]) -> list[Graph]:
    """The graphs of names and paths, then of texts. Raises NetError, also when there are none."""
    from netdsl.find import graph_of, graph_of_text

    if not nets and not texts:
        raise error("no-net", "no net was given", help="a zoo name, a .net file, or -e TEXT")
    return [graph_of(name) for name in nets] + [graph_of_text(text) for text in texts]
