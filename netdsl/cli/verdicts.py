"""How `netdsl eval` goes, and how it shows what it found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from netdsl.cli.fc_weights import say_rounding
from netdsl.cli.progress import bar
from netdsl.faults import error
from netdsl.net import Net, check_settings
from netdsl.train import Batches, Verdict, open_data
from netdsl.train import evaluate as evaluated
from netdsl.train.loop import check_classes
from netdsl.train.losses import LOSSES, CrossEntropy
from netdsl.train.prepare import scores

WIDEST = 20
"""Classes up to which the whole confusion table is shown; of more, the worst mistakes."""


def judge(
    net: Net,
    data: str,
    weights: Path | None,
    batch: int,
    threads: int | None,
    loss: str,
    part: str,
    broken: str,
    fc_weights: str | None = None,
) -> tuple[Verdict, Sequence[str]]:
    """What a net gets right on data, and the names of its classes. Raises NetError."""
    check_settings("cpu", batch, threads, fc_weights=fc_weights)
    if batch < 1:
        raise error("out-of-range", f"batch is {batch}, it must be at least 1")
    if loss not in LOSSES:
        raise error(
            "unknown-loss", f"there is no loss {loss!r}", help="one of " + ", ".join(LOSSES)
        )
    if len(net.graph.inputs) != 1:
        raise error(
            "several-inputs", f"{net.name} has {len(net.graph.inputs)} inputs, eval feeds one"
        )
    found = open_data(data, broken)
    examples = found.test if part == "test" and found.test is not None else found.train
    check_classes(net.graph, examples)
    if weights is not None:
        net.load_weights(weights)
    else:
        net.find_weights()
    if not net.trained:
        Console(stderr=True).print(
            f"weights are {net.weights_source}: this means nothing", style="yellow"
        )
    rule = LOSSES[loss]()
    plain = Net(scores(net.graph)) if isinstance(rule, CrossEntropy) else net
    plain.weights = {n: net.weights[n] for n in plain.graph.without_aux().all_parameters()}
    batches = Batches(examples, net.graph.input_op(net.graph.inputs[0]), batch, training=False)
    output = plain.graph.outputs[0]
    with bar(f"making {net.name} ready") as compiling:
        runner = plain.runner(batch, threads=threads, fc_weights=fc_weights, progress=compiling.to)
    say_rounding(runner, fc_weights)
    name = net.graph.inputs[0]
    with bar("trying", len(examples)) as done:
        verdict = evaluated(
            lambda x: runner.run({name: x}),
            batches,
            output,
            rule,
            lambda count: done.to(count, len(examples), ""),
        )
    return verdict, examples.classes or net.labels or ()


def show(verdict: Verdict, names: Sequence[str]) -> None:
    """Prints a verdict."""
    say = Console(highlight=False)
    if verdict.top1 is not None and verdict.top5 is not None:
        wrong = verdict.count - verdict.right
        say.print(
            f"{verdict.count:,} examples: top 1 {verdict.top1:.2%} ({wrong:,} wrong), "
            f"top 5 {verdict.top5:.2%}, loss {verdict.loss:.4f}"
        )
        classes = len(verdict.confusion)
        labels = [names[i] if i < len(names) else str(i) for i in range(classes)]
        say.print(
            _table(verdict.confusion, labels)
            if classes <= WIDEST
            else _worst(verdict.confusion, labels)
        )
    elif verdict.loss is not None:
        say.print(f"{verdict.count:,} examples: loss {verdict.loss:.6f}")


def _table(confusion: NDArray[np.int64], labels: Sequence[str]) -> Table:
    """A row a class, a column what it was taken for."""
    table = Table(title="class, and what it was taken for", box=None)
    table.add_column("")
    for label in labels:
        table.add_column(label[:8], justify="right")
    table.add_column("right", justify="right")
    for i, (row, label) in enumerate(zip(confusion, labels, strict=True)):
        cells = [f"[bold]{n}[/]" if i == j else str(n) if n else "·" for j, n in enumerate(row)]
        whole = int(row.sum())
        table.add_row(label[:16], *cells, f"{row[i] / whole:.1%}" if whole else "")
    return table


def _worst(confusion: NDArray[np.int64], labels: Sequence[str]) -> Table:
    """The commonest mistakes."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    table = Table(title="commonest mistakes", box=None)
    for title in ("class", "taken for", "times"):
        table.add_column(title)
    for at in np.argsort(wrong, axis=None)[::-1][:15]:
        i, j = divmod(int(at), len(labels))
        if wrong[i, j]:
            table.add_row(labels[i], labels[j], str(wrong[i, j]))
    return table
