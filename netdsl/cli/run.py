"""`netdsl run`: a net's outputs for pictures, arrays, its own samples, or noise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from netdsl.cli.fc_weights import FcWeights
from netdsl.faults import error


def run(
    net: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="NET", help="A zoo name, or a path to a .net file."),
    ] = None,
    inputs: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            metavar="INPUT",
            help="Pictures, .npy or .npz files, folders, or - for standard input. Without: the "
            "net's own samples, else noise.",
        ),
    ] = None,
    text: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("-e", metavar="TEXT", help="The net as text; all arguments are inputs then."),
    ] = None,
    weights: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="A .safetensors, .pth, .pt, .caffemodel or .weights file, or the word pretrained. "
            "Default: the file beside the .net file, else random."
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="cpu, cuda, auto (cuda where there is a card), or reference: slow, float64."
        ),
    ] = "cpu",
    batch: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Inputs at once. Without inputs: how many of noise."),
    ] = None,
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Threads. Default: one a core."),
    ] = None,
    top: Annotated[int, typer.Option(metavar="K", help="Classes to show.")] = 5,
    profile: Annotated[bool, typer.Option("--profile", help="Time a layer.")] = False,
    save: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Keep the outputs as they are: .npy for one, .npz for several."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="A JSON list, an object an input.")] = False,
    aux: Annotated[bool, typer.Option("--aux", help="The auxiliary heads' outputs too.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Show outputs, not probabilities.")] = False,
    exact: Annotated[bool, typer.Option("--exact", help="No shortcuts that cost digits.")] = False,
    precision: Annotated[
        str, typer.Option(help="What factors are rounded to: fp32, tf32 (cuda) or bf16.")
    ] = "fp32",
    fc_weights: FcWeights = None,
    seed: Annotated[int, typer.Option(help="For random weights and noise.")] = 0,
) -> None:
    """Run a net and show what it sees."""
    from netdsl.cli.runs import Settings, run_all
    from netdsl.net import Net

    given = [*([] if net is None else [net]), *(inputs or [])]
    if text is None and not given:
        raise error("no-net", "no net was given", help="a zoo name, a .net file, or -e TEXT")
    name, rest = (None, given) if text is not None else (given[0], given[1:])
    settings = Settings(
        weights,
        device,
        batch,
        threads,
        top,
        profile,
        save,
        json,
        aux,
        raw,
        exact,
        precision,
        fc_weights,
        seed,
    )
    settings.check()
    run_all(Net.load(name, text=text), rest, settings)
