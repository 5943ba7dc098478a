"""`netdsl warm`: compiles ahead what runs will need."""

from __future__ import annotations

from time import perf_counter
from typing import Annotated

import typer

from netdsl.cli.cost import Nets, Texts
from netdsl.cli.fc_weights import FcWeights


def warm(
    nets: Nets = [],  # noqa: B006
    text: Texts = [],  # noqa: B006
    precision: Annotated[str, typer.Option(help="For runs in this: fp32 or bf16.")] = "fp32",
    fc_weights: FcWeights = None,
) -> None:
    """Compile ahead what runs of nets need, of the whole zoo unless nets are named."""
    from netdsl import find, resources
    from netdsl.cli.progress import bar
    from netdsl.runner import check_fc_weights, check_precision

    check_precision(precision, "cpu", exact=False)
    check_fc_weights(fc_weights, "cpu", exact=False)
    graphs = [*map(find.graph_of, nets), *map(find.graph_of_text, text)]
    graphs = graphs or list(map(find.graph_of, resources.zoo()))
    with bar("getting ready") as shown:
        shown.to(0, 1, "the compiler")
        from netdsl.cpu import cache
        from netdsl.cpu.arena import kernels
        from netdsl.cpu.launch import compile_all

        start = perf_counter()
        found = (k for graph in graphs for k in kernels(graph, precision, fc_weights))
        wanted = list(dict.fromkeys(found))
        compiled = compile_all(wanted, shown.to)
        seconds = perf_counter() - start
    of = graphs[0].name if len(graphs) == 1 else f"{len(graphs)} nets"
    done = f"{compiled} compiled in {seconds:.1f} s" if compiled else "all compiled before"
    typer.echo(f"{of}: {len(wanted)} kernels, {done}")
    kept = cache.size()
    if compiled and not kept:
        typer.echo(f"they cannot be kept in {cache.folder()}: the next run compiles them again")
    else:
        typer.echo(f"they lie in {cache.folder()}, {kept / 2**20:.1f} MiB")
