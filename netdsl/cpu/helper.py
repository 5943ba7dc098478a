"""A process that compiles kernels for another one (`helpers.py`), which sends it their names.

It keeps their code where the other will look, and answers with the name of each that is kept. It
ends as soon as nobody can send it names.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from queue import SimpleQueue
from threading import Thread

from netdsl.cpu import native


def greeting() -> str:
    """What a helper says when it can begin: where it keeps code, which tells its version, its CPU
    and its settings. Only one that says what this process would is of use to it."""
    return ascii(str(native.place("ready")))


def main() -> None:
    """Compiles the kernels that are named on the standard input, a name a line."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what others print is no answer
    names: SimpleQueue[str] = SimpleQueue()
    Thread(target=_read, args=(names,), daemon=True).start()
    _prepare()
    print(greeting(), file=answers, flush=True)
    while True:
        name = names.get()
        _make(name)
        print(name, file=answers, flush=True)


def _make(name: str) -> None:
    """Compiles the worker whose `file` is called so."""
    module, _, function = name.rpartition(".")
    getattr(import_module(f"netdsl.cpu.{module}"), function).address  # noqa: B018


def _read(names: SimpleQueue[str]) -> None:
    """Takes the names while kernels are compiled: when no more can come, what is being compiled is
    not wanted either."""
    for line in sys.stdin:
        names.put(line.strip())
    os._exit(0)


def _prepare() -> None:
    """Loads the compiler and all that Numba knows, which the first kernel would wait for."""
    from numba.core.registry import cpu_target

    import_module("netdsl.cpu.compiler")
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()
