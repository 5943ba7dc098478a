"""Workers: kernels as the share of one thread, compiled when first wanted and then kept.

A worker is `worker(arena, params, d, part, parts)`, on raw pointers, cutting its own range of the
work by `part` of `parts`. `launch` (region.py) calls the worker whose address stands in the
descriptor, once for each part.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from netdsl import kept
from netdsl.cpu import cache, native, region
from netdsl.cpu.late import njit
from netdsl.cpu.layout import BODY as BODY
from netdsl.cpu.layout import PARTS as PARTS
from netdsl.cpu.layout import WORKER as WORKER
from netdsl.cpu.layout import Floats, Ints
from netdsl.cpu.region import launch as launch

if TYPE_CHECKING:
    from netdsl.cpu.helpers import Helpers


class Worker:
    """A function that each thread of a region runs, compiled when first wanted."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.name = function.__name__
        self.__doc__ = function.__doc__
        self._function = function
        self.file = f"{function.__module__.removeprefix('netdsl.cpu.')}.{self.name}"
        self._address: int | None = None

    def __call__(self, arena: Floats, params: Floats, d: Ints) -> None:
        """Runs it as the kernel it is, on the threads that d says. A plan goes a shorter way."""
        d[WORKER] = self.address
        launch(arena, params, d)

    @property
    def address(self) -> int:
        """Where its machine code lies; compiles it, or reads what is kept."""
        if self._address is None:
            self._address = native.load(self.file)
        if self._address is None:
            (_watch.get() or Watch()).told(self.file)
            self._address = self._compile()
        return self._address

    @property
    def ready(self) -> bool:
        """Whether it needs no compiling: its code is in memory or kept."""
        return self._address is not None or native.place(self.file).is_file()

    @property
    def named(self) -> bool:
        """Whether another process finds it by the name of its file."""
        module = self._function.__module__
        ours = module.startswith("netdsl.cpu.")
        return ours and getattr(sys.modules.get(module), self.name, None) is self

    def _compile(self) -> int:
        from netdsl.cpu.compiler import compiled

        self._compiled = compiled(self._function)
        _, symbol, needs, code, _ = self._compiled
        native.keep(self.file, symbol, needs, code)
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


class Watch:
    """Over kernels that are compiled: tells of them, and has helpers where several are missing.

    missing: how many are expected.
    """

    def __init__(self, missing: int = 0, progress: Progress | None = None) -> None:
        self.missing, self.progress = missing, progress
        self.compiled: dict[str, None] = {}
        self._helpers: Helpers | None = None

    def told(self, file: str) -> None:
        """That a kernel is about to be compiled. It may be the first of several."""
        self.helpers(self.missing - len(self.compiled))
        if self.progress is not None and file not in self.compiled:
            done = len(self.compiled)
            name = file.rpartition(".")[2].strip("_").replace("_", " ")
            self.progress(done, max(self.missing, done + 1), name)
        self.compiled[file] = None

    def helpers(self, missing: int) -> Helpers | None:
        """Those that there are, started when first asked for where so many kernels pay for some."""
        if self._helpers is None and self.missing and missing > 1:
            from netdsl.cpu.helpers import Helpers, worthwhile

            self._helpers = Helpers(worthwhile(missing))
        return self._helpers

    def close(self) -> None:
        """Ends the helpers."""
        if self._helpers is not None:
            self._helpers.close()

    def end(self) -> None:
        """Tells that all are done, whether they were wanted or not."""
        if self.compiled and self.progress is not None:
            every = max(self.missing, len(self.compiled))
            self.progress(every, every, "")


_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)
"""The one that is told."""


@contextmanager
def watched(kernels: Iterable[Any], progress: Progress | None) -> Iterator[Watch]:
    """Tells `progress` of every kernel that is compiled within the block, some of them perhaps by
    other processes meanwhile (`helpers.py`).

    kernels: those that may be wanted; the ones that are not ready make up the expected number.
    """
    kept.used(cache.folder())
    missing = sum(not kernel.ready for kernel in _workers(kernels)) + (not region.ready())
    watch = Watch(missing, progress)
    token = _watch.set(watch)
    try:
        yield watch
    finally:
        _watch.reset(token)
        watch.close()
    watch.end()


def compile_all(kernels: Iterable[Any], progress: Progress | None) -> int:
    """Compiles the kernels that are not, telling `progress` of each; how many those were."""
    wanted = _workers(kernels)
    with watched(wanted, progress) as watch:
        prepare(wanted)
    return len(watch.compiled)


def prepare(kernels: Iterable[Any]) -> None:
    """Compiles the kernels that are not, and tells whoever watches."""
    watch, wanted = _watch.get() or Watch(), _workers(kernels)
    missing = [kernel for kernel in wanted if not kernel.ready]
    helpers = watch.helpers(len(missing))
    if not region.ready():
        watch.told("region")
    region.prepare()
    if helpers is not None:
        helpers.share(missing, watch.told)
    for kernel in wanted:
        kernel.address  # noqa: B018 - asking for it makes it
