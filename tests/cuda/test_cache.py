"""What is kept of compiled CUDA kernels, and what is not believed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdsl.cuda import cache

CODE = bytes(range(256)) * 9


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kept"))
    cache.folder.cache_clear()
    yield cache.folder()
    cache.folder.cache_clear()


def test_what_is_written_is_read(kept: Path) -> None:
    assert cache.read("one") is None
    cache.write("one", {"entry": "kernel"}, CODE)
    found = cache.read("one")
    assert found is not None
    assert found[0]["entry"] == "kernel"
    assert found[1] == CODE
    assert cache.read("two") is None
    assert [path.name for path in kept.iterdir()] == ["one"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:5],
        lambda data: b"",
        lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
        lambda data: data.replace(b"kernel 1", b"kernel 2"),
        lambda data: data.replace(b'"sha256"', b'"sha257"'),
        lambda data: cache.MAGIC + b"[1]\n" + CODE,
        lambda data: cache.MAGIC + b"\xff\xfe\n" + CODE,
    ],
)
def test_a_damaged_file_is_none(kept: Path, damage: Callable[[bytes], bytes]) -> None:
    cache.write("one", {"entry": "kernel"}, CODE)
    path = kept / "one"
    path.write_bytes(damage(path.read_bytes()))
    assert cache.read("one") is None
    cache.write("one", {"entry": "kernel"}, CODE)
    assert cache.read("one") is not None


@pytest.mark.skipif(os.name == "nt", reason="files there belong to nobody")
@pytest.mark.parametrize(("which", "mode"), [("", 0o770), ("", 0o707), ("one", 0o620)])
def test_what_others_can_write_is_not_believed(kept: Path, which: str, mode: int) -> None:
    cache.write("one", {"entry": "kernel"}, CODE)
    assert cache.read("one") is not None
    (kept / which).chmod(mode)
    assert cache.read("one") is None


@pytest.mark.skipif(os.name == "nt", reason="files there belong to nobody")
def test_what_others_own_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write("one", {"entry": "kernel"}, CODE)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    assert cache.read("one") is None


def test_a_link_to_another_folder_is_not_followed(kept: Path, tmp_path: Path) -> None:
    cache.write("one", {"entry": "kernel"}, CODE)
    kept.rename(tmp_path / "other")
    kept.symlink_to(tmp_path / "other")
    assert cache.read("one") is None


def test_a_folder_that_cannot_be_made_costs_nothing_else(kept: Path) -> None:
    kept.parent.write_text("in the way")
    cache.write("one", {"entry": "kernel"}, CODE)
    assert cache.read("one") is None
    cache.used()


def test_a_full_disk_leaves_nothing_behind(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write("one", {"entry": "kernel"}, CODE)

    class Full:
        def __init__(self, number: int) -> None:
            self.number = number

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            os.close(self.number)

        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", lambda number, mode: Full(number))
    cache.write("two", {"entry": "kernel"}, CODE)
    assert [path.name for path in kept.iterdir()] == ["one"]


def test_writers_at_once_leave_one_whole_file(kept: Path) -> None:
    def write(i: int) -> bool:
        cache.write("one", {"entry": f"kernel{i}"}, CODE * (1 + i % 5))
        return cache.read("one") is not None

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write, range(80)))
    assert [path.name for path in kept.iterdir()] == ["one"]


def test_the_folder_goes_by_the_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache.folder()
    cache.folder.cache_clear()
    assert cache.folder() == before
    monkeypatch.setattr(cache, "_version", lambda package: f"another {package}")
    cache.folder.cache_clear()
    assert cache.folder() != before
    assert cache.folder().name.startswith("kernels-")


def made(*held: Any) -> Callable[[], Any]:
    def kernel() -> Any:
        return held

    return kernel


def test_kernels_are_told_apart_by_what_was_put_into_them() -> None:
    words = [cache.described(made(*held)) for held in ((1,), (2,), (np.float32(1),), ("1", (2, 3)))]
    assert None not in words
    assert len(set(words)) == 4
    assert cache.described(made(1)) == cache.described(made(1))
    assert cache.described(made(made(1))) != cache.described(made(made(2)))
    assert cache.described(made(object())) is None


class Library:
    _linking_files: frozenset[str] = frozenset()

    def get_cubin(self) -> Any:
        return type("Cubin", (), {"code": CODE})


def test_a_kernel_is_kept_for_its_card_and_types(
    monkeypatch: pytest.MonkeyPatch, kept: Path
) -> None:
    kernel = type("K", (), {"library": Library(), "cooperative": False, "entry_name": "entry"})
    card = ["sm_90"]
    monkeypatch.setattr(cache, "_card", lambda: card[0])
    loaded = []

    def rebuilt(name: str, sig: Any, entry: str, code: bytes) -> Any:
        loaded.append((name, sig, entry, code))
        return type("Loaded", (), {"bind": lambda self: None})()

    monkeypatch.setattr(cache, "rebuilt", rebuilt)
    one = cache.KernelCache(made(1))
    one.save_overload("(float32)", kernel)
    assert one.load_overload("(float32)", None) is not None
    assert loaded == [("kernel", "(float32)", "entry", CODE)]
    assert one.load_overload("(float64)", None) is None
    assert cache.KernelCache(made(2)).load_overload("(float32)", None) is None
    card[0] = "sm_80"
    assert one.load_overload("(float32)", None) is None
    unsaid = cache.KernelCache(made(object()))
    unsaid.save_overload("(float32)", kernel)
    assert len(list(kept.iterdir())) == 1


def test_code_that_does_not_load_is_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: Any) -> Any:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(cache, "_card", lambda: "sm_90")
    monkeypatch.setattr(cache, "rebuilt", refused)
    one = cache.KernelCache(made(1))
    cache.write(one._file("()"), {"entry": "entry"}, CODE)
    assert one.load_overload("()", None) is None
