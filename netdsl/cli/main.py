"""The program `netdsl`: finds a command, runs it, and tells a person what was wrong.

A command is a module `netdsl.cli.NAME` with a function of that name. It is imported only when it
is asked for, and imports what is heavy only inside the function, so that `netdsl cost` never pays
for numba.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from netdsl.faults import NetError, error

COMMANDS = {
    "run": "run",
    "train": "train",
    "eval": "evaluate",
    "cost": "cost",
    "compare": "compare",
    "bench": "bench",
    "draw": "draw",
    "report": "report",
    "import": "imports",
    "export": "exports",
    "check": "check",
    "fmt": "fmt",
    "weights": "weights",
    "nets": "nets",
    "warm": "warm",
    "tune": "tune",
    "info": "info",
}
"""Each command and the module and function that hold it, in the order that help shows."""

FAULT = 2
INTERRUPTED = 130


class Commands(TyperGroup):
    """The commands, each imported when it is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            raise _unknown(cmd_name)
        name = COMMANDS[cmd_name]
        holder = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        holder.command(cmd_name)(getattr(import_module(f"netdsl.cli.{name}"), name))
        return get_command(holder)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; bad input, Ctrl-C and a closed pipe end it without a traceback."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except NetError as fault:
            tell(fault)
            raise typer.Exit(FAULT) from None
        except KeyboardInterrupt:
            print("\nstopped", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read us has left (`| head`). Python would complain again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None


def _unknown(name: str) -> NetError:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
    return error("no-such-command", f"there is no command {name!r}", help=hint)


def tell(fault: NetError) -> None:
    """Prints what was wrong on standard error."""
    from netdsl import lang

    lang.show(fault)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from netdsl import __version__

        print(f"netdsl {__version__}")
        raise typer.Exit


@app.callback()
def netdsl(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """Convolutional networks as short text files: what they cost, and what they see."""


def main() -> None:
    """The entry point of the `netdsl` program."""
    # What is in memory goes with the process. To look through it for cycles first takes 15 ms.
    atexit.register(gc.freeze)
    app(prog_name="netdsl")
