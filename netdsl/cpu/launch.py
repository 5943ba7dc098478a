"""Workers: kernels as the share of one thread, compiled when first wanted and then kept.

A worker is `worker(arena, params, d, part, parts)`, on raw pointers, cutting its own range of the
work by `part` of `parts`. `launch` (region.py) calls the worker whose address stands in the
descriptor, once for each part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from netdsl import kept
from netdsl.cpu import cache, native, region
from netdsl.cpu.late import njit
from netdsl.cpu.layout import BODY as BODY
from netdsl.cpu.layout import PARTS as PARTS
from netdsl.cpu.layout import WORKER as WORKER
from netdsl.cpu.layout import Floats, Ints
from netdsl.cpu.region import launch as launch

_watcher: ContextVar[Callable[[str], None]] = ContextVar("watcher", default=lambda name: None)
"""Told the name of each kernel before it is compiled."""


class Worker:
    """A function that each thread of a region runs, compiled when first wanted."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.name = function.__name__
        self.__doc__ = function.__doc__
        self._function = function
        self._file = f"{function.__module__.removeprefix('netdsl.cpu.')}.{self.name}"
        self._address: int | None = None

    def __call__(self, arena: Floats, params: Floats, d: Ints) -> None:
        """Runs it as the kernel it is, on the threads that d says. A plan goes a shorter way."""
        d[WORKER] = self.address
        launch(arena, params, d)

    @property
    def address(self) -> int:
        """Where its machine code lies; compiles it, or reads what is kept."""
        if self._address is None:
            self._address = native.load(self._file)
        if self._address is None:
            _watcher.get()(self.name)
            self._address = self._compile()
        return self._address

    @property
    def ready(self) -> bool:
        """Whether it needs no compiling: its code is in memory or kept."""
        return self._address is not None or native.place(self._file).is_file()

    def _compile(self) -> int:
        from netdsl.cpu.compiler import compiled

        self._compiled = compiled(self._function)
        _, symbol, needs, code, _ = self._compiled
        native.keep(self._file, symbol, needs, code)
        return self._compiled.address


def worker(function: Callable[..., None]) -> Worker:
    """Marks a worker; see the module's docstring."""
    return Worker(function)


@njit(forceinline=True)
def share(work, part, parts):  # type: ignore[no-untyped-def]
    """The first of `work` items that belongs to this part; that of part + 1 is its end."""
    return work * part // parts


def _workers(kernels: Iterable[Any]) -> list[Worker]:
    """Those among kernels that are compiled, each once."""
    return [kernel for kernel in dict.fromkeys(kernels) if isinstance(kernel, Worker)]


Progress = Callable[[int, int, str], None]
"""Told before each kernel is compiled: how many are done, of how many, and its name."""


@contextmanager
def watched(kernels: Iterable[Any], progress: Progress | None) -> Iterator[list[str]]:
    """Tells `progress` of every kernel that is compiled within the block.

    kernels: those that may be wanted; the ones that are not ready make up the expected number. At
    the end all are done, whether they were wanted or not. Gives the names of those compiled.
    """
    kept.used(cache.folder())
    missing = sum(not kernel.ready for kernel in _workers(kernels)) + (not region.ready())
    names: list[str] = []

    def watch(name: str) -> None:
        if progress is not None:
            progress(len(names), max(missing, len(names) + 1), name.strip("_").replace("_", " "))
        names.append(name)

    token = _watcher.set(watch)
    try:
        yield names
    finally:
        _watcher.reset(token)
    if names and progress is not None:
        progress(max(missing, len(names)), max(missing, len(names)), "")


def compile_all(kernels: Iterable[Any], progress: Progress | None) -> int:
    """Compiles the kernels that are not, telling `progress` of each; how many those were."""
    wanted = _workers(kernels)
    with watched(wanted, progress) as names:
        prepare(wanted)
    return len(names)


def prepare(kernels: Iterable[Any]) -> None:
    """Compiles the kernels that are not, and tells whoever watches."""
    if not region.ready():
        _watcher.get()("region")
    region.prepare()
    for kernel in _workers(kernels):
        kernel.address  # noqa: B018 - asking for it makes it
