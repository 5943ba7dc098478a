"""The warp's functions in Numba's simulator, where every thread of a block is a thread of Python.

Lanes meet: each hands in what it has, the last to come computes what all are given. A lane that
does something else than the others, or does not come, is an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

WARP = 32
PATIENCE = 60.0
"""Seconds to wait for other lanes before it is said that they do not come."""

Compute = Callable[[list[Any]], list[Any]]


class Warp:
    """The lanes that meet."""

    def __init__(self, lanes: int) -> None:
        self.lanes, self.arrived, self.meetings = lanes, 0, 0
        self.given: list[Any] = [None] * lanes
        self.results: list[Any] = []
        self.changed = threading.Condition()

    def together(self, lane: int, what: str, value: Any, compute: Compute) -> Any:
        """This lane's part of what all lanes compute. Raises RuntimeError where they diverge."""
        with self.changed:
            self.given[lane] = what, value
            self.arrived += 1
            now = self.meetings
            if self.arrived == self.lanes:
                self._meet(compute)
        pause(self.changed, lambda: self.meetings != now)
        result = self.results[lane]
        if isinstance(result, Exception):
            raise result
        return result

    def _meet(self, compute: Compute) -> None:
        kinds = {what for what, _ in self.given}
        try:
            if len(kinds) > 1:
                raise RuntimeError(f"lanes of one warp do different things: {sorted(kinds)}")
            self.results = compute([value for _, value in self.given])
        except Exception as error:
            self.results = [error] * self.lanes
        self.arrived, self.meetings = 0, self.meetings + 1
        self.changed.notify_all()


def wait(changed: threading.Condition, ready: Callable[[], bool]) -> None:
    """Until `ready`. Raises RuntimeError where that never comes."""
    with changed:
        if not changed.wait_for(ready, PATIENCE):
            raise RuntimeError("lanes of a warp wait for others that do not come")


pause = wait
"""How a thread waits for others: replaced where something else decides which thread runs."""

_making = threading.Lock()


def here() -> tuple[Any, Warp, int]:
    """This thread, its warp, its lane."""
    thread: Any = threading.current_thread()
    block = thread._manager
    warp, lane = divmod(thread.thread_id, WARP)
    with _making:
        warps = vars(block).setdefault("warps", {})
        if warp not in warps:
            warps[warp] = Warp(min(WARP, int(np.prod(block._block_dim)) - warp * WARP))
    return thread, warps[warp], lane


def plain(array: Any) -> NDArray[Any]:
    """The NumPy array that the simulator wraps."""
    while not isinstance(array, np.ndarray):
        array = vars(array)["_item" if "_item" in vars(array) else "_ary"]
    return array


def four(array: Any, i: Any) -> NDArray[Any]:
    """Four neighbours. Raises IndexError where they are not there, or not at a multiple of 4."""
    values, at = plain(array), int(i)
    if at % 4 or not 0 <= at <= len(values) - 4:
        raise IndexError(f"16 bytes at element {at} of {len(values)}")
    return values[at : at + 4]


def load4(array: Any, i: Any) -> tuple[Any, Any, Any, Any]:
    a, b, c, d = four(array, i)
    return a, b, c, d


def load_if(array: Any, i: Any, there: Any) -> Any:
    if not there:
        return np.float32(0)
    values, at = plain(array), int(i)
    if not 0 <= at < len(values):
        raise IndexError(f"element {at} of {len(values)}")
    return values[at]


def base_of(array: Any, i: Any) -> Any:
    return np.uint64(i)


def load_at(array: Any, base: Any, i: Any) -> Any:
    values, at = plain(array), int(base) + int(i)
    if not 0 <= at < len(values):
        raise IndexError(f"element {at} of {len(values)}")
    return values[at]


def store2(array: Any, i: Any, a: Any, b: Any) -> None:
    values, at = plain(array), int(i)
    if at % 2 or not 0 <= at <= len(values) - 2:
        raise IndexError(f"8 bytes at element {at} of {len(values)}")
    values[at : at + 2] = (a, b)


