"""`netdsl check`: every fault and warning in .net files."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from netdsl.cli.texts import TEXT_OPTION, Text, texts
from netdsl.faults import Fault

FAULT = 2


def check(
    files: Annotated[Optional[list[str]], typer.Argument(metavar="FILE…")] = None,  # noqa: UP045
    text: Annotated[list[str], TEXT_OPTION] = [],  # noqa: B006
    json: Annotated[bool, typer.Option("--json", help="A JSON object with all faults.")] = False,
    no_limits: Annotated[
        bool, typer.Option("--no-limits", help="Lift the limits on repeats, size and memory.")
    ] = False,
) -> None:
    """Show every fault and warning in .net files (`-` is standard input)."""
    from netdsl import lang

    limits = None if no_limits else lang.DEFAULT
    results = [(one, one.read(limits)) for one in texts(files or [], text, limits)]
    faults = tuple(fault for _, result in results for fault in result)
    errors = any(fault.severity == "error" for fault in faults)
    if json:
        from json import dumps

        print(dumps({"ok": not errors, "faults": [lang.to_dict(f) for f in faults]}, indent=2))
    else:
        lang.show(faults)
        for one, result in results:
            _summary(one, result)
    if errors:
        raise typer.Exit(FAULT)


def _summary(one: Text, faults: tuple[Fault, ...]) -> None:
    """One line a file, on standard output."""
    counts = []
    for severity in ("error", "warning"):
        count = sum(fault.severity == severity for fault in faults)
        if count:
            counts.append(f"{count} {severity}{'s' if count > 1 else ''}")
    print(f"{one.name}: {', '.join(counts) or 'ok'}")
