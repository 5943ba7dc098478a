"""`netdsl fmt`: lay out .net files the one way."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Optional

import typer

from netdsl.cli.texts import TEXT_OPTION, Text, texts
from netdsl.faults import Fault, NetError, error

WOULD_CHANGE = 1
FAULT = 2


def fmt(
    files: Annotated[Optional[list[str]], typer.Argument(metavar="FILE…")] = None,  # noqa: UP045
    text: Annotated[list[str], TEXT_OPTION] = [],  # noqa: B006
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 where a file would change.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="A JSON object instead of text.")] = False,
) -> None:
    """Lay out .net files in place (`-` and -e: from there to standard output)."""
    from netdsl import lang

    changed: list[str] = []
    faults: list[Fault] = []
    for one in texts(files or [], text):
        try:
            if _format(one, check, quiet=json):
                changed.append(one.name)
        except NetError as problem:
            faults += problem.faults
    if json:
        from json import dumps

        objects = [lang.to_dict(fault) for fault in faults]
        print(dumps({"ok": not faults, "changed": changed, "faults": objects}, indent=2))
    else:
        lang.show(faults)
    if faults:
        raise typer.Exit(FAULT)
    if check and changed:
        raise typer.Exit(WOULD_CHANGE)


def _format(one: Text, check: bool, quiet: bool) -> bool:
    """Formats one text; says whether it changes. Raises NetError."""
    from netdsl import lang

    if one.faults:
        raise NetError(*one.faults)
    formatted = lang.format_text(one.text, one.file)
    changes = formatted != one.text
    if one.path is None:
        if not check and not quiet:
            print(formatted, end="")
    elif changes and not check:
        replace(one.path, formatted)
    if one.path is not None and changes and not quiet:
        print(f"{one.name}: {'would be laid out anew' if check else 'laid out anew'}")
    return changes


def replace(path: Path, text: str) -> None:
    """Writes a file beside its old self and renames it, so that no moment has half a file.

    Raises NetError when that cannot be done; the old file is then as it was.
    """
    target = path.resolve()
    try:
        mode = target.stat().st_mode
        handle, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            Path(beside).chmod(mode)
            Path(beside).replace(target)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise
    except OSError as problem:
        message = f"{path} cannot be written: {problem.strerror}"
        raise error("unwritable", message, file=str(path)) from None
