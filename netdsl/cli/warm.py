"""`netdsl warm`: compiles ahead what runs will need."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netdsl.cli.cost import Nets, Texts
from netdsl.cli.fc_weights import FcWeights
from netdsl.faults import error

if TYPE_CHECKING:
    from netdsl.graph import Graph
    from netdsl.runner import Progress


def warm(
    nets: Nets = [],  # noqa: B006
    text: Texts = [],  # noqa: B006
    precision: Annotated[
        str, typer.Option(help="For runs in this: fp32 or bf16; tf32 too on a card.")
    ] = "fp32",
    fc_weights: FcWeights = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda (for the card that is here), or auto.")
    ] = "cpu",
) -> None:
    """Compile ahead what runs of nets need, of the whole zoo unless nets are named."""
    from netdsl import find, resources
    from netdsl.cli.progress import bar
    from netdsl.net import check_settings, chosen

    check_settings(device, 1, None, precision=precision, fc_weights=fc_weights)
    if device == "reference":
        raise error("unknown-device", "the reference compiles nothing", help="cpu, cuda or auto")
    graphs = [*map(find.graph_of, nets), *map(find.graph_of_text, text)]
    graphs = graphs or list(map(find.graph_of, resources.zoo()))
    prepare = _for_card if chosen(device) == "cuda" else _for_processor
    with bar("getting ready") as shown:
        shown.to(0, 1, "the compiler")
        start = perf_counter()
        wanted, compiled, kept, folder = prepare(graphs, precision, fc_weights, shown.to)
        seconds = perf_counter() - start
    of = graphs[0].name if len(graphs) == 1 else f"{len(graphs)} nets"
    done = f"{compiled} compiled in {seconds:.1f} s" if compiled else "all compiled before"
    typer.echo(f"{of}: {wanted} kernels, {done}")
    if compiled and not kept:
        typer.echo(f"they cannot be kept in {folder}: the next run compiles them again")
    else:
        typer.echo(f"they lie in {folder}, {kept / 2**20:.1f} MiB")


Done = tuple[int, int, int, Path]
"""How many kernels are wanted, how many were compiled now, the bytes kept, and where."""


def _for_processor(
    graphs: list[Graph], precision: str, fc_weights: str | None, progress: Progress
) -> Done:
    from netdsl.cpu import cache
    from netdsl.cpu.arena import kernels
    from netdsl.cpu.launch import compile_all

    found = (k for graph in graphs for k in kernels(graph, precision, fc_weights))
    wanted = list(dict.fromkeys(found))
    compiled = compile_all(wanted, progress)
    return len(wanted), compiled, cache.size(), cache.folder()


def _for_card(
    graphs: list[Graph], precision: str, fc_weights: str | None, progress: Progress
) -> Done:
    """fc_weights: None, which the settings were checked for."""
    from netdsl import cuda
    from netdsl.cuda import ahead, cache
    from netdsl.runner import LARGEST_BATCH, roomy_batch

    cuda.check(precision)
    found: list[Any] = []
    for graph in graphs:
        batches = dict.fromkeys((1, roomy_batch(graph, LARGEST_BATCH)))
        found += ahead.kernels(graph, batches, precision)
    wanted = list(dict.fromkeys(found))
    compiled = ahead.compile_all(wanted, progress)
    return len(wanted), compiled, cache.size(), cache.folder()
