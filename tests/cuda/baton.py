"""Blocks of Numba's simulator with one thread running at a time, chosen by chance from a seed.

The simulator lets all threads of a block run at once and polls them; most of its time goes into
their fighting over the interpreter, and which thread is ahead is left to the system. Here a thread
runs until it waits, and hands on to one drawn among those that can go on: faster, repeatable, and
as unfair as a missing barrier needs to show itself.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.cuda.simulator import kernel

SEED = 1


class StoppedError(Exception):
    """Ends the threads of a block of which one has failed."""


class Thread:
    """A thread of a block, as the simulator's own code and the emulated warp see it."""

    def __init__(self, block: Block, place: tuple[int, ...], run: Callable[[], None]) -> None:
        self.go = threading.Lock()
        self.go.acquire()
        self.ready: Callable[[], bool] = lambda: True
        self.at_barrier = self.done = False
        self.thread = threading.Thread(target=self._run, args=(run,), daemon=True)
        shown: Any = self.thread
        shown.blockIdx, shown.threadIdx = block.index, kernel.Dim3(*place)
        x, y, z = place
        width, height, _ = block.size
        shown.thread_id = x + width * (y + height * z)
        shown._manager = block
        shown.syncthreads = self.barrier
        shown.pause = self.pause
        self.block = block

    def _run(self, run: Callable[[], None]) -> None:
        self.go.acquire()
        try:
            if self.block.error is None:
                run()
        except StoppedError:
            pass
        except Exception as error:
            self.block.error = self.block.error or error
        self.done = True
        self.block.hand_on(None)

    def barrier(self) -> None:
        """Waits until every thread of the block that has not ended is here."""
        self.at_barrier = True
        self.pause(lambda: not self.at_barrier)

    def pause(self, ready: Callable[[], bool]) -> None:
        """Lets others run until `ready`."""
        self.ready = ready
        self.block.hand_on(self)
        if self.block.error is not None:
            raise StoppedError


class Block:
    """Stands in for the simulator's BlockManager."""

    def __init__(self, f: Any, grid_dim: Any, block_dim: Any, debug: bool) -> None:
        self._f, self._block_dim, self.size = f, block_dim, block_dim
        self.block_state = np.zeros(block_dim, dtype=np.bool_)
        self.error: Exception | None = None
        self.ended = threading.Event()
        self.index: Any = None
        self.threads: list[Thread] = []

    def run(self, grid_point: tuple[int, ...], *args: Any) -> None:
        """Runs the block; raises what one of its threads raised."""
        self.index = kernel.Dim3(*grid_point)
        self.chance = random.Random(f"{SEED} {grid_point}")
        self.threads = [
            Thread(self, place, lambda: self._f(*args)) for place in np.ndindex(*self.size)
        ]
        self.live = list(self.threads)
        for thread in self.threads:
            thread.thread.start()
        self.hand_on(None)
        self.ended.wait()
        if self.error is not None:
            raise self.error

    def hand_on(self, giver: Thread | None) -> None:
        """Lets another thread run, and the giver wait until it is its turn again."""
        chosen = self._next()
        if chosen is None:
            self.ended.set()
        elif chosen is not giver:
            chosen.go.release()
        if giver is not None and chosen is not giver:
            giver.go.acquire()

    def _next(self) -> Thread | None:
        """A thread that can go on; None if all have ended."""
        self.live = [t for t in self.live if not t.done]
        if not self.live:
            return None
        if self.error is not None:
            return self.live[0]
        if all(t.at_barrier for t in self.live):
            for t in self.live:
                t.at_barrier = False
        first = self.chance.randrange(len(self.live))
        for t in self.live[first:] + self.live[:first]:
            if t.ready():
                return t
        self.error = RuntimeError("the threads of a block wait for each other")
        return self.live[0]


def install() -> None:
    """Lets the simulator run its blocks like this, and the emulated warp wait like this."""
    from netdsl.cuda.warp import emulated

    def pause(_: threading.Condition, ready: Callable[[], bool]) -> None:
        if not ready():
            thread: Any = threading.current_thread()
            thread.pause(ready)

    kernel.BlockManager = Block
    emulated.pause = pause
