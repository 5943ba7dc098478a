"""`netdsl tune`: measures the ways to do a net's convolutions here, and keeps the fastest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from netdsl.faults import error

if TYPE_CHECKING:
    from netdsl.cpu.tune import Change, Tuning
    from netdsl.graph import Graph
    from netdsl.net import Weights


def tune(
    net: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="NET", help="A zoo name, or a path to a .net file."),
    ] = None,
    text: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("-e", metavar="TEXT", help="The net as text."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Inputs at once.")] = 1,
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Threads. Default: one a core."),
    ] = None,
    weights: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A file of weights. Times hardly hang on it. Default: random."),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Forget all that was chosen.")] = False,
) -> None:
    """Measure the ways to do each convolution within a net, and keep those that are faster."""
    if clear:
        from netdsl.cpu import tuned

        print("all choices are forgotten" if tuned.clear() else "there was nothing to forget")
        return
    if (net is None) == (text is None):
        raise error("no-net", "give one net", help="a zoo name, a .net file, -e TEXT, or --clear")
    from netdsl.net import Net

    held = Net.load(net, text=text)
    if weights is not None:
        held.load_weights(weights)
    else:
        held.initialise()
    _tune(held.graph, held.weights, batch, threads)


def _tune(graph: Graph, weights: Weights, batch: int, asked: int | None) -> None:
    from netdsl.cli.progress import bar
    from netdsl.cpu import threads, tuned
    from netdsl.cpu.tune import tune as measure

    count = threads.count(asked)
    with bar(f"tuning {graph.name}") as shown:
        found = measure(graph, weights, batch, count, shown.to)
    where = f"{graph.name}, {tuned.setting(batch, count)}"
    print(f"{where}: {found.ways} ways of {len(found.layers)} different layers measured")
    if found.changes:
        _show(found)
    if not found.pays:
        print("nothing is faster than what the table of costs chooses: nothing is kept")
    try:
        if found.pays or tuned.choices(batch, count):
            tuned.keep(batch, count, found.choices, list(found.layers))
    except OSError as problem:
        raise error("cannot-write", f"{tuned.path()} cannot be written: {problem}") from None
    if found.pays:
        print(f"kept in {tuned.path()}")


def _show(found: Tuning) -> None:
    from netdsl.cost.sheet import Column, Sheet
    from netdsl.cost.tables import show_sheet

    def ms(value: float) -> str:
        return f"{value:.3f}"

    columns = (
        Column("layer"),
        Column("op"),
        Column("way by the table"),
        Column("ms", ms, right=True),
        Column("faster way"),
        Column("ms ", ms, right=True),
        Column("gain", lambda gain: f"{gain:.0%}", right=True),
    )
    rows = tuple(map(_row, found.changes))
    gain = 1 - found.after_ms / found.before_ms
    total = ("whole net", None, None, found.before_ms, None, found.after_ms, gain)
    show_sheet(Sheet("what changes", columns, rows, (total,)))


def _row(change: Change) -> tuple[object, ...]:
    more = f" and {len(change.nodes) - 1} more" if len(change.nodes) > 1 else ""
    gain = 1 - change.after_ms / change.before_ms
    before, after = change.before_ms, change.after_ms
    return change.nodes[0] + more, change.layer, change.before, before, change.after, after, gain
