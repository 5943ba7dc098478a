"""`netdsl compare`: nets side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from netdsl.cli.cost import Nets, NoLimits, Texts, graphs, print_json, print_sheets
from netdsl.faults import error


def compare(
    nets: Nets = [],  # noqa: B006
    text: Texts = [],  # noqa: B006
    batch: Annotated[int, typer.Option(help="Samples at once.")] = 1,
    plot: Annotated[
        str, typer.Option(metavar="FILE", help="Charts, to a .svg, .png or .pdf file.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Exact values for a spreadsheet.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="A Markdown table.")] = False,
    no_limits: NoLimits = False,
) -> None:
    """Nets side by side: memory, parameters, MACs, error and year, with ratios to the first."""
    from netdsl.cost import count
    from netdsl.cost.compare import compare_json, compare_sheet, layer_sheets

    costs = [count(graph, batch) for graph in graphs(nets, text, no_limits)]
    if len(costs) < 2:
        raise error("one-net", "compare takes two nets or more", help="netdsl cost takes one")
    if plot:
        from netdsl.cost.plot import save

        save(costs, plot)
    if json:
        print_json(compare_json(costs))
        return
    print_sheets([[compare_sheet(costs), *layer_sheets(costs)]], csv=csv, markdown=markdown)
