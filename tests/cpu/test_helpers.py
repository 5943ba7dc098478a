"""Other processes help to compile, and whatever befalls them costs time and nothing else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netdsl.cpu import (
    arrange,
    cache,
    direct_kernel,
    helpers,
    memory,
    native,
    pack,
    region,
    threads,
    winograd_kernel,
)
from netdsl.cpu.helper import greeting
from netdsl.cpu.helpers import Helper
from netdsl.cpu.launch import Worker, compile_all
from netdsl.cpu.table import RECIPES, Recipe

MODULES = {"pack_planar": arrange, "unpack": arrange, "pack_blocks": pack}
"""Kernels that are compiled quickly, and where they lie."""


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Worker]]:
    """Kernels that are not compiled, and will be kept in an empty folder; two cores."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(threads, "available", lambda: 2)
    monkeypatch.setattr(memory, "available", lambda: None)
    region.prepare()
    cache.folder.cache_clear()
    for name, module in MODULES.items():
        monkeypatch.setattr(module, name, Worker(getattr(module, name)._function))
    yield [getattr(module, name) for name, module in MODULES.items()]
    cache.folder.cache_clear()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Helper]:
    """The helpers that are started in a test."""
    found: list[Helper] = []
    start = Helper.__init__

    def noted(self: Helper) -> None:
        start(self)
        found.append(self)

    monkeypatch.setattr(Helper, "__init__", noted)
    return found


def ended(helper: Helper) -> bool:
    return helper._process.poll() is not None


def own(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that this process compiles, from now on."""
    found: list[str] = []
    compiled = Worker._compile

    def noted(self: Worker) -> int:
        found.append(self.name)
        return compiled(self)

    monkeypatch.setattr(Worker, "_compile", noted)
    return found


def test_a_helper_makes_what_this_process_loads(
    workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = own(monkeypatch)
    helper = Helper()
    try:
        assert helper.ready()
        for kernel in workers:
            assert kernel.named
            assert not kernel.ready
            assert helper.makes(kernel.file)
            assert kernel.ready
            assert kernel.address
    finally:
        helper.kill()
        helper.close()
    assert here == []


def test_kernels_are_shared_and_all_are_told_of(
    workers: list[Worker], started: list[Helper], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[int, int, str]] = []
    here = own(monkeypatch)
    waited: list[bool] = []
    take = helpers.Shared.take

    def late(self: helpers.Shared) -> Worker | None:
        # Until the helper has been given one, or this process might be through with all before.
        for _ in range(0 if waited else 6000):
            if self._given:
                break
            time.sleep(0.01)
        waited.append(True)
        return take(self)

    monkeypatch.setattr(helpers.Shared, "take", late)
    assert compile_all(workers, lambda *step: steps.append(step)) == len(workers)
    assert len(started) == 1
    assert ended(started[0])
    assert len(here) < len(workers)
    assert all(kernel.ready for kernel in workers)
    assert [done for done, _, _ in steps] == [*range(len(workers)), len(workers)]
    assert {total for _, total, _ in steps} == {len(workers)}
    assert {name for _, _, name in steps} == {*(k.name.replace("_", " ") for k in workers), ""}


FAILING = {
    "dies at once": "raise SystemExit(1)",
    "is another version": "print('other')",
    "prints bytes": "sys.stdout.buffer.write(b'\\xff\\n\\0')",
    "dies at work": "say(GREETING); sys.stdin.readline()",
    "answers something else": "say(GREETING); sys.stdin.readline(); say('other')",
    "keeps nothing": "say(GREETING); [say(line.strip()) for line in sys.stdin]",
    "hangs": "say(GREETING); import time; time.sleep(600)",
    "hangs before": "import time; time.sleep(600)",
}


@pytest.mark.parametrize("fault", FAILING)
def test_what_a_helper_fails_to_make_is_compiled_here(
    fault: str,
    workers: list[Worker],
    started: list[Helper],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = f"import sys; say = lambda line: print(line, flush=True); GREETING = {greeting()!r}; "
    monkeypatch.setattr(helpers, "START", head + FAILING[fault])
    monkeypatch.setattr(helpers, "PATIENCE", 1)
    assert compile_all(workers, None) == len(workers)
    assert all(kernel.address for kernel in workers)
    assert all(native.place(kernel.file).is_file() for kernel in workers)
    assert list(map(ended, started)) == [True]


def test_no_process_is_left_after_an_interrupt(
    workers: list[Worker], started: list[Helper]
) -> None:
    def interrupt(done: int, total: int, name: str) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_all(workers, interrupt)
    assert list(map(ended, started)) == [True]


def test_a_helper_ends_when_nobody_can_ask_it(workers: list[Worker]) -> None:
    helper = Helper()
    assert helper.ready()
    assert helper._process.stdin is not None
    print(workers[0].file, file=helper._process.stdin)
    helper._process.stdin.close()
    assert helper._process.wait(timeout=60) == 0
    helper.close()


def nothing_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(self: Helper) -> None:
        raise AssertionError("a helper was started")

    monkeypatch.setattr(Helper, "__init__", started)


def test_one_kernel_needs_no_helper(workers: list[Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_started(monkeypatch)
    assert compile_all(workers[:1], None) == 1


UNFIT: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "one core": lambda patch: patch.setattr(threads, "available", lambda: 1),
    "little memory": lambda patch: patch.setattr(memory, "available", lambda: 1 << 20),
    "no Python": lambda patch: patch.setattr(sys, "executable", "/opt/editor/bin/editor"),
    "nothing known": lambda patch: patch.setattr(sys, "executable", None),
    "frozen": lambda patch: patch.setattr(sys, "frozen", True, raising=False),
}


@pytest.mark.parametrize("what", UNFIT)
def test_where_helpers_cannot_be_or_do_not_pay_none_is_started(
    what: str, workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    UNFIT[what](monkeypatch)
    nothing_started(monkeypatch)
    assert compile_all(workers[:2], None) == 2


def test_without_a_folder_none_is_started(
    workers: list[Worker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    cache.folder.cache_clear()
    nothing_started(monkeypatch)
    assert compile_all(workers[:2], None) == 2


def test_a_system_that_starts_no_process_is_done_without(
    workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("subprocess.Popen", full)
    assert compile_all(workers[:2], None) == 2


def test_as_many_helpers_as_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: None)
    monkeypatch.setattr(threads, "available", lambda: 64)
    assert [helpers.worthwhile(n) for n in range(6)] == [0, 0, 1, 2, 3, 3]
    monkeypatch.setattr(threads, "available", lambda: 2)
    assert helpers.worthwhile(20) == 1
    monkeypatch.setattr(memory, "available", lambda: helpers.ROOM - 1)
    assert helpers.worthwhile(20) == 0


def test_the_longest_come_first() -> None:
    kernels = [arrange.unpack, direct_kernel.direct, pack.pack_blocks, winograd_kernel.winograd]
    work = helpers.Shared(kernels)
    assert [kernel.name for kernel in iter(work.take, None)] == [
        "winograd",
        "direct",
        "unpack",
        "pack_blocks",
    ]
    assert set(helpers.LONG) < {kernel.name for r in RECIPES.values() for kernel in every(r)}


def every(recipe: Recipe) -> tuple[Worker, ...]:
    return (*recipe.kernels, *recipe.half, *recipe.short, *recipe.matrix, *recipe.thirds)


def double(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    arena[part] = 2 * arena[part]


def test_what_other_packages_define_is_not_given_away() -> None:
    assert not Worker(double).named
    assert not Worker(pack.pack_blocks._function).named
    assert pack.pack_blocks.named
