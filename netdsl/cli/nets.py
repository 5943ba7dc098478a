"""`netdsl nets`: the nets that ship with the package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from netdsl.cost import Cost


def nets(
    json: Annotated[bool, typer.Option("--json", help="A JSON list, an object a net.")] = False,
) -> None:
    """List the zoo: year, error rate, parameters and multiply-adds."""
    from netdsl import resources
    from netdsl.cost import count
    from netdsl.find import graph_of

    found = [_facts(name, count(graph_of(name))) for name in resources.zoo()]
    if json:
        from json import dumps

        print(dumps(found, indent=2, ensure_ascii=False))
        return
    _show(found)


def _facts(name: str, cost: Cost) -> dict[str, Any]:
    meta = cost.graph.meta
    return {
        "net": name,
        "year": meta.get("year"),
        "top5_error": meta.get("top5_error"),
        "input": [list(shape) for shape in cost.inputs.values()],
        "params": cost.params,
        "macs": cost.macs,
        "paper": meta.get("paper"),
    }


def _show(found: list[dict[str, Any]]) -> None:
    from netdsl.cost.sheet import Column, Sheet, number
    from netdsl.cost.tables import show_sheet
    from netdsl.ops import show

    columns = (
        Column("net"),
        Column("year", right=True),
        Column("top-5 error", lambda error: f"{error:g}%", right=True),
        Column("input"),
        Column("parameters", number, right=True),
        Column("MACs", number, right=True),
    )
    rows = tuple(
        (
            one["net"],
            one["year"],
            one["top5_error"],
            " and ".join(show(tuple(shape)) for shape in one["input"]),
            one["params"],
            one["macs"],
        )
        for one in found
    )
    note = (
        "top-5 error on ILSVRC's pictures, as published. `netdsl cost NET` shows a net by layer, "
        "`netdsl run NET` runs it."
    )
    show_sheet(Sheet(f"{len(rows)} nets", columns, rows, notes=(note,)))