def store4(array: Any, i: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    four(array, i)[:] = (a, b, c, d)


def _shuffled(what: str, x: Any, source: Callable[[int, int], int]) -> Any:
    """The x of the lane that `source` names from this lane's number and how many there are."""
    _, warp, lane = here()
    values = warp.together(lane, what, x, lambda given: [list(given)] * warp.lanes)
    asked = source(lane, warp.lanes)
    if not 0 <= asked < warp.lanes:
        raise RuntimeError(f"{what}: there is no lane {asked} among {warp.lanes}")
    return values[asked]


def shuffle_xor(x: Any, mask: Any) -> Any:
    return _shuffled("shuffle_xor", x, lambda lane, _: lane ^ int(mask))


def shuffle_down(x: Any, by: Any) -> Any:
    def source(lane: int, lanes: int) -> int:
        return lane + int(by) if lane + int(by) < lanes else lane

    return _shuffled("shuffle_down", x, source)


def shuffle(x: Any, lane: Any) -> Any:
    return _shuffled("shuffle", x, lambda _, lanes: int(lane) % lanes)


def sync_warp() -> None:
    _, warp, lane = here()
    warp.together(lane, "sync_warp", None, lambda given: given)


def copy16(shared: Any, to: Any, array: Any, i: Any, there: Any) -> None:
    """Nothing is copied before `arrived` asks for it: the latest that a card may take."""
    thread, _, _ = here()
    target = four(shared, to)
    source = four(array, i) if there else np.zeros(4, target.dtype)
    vars(thread).setdefault("copies", [[]])[-1].append((target, source))


copy16_kept = copy16


def commit() -> None:
    thread, _, _ = here()
    vars(thread).setdefault("copies", [[]]).append([])


def arrived(behind: int) -> Callable[[], None]:
    def wait_for_copies() -> None:
        thread, _, _ = here()
        groups = vars(thread).setdefault("copies", [[]])
        done = max(len(groups) - 1 - behind, 0)
        for target, source in (copy for group in groups[:done] for copy in group):
            target[:] = source
        del groups[:done]

    return wait_for_copies


def matrices(shared: Any, i: Any) -> tuple[Any, ...]:
    _, warp, lane = here()

    def compute(rows: list[Any]) -> list[Any]:
        words = [four(values, at).view(np.uint32) for values, at in rows]
        return [
            tuple(words[8 * matrix + lane // 4][lane % 4] for matrix in range(4))
            for lane in range(WARP)
        ]

    found: tuple[Any, ...] = warp.together(lane, "matrices", (shared, i), compute)
    return found


def matrices_across(shared: Any, i: Any) -> tuple[Any, ...]:
    _, warp, lane = here()

    def compute(rows: list[Any]) -> list[Any]:
        words = np.stack([four(values, at).view(np.uint32) for values, at in rows])
        halves = words.view(np.uint16).astype(np.uint32)
        found = []
        for at in range(WARP):
            column, pair = divmod(at, 4)
            firsts = (halves[8 * matrix + 2 * pair :, column] for matrix in range(4))
            found.append(tuple(two[0] | (two[1] << np.uint32(16)) for two in firsts))
        return found

    found: tuple[Any, ...] = warp.together(lane, "matrices_across", (shared, i), compute)
    return found


def tf32_of(words: NDArray[np.uint32]) -> NDArray[np.float32]:
    """What the card reads from words (..., n): the low 13 bits are not looked at."""
    return (words & np.uint32(0xFFFFE000)).view(np.float32)


def bf16_of(words: NDArray[np.uint32]) -> NDArray[np.float32]:
    """The values of words (..., n) of two, the lower half first: (..., 2 n)."""
    both = np.stack([words << np.uint32(16), words & np.uint32(0xFFFF0000)], axis=-1)
    return both.view(np.float32).reshape(*words.shape[:-1], -1)


def product(name: str, values_of: Callable[[NDArray[np.uint32]], NDArray[np.float32]]) -> Any:
    def compute(given: list[Any]) -> list[Any]:
        """Lane 4 g + t holds words t and t + 4 of rows g and g + 8 of a and of column g of b, and
        columns 2 t and 2 t + 1 of rows g and g + 8 of c."""
        a = np.empty((16, 8), np.uint32)
        b = np.empty((8, 8), np.uint32)
        c = np.empty((16, 8), np.float32)
        for lane, (sums, left, right) in enumerate(given):
            g, t = divmod(lane, 4)
            a[g, t], a[g + 8, t], a[g, t + 4], a[g + 8, t + 4] = left
            b[g, t], b[g, t + 4] = right
            c[g, 2 * t], c[g, 2 * t + 1], c[g + 8, 2 * t], c[g + 8, 2 * t + 1] = sums
        # Products are exact and summed in float32 or better.
        exact = values_of(a).astype(np.float64) @ values_of(b).astype(np.float64).T
        c = (c + exact).astype(np.float32)
        spread = []
        for lane in range(WARP):
            g, t = divmod(lane, 4)
            spread.append((c[g, 2 * t], c[g, 2 * t + 1], c[g + 8, 2 * t], c[g + 8, 2 * t + 1]))
        return spread

    def multiply(*given: Any) -> tuple[Any, ...]:
        _, warp, lane = here()
        parts = given[:4], given[4:8], given[8:]
        found: tuple[Any, ...] = warp.together(lane, name, parts, compute)
        return found

    return multiply


mma_tf32 = product("mma_tf32", tf32_of)
mma_bf16 = product("mma_bf16", bf16_of)


def larger(a: Any, b: Any) -> Any:
    return b if b > a or b != b else a


def larger_bf16(a: Any, b: Any) -> Any:
    one, two = (bf16_of(np.array([np.float32(x).view(np.uint32)])) for x in (a, b))
    return as_bf16(*map(larger, one, two))


def bits_of(x: Any) -> Any:
    return np.float32(x).view(np.uint32)


def float_of(word: Any) -> Any:
    return np.uint32(word).view(np.float32)


def as_tf32(x: Any) -> Any:
    word = np.float32(x).view(np.uint32)
    if not np.isfinite(x):
        return np.float32(x)
    return ((word + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def as_bf16(low: Any, high: Any) -> Any:
    return (_half(low) | (_half(high) << np.uint32(16))).view(np.float32)


def _half(x: Any) -> Any:
    word = np.float32(x).view(np.uint32)
    if np.isnan(x):
        return np.uint32(0x7FFF)
    return (word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
