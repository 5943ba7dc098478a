"""`netdsl export`: a net as a file for another program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from netdsl.faults import error


def exports(
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="onnx, caffe or darknet.")],
    out: Annotated[str, typer.Option("-o", "--out", metavar="FILE", help="The file to write.")],
    net: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="NET", help="A zoo name or a .net file."),
    ] = None,
    text: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("-e", metavar="TEXT", help="The net as text."),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            "--weights", metavar="FILE", help="Default: those beside the net, else random."
        ),
    ] = "",
) -> None:
    """Write a net and its weights for another program."""
    from netdsl.formats.exchange import WRITES, write_foreign
    from netdsl.net import Net

    if to not in WRITES:
        raise error(
            "unknown-format", f"there is no format {to}", help=f"formats: {', '.join(WRITES)}"
        )
    held = Net.load(net, text=text)
    if weights:
        held.load_weights(weights)
    else:
        held.find_weights()
    if not held.trained:
        typer.echo("weights are random: --weights FILE gives trained ones", err=True)
    for path in write_foreign(held.graph, held.weights, to, Path(out)):
        print(f"wrote {path}")
