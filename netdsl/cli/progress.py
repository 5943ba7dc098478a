"""Bars on standard error while something takes long; nothing where that is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar:
    """A bar that steps aside while something is printed."""

    def __init__(self, progress: Progress | None, task: Any) -> None:
        self._progress, self._task = progress, task

    def advance(self, steps: int = 1) -> None:
        """That many more are done."""
        if self._progress is not None:
            self._progress.advance(self._task, steps)

    def to(self, done: int, total: int, what: str) -> None:
        """Where it stands now, and what comes next."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total, what=what)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Off the screen while the block prints."""
        if self._progress is None:
            yield
            return
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()


@contextmanager
def bar(title: str, total: int | None = None, *, shown: bool = True) -> Iterator[Bar]:
    """A bar of `total` steps for as long as the block runs; it leaves no trace."""
    if not (shown and sys.stderr.isatty()):
        yield Bar(None, None)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[what]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield Bar(progress, progress.add_task("", total=total, what=""))
