"""The texts that a command is given: zoo names, paths, `-` for standard input, and -e TEXT."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import typer

from netdsl.faults import Fault, NetError, error
from netdsl.lang import DEFAULT, LIFTED, Limits, read

TEXT_OPTION = typer.Option("-e", metavar="TEXT", help="A net as text; `;` ends a statement.")


@dataclass(frozen=True)
class Text:
    """One text: what to call it, its file if it has one, and why it could not be had, if so."""

    name: str
    text: str
    path: Path | None = None
    faults: tuple[Fault, ...] = ()

    @property
    def file(self) -> str | None:
        return None if self.path is None else str(self.path)

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
                yield Text("standard input", _standard_input(limits))
                continue
            path = find(name)
            yield Text(str(path), read_text(path, limits), path)
        except NetError as problem:
            yield Text(name, "", None, tuple(replace(f, file=name) for f in problem.faults))


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
