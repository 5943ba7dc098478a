"""Commands shown in Markdown, and what each really prints.

A fenced `console` block holds commands after `$ ` and their output below. A line `…` stands for
any number of lines. `python tests/docs/console.py FILE…` rewrites the output that a page shows
(keeping which lines it leaves out is then up to the writer).
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from netdsl.cli.main import app

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A command as shown, and the output shown under it."""

    command: str
    shown: tuple[str, ...]


def examples(text: str) -> list[Example]:
    """The page's commands in order."""
    found = []
    for block in BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append(Example(command, tuple(output.rstrip().splitlines())))
    return found


def run(command: str) -> str:
    """What `netdsl …` prints, without starting a process."""
    words = shlex.split(command)
    assert words[0] == "netdsl", command
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.output
    return result.output


def shows(shown: tuple[str, ...], printed: str) -> bool:
    """Whether the shown lines are the printed ones, `…` standing for any number of lines."""
    parts = ["(?:[^\n]*\n)*?" if line == "…" else re.escape(line) + " *\n" for line in shown]
    return re.fullmatch("".join(parts), printed.rstrip() + "\n") is not None


def refreshed(text: str) -> str:
    """The page with the whole output of every command."""

    def block(match: re.Match[str]) -> str:
        commands = [example.command for example in examples(match.group(0))]
        shown = "\n".join(f"$ {c}\n{run(c).rstrip()}" for c in commands)
        return f"```console\n{shown}\n```"

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        page = Path(name)
        page.write_text(refreshed(page.read_text(encoding="utf-8")), encoding="utf-8")
