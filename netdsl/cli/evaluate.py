"""`netdsl eval`: how good a net is on data."""

from __future__ import annotations

import json as text_of
from pathlib import Path
from typing import Annotated, Optional

import typer

from netdsl.cli.fc_weights import FcWeights
from netdsl.cli.texts import net_and_data, wanted
from netdsl.faults import error


def evaluate(
    net: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="NET", help="A zoo name, or a .net file."),
    ] = None,
    data: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="DATA", help="As for train; its test part, where it has one."),
    ] = None,
    text: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("-e", metavar="TEXT", help="The net as text; the argument is DATA then."),
    ] = None,
    weights: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A safetensors file. Default: the one beside the .net file."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Examples at once.")] = 64,
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Threads. Default: one a core."),
    ] = None,
    loss: Annotated[str, typer.Option(help="cross_entropy, hinge, mse or bce.")] = "cross_entropy",
    part: Annotated[str, typer.Option(help="test or train.")] = "test",
    broken: Annotated[
        str, typer.Option(help="Pictures that cannot be read: stop or skip.")
    ] = "stop",
    fc_weights: FcWeights = None,
    json: Annotated[bool, typer.Option("--json", help="count, top1, top5 and loss.")] = False,
) -> None:
    """Try a net on data: top 1, top 5, and which classes it takes for which."""
    from netdsl.cli.verdicts import judge, show
    from netdsl.net import Net

    name, where = net_and_data(net, data, text)
    if part not in ("test", "train"):
        raise error("wrong-value", f"--part is test or train, not {part}")
    if broken not in ("stop", "skip"):
        raise error("wrong-value", f"--broken is stop or skip, not {broken}")
    found, names = judge(
        Net.load(name, text=text),
        wanted(where),
        weights,
        batch,
        threads,
        loss,
        part,
        broken,
        fc_weights,
    )
    if json:
        print(text_of.dumps(found.as_dict()))
    else:
        show(found, names)
