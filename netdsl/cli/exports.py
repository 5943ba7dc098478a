"""`netdsl export`: a net as a file for another program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from netdsl.faults import error

if TYPE_CHECKING:
    from netdsl.net import Net, Weights


def exports(
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="onnx, pytorch, keras, caffe, darknet, tflite, mermaid, dot.",
        ),
    ],
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
    aux: Annotated[
        bool,
        typer.Option("--aux", help="Auxiliary heads as outputs of an ONNX or Keras model."),
    ] = False,
) -> None:
    """Write a net, with its weights where the format holds some, for another program."""
    from netdsl.formats.exchange import WRITES, write_foreign
    from netdsl.net import Net

    if to not in WRITES:
        raise error(
            "unknown-format", f"there is no format {to}", help=f"formats: {', '.join(WRITES)}"
        )
    held = Net.load(net, text=text)
    found = _weights(held, weights, to)
    for path in write_foreign(held.graph, found, to, Path(out), aux=aux):
        print(f"wrote {path}")


def _weights(net: Net, file: str, to: str) -> Weights | None:
    """The net's weights: of this file, or those beside the net; where there are none, random
    ones for a file of weights, and none beside source."""
    from netdsl.formats.exchange import DRAWN, SOURCES

    if to in DRAWN:
        if file:
            raise error("unknown-setting", f"a {to} file holds no weights: leave --weights out")
        return None
    if file:
        net.load_weights(file)
    elif to not in SOURCES or _beside(net):
        net.find_weights()
    else:
        typer.echo("no weights are here: --weights FILE writes them too", err=True)
        return None
    heads = net.graph.aux and not net.graph.all_parameters().keys() <= net.weights.keys()
    if to == "pytorch" and heads:
        typer.echo(f"{net.weights_source} has no auxiliary heads: they are left out", err=True)
    if not net.trained:
        typer.echo("weights are random: --weights FILE gives trained ones", err=True)
    return net.weights


def _beside(net: Net) -> bool:
    """Whether weights lie beside the net's file."""
    file = net.graph.file
    return file is not None and Path(file).with_suffix(".safetensors").is_file()
