"""Compiled kernels are kept, and whatever befalls the folder costs time and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numba import njit
from numba.core.caching import NullCache
from numpy.typing import NDArray

from netdsl import kept as kept_files
from netdsl.cpu import cache, host, native, region
from netdsl.cpu.launch import PARTS, Worker, compile_all
from netdsl.cpu.numba_cache import cache_for

TWICE = """
import sys
import numpy as np
from netdsl import cpu
from netdsl.lang import load

seen = []
graph = load("input 3x4x4; relu")
plan = cpu.compile(graph, {}, batch=1, progress=lambda *step: seen.append(step))
x = np.arange(-24, 24, dtype=np.float32).reshape(1, 3, 4, 4)
assert (plan.run({"input": x})["relu1"] == np.maximum(x, 0)).all()
heavy = sorted({"numba", "llvmlite"} & set(sys.modules))
print(len(seen), *heavy, cpu.info()["cache"], *(name for _, _, name in seen))
"""


def double(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    for i in range(part, 8, parts):
        arena[i] = 2 * arena[i]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Worker]:
    """Makes the same worker afresh, its code kept in an empty folder."""
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "kernels")
    return lambda: Worker(double)


def doubles(worker: Worker) -> bool:
    """Whether the worker does its work."""
    arena, d = np.arange(8, dtype=np.float32), np.zeros(PARTS + 1, np.int64)
    d[PARTS] = 2
    worker(arena, arena, d)
    return bool((arena == 2 * np.arange(8)).all())


def compiled(worker: Worker) -> int:
    """How many kernels are compiled to make the worker ready."""
    region.prepare()
    return compile_all([worker], None)


def test_a_kernel_is_compiled_once(kept: Callable[[], Worker]) -> None:
    first = kept()
    assert not first.ready
    assert compiled(first) == 1
    assert first.ready
    assert doubles(first)
    again = kept()
    assert again.ready
    assert compiled(again) == 0
    assert doubles(again)


def test_progress_is_told_of_what_has_to_be_compiled(kept: Callable[[], Worker]) -> None:
    steps: list[tuple[int, int, str]] = []

    def progress(done: int, total: int, name: str) -> None:
        steps.append((done, total, name))

    region.prepare()
    compile_all([kept()], progress)
    assert steps == [(0, 1, "double"), (1, 1, "")]
    steps.clear()
    compile_all([kept()], progress)
    assert steps == []


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda code: b"",
    lambda code: b"not code",
    lambda code: code[:-100],
    lambda code: code[:-500] + bytes([code[-500] ^ 1]) + code[-499:],
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_compiled_again(
    kept: Callable[[], Worker], damage: Callable[[bytes], bytes]
) -> None:
    assert doubles(kept())
    (path,) = cache.folder().iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    again = kept()
    assert compiled(again) == 1
    assert doubles(again)
    assert compiled(kept()) == 0


def test_code_that_names_what_is_not_here_is_not_taken(kept: Callable[[], Worker]) -> None:
    native.keep("some", "symbol", ["no_such_function_anywhere"], b"code")
    assert native.place("some").is_file()
    assert native.load("some") is None


def test_a_full_disk_costs_time_alone(
    kept: Callable[[], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert doubles(kept())
    assert list(cache.folder().iterdir()) == []
    assert doubles(kept())


def test_a_folder_that_cannot_be_written_is_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "file" / "kernels")
    worker = Worker(double)
    assert not worker.ready
    assert doubles(worker)


def scaled(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return 3 * x


@pytest.mark.parametrize("content", [b"", b"not a cache", b"\x80\x04"])
def test_parallel_functions_are_kept_by_numba_and_damage_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "kernels")
    x = np.ones(3, np.float32)
    for damaged in (False, True):
        made = njit(scaled)
        made._cache = cache_for(scaled)
        assert (made(x) == 3).all()
        assert made._cache_hits[made.signatures[0]] == 0
        files = [path for path in cache.folder().rglob("*") if path.is_file()]
        assert len(files) == 2
        if not damaged:
            for path in files:
                path.write_bytes(content)


def test_parallel_functions_without_a_folder_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "file" / "kernels")
    assert isinstance(cache_for(scaled), NullCache)


def test_the_folder_is_the_users_and_named_by_the_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    cache.folder.cache_clear()
    try:
        assert cache.folder().parent == tmp_path / "netdsl"
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "given"))
        cache.folder.cache_clear()
        assert cache.folder().parent == tmp_path / "given"
        assert cache.folder().name.startswith("kernels-")
    finally:
        cache.folder.cache_clear()


def test_what_other_versions_compiled_goes_when_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "kernels-ours")
    now = time.time()
    for name, days in {"ours": 50, "old": 40, "recent": 20, "today": 0}.items():
        folder = tmp_path / f"kernels-{name}"
        (folder / "cpu").mkdir(parents=True)
        (folder / "cpu" / "kernel.nbc").write_bytes(b"code")
        os.utime(folder, (now - days * kept_files.DAY,) * 2)
    (tmp_path / "data").mkdir()
    kept_files.used(cache.folder())
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"kernels-ours", "kernels-recent", "kernels-today", "data"}
    monkeypatch.setattr(kept_files, "MOST", 2)
    kept_files.used(cache.folder())  # ours was used a moment ago: nothing is looked at
    assert {path.name for path in tmp_path.iterdir()} == left
    kept_files.prune(cache.folder(), now)
    assert {path.name for path in tmp_path.iterdir()} == left - {"kernels-recent"}


def processes(folder: Path, count: int) -> list[str]:
    """What as many processes at once print, all with this cache."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder)}
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", TWICE],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    said = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0] * count, said
    return [out for out, _ in said]


def test_a_start_that_finds_its_kernels_imports_no_compiler(tmp_path: Path) -> None:
    (first,) = processes(tmp_path, 1)
    (later,) = processes(tmp_path, 1)
    _, *heavy, folder, names = first.split(maxsplit=4)
    assert heavy == ["llvmlite", "numba"]
    assert later.split() == ["0", folder]
    assert "bent" in names.split()  # the kernel itself, and not only those that pack weights


def test_what_llvm_says_of_the_cpu_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    assert host.told(path) is None
    assert host._asked(path) == host.told(path) == host.host()
    path.write_bytes(path.read_bytes()[:-1])
    assert host.told(path) is None


@pytest.mark.slow
def test_processes_share_the_folder(tmp_path: Path) -> None:
    assert all(str(tmp_path) in said for said in processes(tmp_path, 3))
    (later,) = processes(tmp_path, 1)
    assert later.startswith("0 ")
