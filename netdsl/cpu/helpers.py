"""Other processes that compile kernels while this one does, for a thread cannot: Numba compiles for
one thread at a time.

They are a way to be faster and nothing else. They write the files that this process would have
written, and what they do not make, because they cannot be started, fail or say nothing, it compiles
itself.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Protocol

from netdsl.cpu import cache, memory, threads
from netdsl.cpu.helper import greeting

MOST = 3
"""Helpers at most: of what a net wants, few kernels take long to compile, and the longest of them a
fifth to a half of the whole."""

ROOM = 512 << 20
"""Bytes of memory that there are for each helper; they take some 210 MB."""

PATIENCE = 60
"""Seconds after which a helper that says nothing is waited for no longer."""

LONG = (
    "direct_short",
    "winograd",
    "winograd_thirds",
    "direct",
    "winograd_quarters",
    "strassen",
    "narrow_max_pool",
)
"""Kernels that take 1 to 4 s to compile, the longest first; others take less than one."""

START = "import sys; sys.path[:] = sys.argv[1:]; from netdsl.cpu.helper import main; main()"
"""What a helper runs, told where this process finds its modules."""


def worthwhile(missing: int) -> int:
    """How many helpers pay for so many kernels: one less than there are kernels or cores."""
    room = memory.available()
    count = min(MOST, missing - 1, threads.available() - 1)
    return max(0, count if room is None else min(count, room // ROOM))


def possible() -> bool:
    """Whether this process can start another Python, and both can keep files in one folder."""
    python = "python" in Path(sys.executable or "").name.lower()
    with contextlib.suppress(OSError):
        cache.folder().mkdir(parents=True, exist_ok=True)
    return python and not hasattr(sys, "frozen") and os.access(cache.folder(), os.W_OK)


class Kernel(Protocol):
    """What is compiled: a worker (launch.py)."""

    name: str
    file: str

    @property
    def named(self) -> bool: ...

    @property
    def address(self) -> int: ...


class Helper:
    """A process that compiles one kernel at a time. Raises OSError where none can be started."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="ascii",
            errors="replace",
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )

    def ready(self) -> bool:
        """Waits until it can begin. False where it cannot, or is of no use to this process."""
        return self._says(greeting())

    def makes(self, name: str) -> bool:
        """Has it compile a kernel; whether it did."""
        assert self._process.stdin is not None
        try:
            print(name, file=self._process.stdin, flush=True)
        except OSError:
            return False
        return self._says(name)

    def _says(self, wanted: str) -> bool:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip() == wanted

    def kill(self) -> None:
        """Ends it, whatever it is doing. Whoever waits for its answer gets none."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Lets go of what it was spoken to by; nobody may be waiting for an answer."""
        with contextlib.suppress(OSError), self._process:
            pass


class Helpers:
    """Processes that share kernels with this one, each of which takes the longest that is left."""

    def __init__(self, count: int) -> None:
        self._helpers: list[Helper] = []
        self._threads: list[Thread] = []
        with contextlib.suppress(OSError):
            for _ in range(count if count and possible() else 0):
                self._helpers.append(Helper())

    def share(self, kernels: Iterable[Kernel], tell: Callable[[str], None]) -> None:
        """Compiles kernels, here and there, and waits until all are.

        tell: told, by this thread, of each that a helper has begun or made.
        """
        work = Shared(kernels)
        for helper in self._helpers:
            thread = Thread(target=work.serve, args=(helper,), daemon=True)
            self._threads.append(thread)
            thread.start()
        while (kernel := work.take()) is not None:
            work.tell(tell)
            kernel.address  # noqa: B018 - asking for it makes it
        work.wait(tell)

    def close(self) -> None:
        """Ends them."""
        for helper in self._helpers:
            helper.kill()
        for thread in self._threads:
            thread.join()
        for helper in self._helpers:
            helper.close()


class Shared:
    """Kernels that several compile."""

    def __init__(self, kernels: Iterable[Kernel]) -> None:
        self._left = deque(sorted(kernels, key=_length))
        self._lock = Lock()
        self._given: deque[str] = deque()
        self._waiting = 0
        self._answers: SimpleQueue[None] = SimpleQueue()

    def take(self) -> Kernel | None:
        """The longest that nobody has begun."""
        with self._lock:
            return self._left.popleft() if self._left else None

    def serve(self, helper: Helper) -> None:
        """Gives a helper kernels, once it is ready, until none are left."""
        going = helper.ready()
        while going and (name := self._give()):
            going = helper.makes(name)
            self._answers.put(None)

    def _give(self) -> str:
        """The next for a helper, one that it can find."""
        with self._lock:
            kernel = next((k for k in self._left if k.named), None)
            if kernel is None:
                return ""
            self._left.remove(kernel)
            self._given.append(kernel.file)
            self._waiting += 1
            return kernel.file

    def tell(self, told: Callable[[str], None]) -> None:
        """Tells of what helpers have been given since the last time."""
        while self._given:
            told(self._given.popleft())

    def wait(self, told: Callable[[str], None]) -> None:
        """Waits for what helpers have been given, as long as they may take. Whole seconds at once,
        for on Windows nothing else ends a wait, an interrupt neither."""
        patience = PATIENCE
        self.tell(told)
        while self._waiting and patience:
            try:
                self._answers.get(timeout=1)
                self._waiting -= 1
                patience = PATIENCE
            except Empty:
                patience -= 1


def _length(kernel: Kernel) -> int:
    """Where a kernel comes in the order of how long it takes."""
    return LONG.index(kernel.name) if kernel.name in LONG else len(LONG)
