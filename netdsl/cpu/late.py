"""What kernels call, made only when a kernel is compiled.

Importing Numba takes longer than a small net takes to run, and a process that finds all its kernels
compiled needs none of it. So the modules that hold kernels do without: `njit` marks a function that
kernels call, `late` stands for what another module holds that needs Numba, and `real` gives a
function as Numba shall read it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from types import FunctionType
from typing import Any


class Late:
    """Something for kernels to call, made when it is first wanted."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    @cached_property
    def made(self) -> Any:
        """What it stands for: a function of Numba's, or an intrinsic."""
        return self._make()


def njit(**options: Any) -> Any:
    """Marks a function that kernels call; options as `numba.njit` takes them."""

    def mark(function: Callable[..., Any]) -> Any:
        def make() -> Any:
            import numba

            # Kernels alone call it: no way in from Python or C.
            plain = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
            return numba.njit(**options, **plain)(real(function))

        return Late(make)

    return mark


def late(module: str, name: str) -> Any:
    """What a module holds under a name. The module is imported when it is wanted."""
    return Late(lambda: getattr(import_module(module), name))


def real(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, what it calls by name being what stands behind it."""
    assert isinstance(function, FunctionType)
    known = dict(function.__globals__)
    for name in function.__code__.co_names:
        if isinstance(known.get(name), Late):
            known[name] = known[name].made
    copy = FunctionType(function.__code__, known, function.__name__, function.__defaults__)
    copy.__qualname__ = function.__qualname__
    return copy
