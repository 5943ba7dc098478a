"""The texts that a command is given: zoo names, paths, `-` for standard input, and -e TEXT."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import typer

from netdsl.faults import Fault, NetError, error
from netdsl.frozen import dataclass
from netdsl.lang import DEFAULT, LIFTED, Limits, read

TEXT_OPTION = typer.Option("-e", metavar="TEXT", help="A net as text; `;` ends a statement.")


@dataclass(frozen=True)
class Text:
    """One text: what to call it, its file as faults name it, where to write it back, and why it
    could not be had, if so."""

    name: str
    text: str
    file: str | None = None
    path: Path | None = None
    faults: tuple[Fault, ...] = ()

    def read(self, limits: Limits | None) -> tuple[Fault, ...]:
        """Everything that is wrong with it."""
        return self.faults or read(self.text, self.file, limits).faults


def texts(files: list[str], given: list[str], limits: Limits | None = DEFAULT) -> list[Text]:
    """The texts of files, then those given with -e. Raises NetError when there are none."""
    if not files and not given:
        raise error("no-net", "no net was given", help="a .net file, a zoo name, or -e TEXT")
    return [*_files(files, limits), *(Text(f"-e {i}", text) for i, text in enumerate(given, 1))]


def _files(files: list[str], limits: Limits | None) -> Iterator[Text]:
    from netdsl.find import find, read_text

    for name in files:
        try:
            if name == "-":
                yield Text("standard input", _standard_input(limits), name)
                continue
            path = find(name)
            yield Text(str(path), read_text(path, limits), str(path), path)
        except NetError as problem:
            faults = tuple(replace(fault, file=name) for fault in problem.faults)
            yield Text(name, "", name, faults=faults)


def _standard_input(limits: Limits | None) -> str:
    """The text on standard input. Raises NetError when it is too large or not UTF-8."""
    most = (LIFTED if limits is None else limits).file
    data = sys.stdin.buffer.read(min(most + 1, 1 << 40))
    if len(data) > most:
        raise error("too-large", f"standard input has more than {most:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        at = problem.start
        message = f"standard input is not UTF-8 text: byte {at} is 0x{data[at]:02x}"
        raise error("not-text", message) from None


def net_and_data(
    net: str | None, data: str | None, text: str | None
) -> tuple[str | None, str | None]:
    """What a command's arguments NET and DATA mean: with a net as text, the one is DATA.

    Raises NetError where no net was given, or two.
    """
    if text is None:
        if net is None:
            raise error("no-net", "no net was given", help="a zoo name, a .net file, or -e TEXT")
        return net, data
    if data is not None:
        raise error("two-nets", "both a net and a text were given")
    return None, net


def wanted(data: str | None) -> str:
    """The data that a command cannot do without. Raises NetError where none was given."""
    if data is None:
        raise error(
            "no-data", "no data was given", help="a folder, a .npz file, mnist or fashion_mnist"
        )
    return data
