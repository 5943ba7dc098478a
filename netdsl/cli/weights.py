"""`netdsl weights`: the published weights of the zoo's nets, listed, fetched and found."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from netdsl.faults import error

if TYPE_CHECKING:
    from netdsl.graph import Graph


class Deed(StrEnum):
    """What to do with published weights."""

    LIST = "list"
    PULL = "pull"
    WHERE = "where"


def weights(
    deed: Annotated[
        Deed,
        typer.Argument(metavar="list|pull|where", help="What to do.", show_default=False),
    ] = Deed.LIST,
    names: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[NAME]...", help="Nets of the zoo.", show_default=False),
    ] = None,
) -> None:
    """Weights that torchvision published: list them, fetch them, or print where they lie.

    `netdsl run NET --weights pretrained` fetches them too. They are converted once, to safetensors.
    """
    if deed is Deed.LIST:
        if names:
            raise error("too-many-arguments", "weights list takes no names")
        _list()
        return
    if not names:
        raise error(
            "no-net", f"weights {deed.value} needs a net's name", help="netdsl weights list"
        )
    for name in names:
        _pull(name) if deed is Deed.PULL else _where(name)


def _list() -> None:
    from rich.console import Console
    from rich.table import Table

    from netdsl.formats.pretrained import FILES, published

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("net", no_wrap=True)
    table.add_column("published as", no_wrap=True)
    table.add_column("here", no_wrap=True)
    for name, file in FILES.items():
        table.add_row(name, file, "yes" if published(name).path.is_file() else "")
    Console().print(table)


def _pull(name: str) -> None:
    from netdsl.find import graph_of
    from netdsl.formats.pretrained import published

    there = published(name).path.is_file()
    path = pull_shown(graph_of(name))
    print(f"{path} was here" if there else f"wrote {path}")


def pull_shown(graph: Graph) -> Path:
    """Fetches a net's published weights with a bar of megabytes. Raises NetError."""
    from netdsl.cli.progress import bar
    from netdsl.formats.pretrained import pull

    with bar(f"fetching {graph.name}'s weights, MB") as shown:
        return pull(graph, lambda have, total: shown.to(have >> 20, max(total >> 20, 1), ""))


def _where(name: str) -> None:
    from netdsl.formats.pretrained import published

    path = published(name).path
    if not path.is_file():
        raise error(
            "no-such-file",
            f"the weights of {name} are not here",
            help=f"netdsl weights pull {name}",
        )
    print(path)
