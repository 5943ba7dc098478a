"""`netdsl import`: another program's network as a .net file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netdsl.faults import error


def imports(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A .onnx, .prototxt, .caffemodel or .cfg file.")
    ],
    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            metavar="FILE",
            help="Weights for it: a .caffemodel, .weights, .pth or .safetensors.",
        ),
    ] = "",
    out: Annotated[
        str, typer.Option("-o", "--out", metavar="FILE", help="Default: FILE's stem here, .net.")
    ] = "",
    shape: Annotated[
        str,
        typer.Option("--input", metavar="SHAPE", help="As 3x32x32, where FILE leaves it open."),
    ] = "",
) -> None:
    """Write another program's network as readable text, and its weights beside it."""
    from netdsl import lang
    from netdsl.formats.atomic import replacing
    from netdsl.formats.exchange import read_foreign, renamed
    from netdsl.formats.safetensors import save
    from netdsl.formats.text import write_net
    from netdsl.graph.same import correspondence

    graph, found = read_foreign(Path(file), Path(weights) if weights else None, _shape(shape))
    to = Path(out) if out else Path(f"{Path(file).stem}.net")
    text = lang.format_text(write_net(graph))
    again = lang.load(text, str(to))
    names = correspondence(graph, again)
    with replacing(to) as target:
        target.write(text.encode())
    print(f"wrote {to}")
    if found is not None:
        beside = to.with_suffix(".safetensors")
        save(beside, renamed(found, names), {"net": again.name})
        print(f"wrote {beside}")


def _shape(text: str) -> tuple[int, ...] | None:
    """The numbers of 3x32x32. Raises NetError."""
    if not text:
        return None
    parts = text.split("x")
    if not all(part.isdecimal() and len(part) < 9 and int(part) > 0 for part in parts):
        raise error("wrong-value", f"{text} is no shape", help="as in --input 3x32x32")
    return tuple(map(int, parts))
