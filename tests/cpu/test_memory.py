"""Arrays lent to compiled code, and memory given back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from netdsl.cpu import memory, task
from netdsl.faults import NetError


def test_arrays_are_lent_without_a_copy_where_that_can_be() -> None:
    numbers = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert np.shares_memory(memory.lent(numbers), numbers)
    numbers.flags.writeable = False
    borrowed = memory.lent(numbers)
    assert borrowed.flags.writeable
    assert borrowed.ctypes.data == numbers.ctypes.data
    np.testing.assert_array_equal(borrowed, numbers.reshape(-1))


def test_other_arrays_are_lent_as_copies() -> None:
    numbers = np.arange(12, dtype=np.float64).reshape(3, 4)
    numbers.flags.writeable = False
    np.testing.assert_array_equal(memory.lent(numbers.T), numbers.T.reshape(-1))
    assert memory.lent(np.zeros((0, 3), np.float32)).shape == (0,)
    every_other = np.arange(12, dtype=np.float32)[::2]
    every_other.flags.writeable = False
    np.testing.assert_array_equal(memory.lent(every_other), every_other)


def test_room_for_weights_is_each_its_own_on_a_cache_line() -> None:
    params = task.LooseParams()
    sizes = (1, 16, 17, 1000, task.SLAB // 4, task.SLAB // 4 + 1, 5, *([task.SLAB // 5] * 6))
    rooms = [params.room(size) for size in sizes]
    for number, (room, size) in enumerate(zip(rooms, sizes, strict=True), 1):
        assert room.shape == (size,)
        assert room.ctypes.data % 64 == 0
        assert room[0] == room[-1] == 0
        room[[0, -1]] = number
    for number, room in enumerate(rooms, 1):
        assert room[0] == room[-1] == number
        place = params.add(room)
        assert params.base.ctypes.data + 4 * place == room.ctypes.data


def test_what_is_mapped_is_there_again_when_read(tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    np.arange(1_000_000, dtype=np.float32).tofile(path)
    whole = np.memmap(path, np.float32, "r").view(np.ndarray)
    for mapped in (whole.reshape(1000, 1000), whole[3333:-55555], whole[:99], whole[::2]):
        before = mapped.copy()
        memory.let_go(mapped)
        np.testing.assert_array_equal(mapped, before)
        memory.let_go(before)
        np.testing.assert_array_equal(mapped, before)


def resident(ending: str) -> int:
    """kB of a file, by its name's end, that are in this process's memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    assert next(line for line in lines if line.endswith(ending))
    return int(next(line for line in lines if line.startswith("Rss:")).split()[1])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="nobody says what is in memory")
def test_what_is_let_go_is_in_memory_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "numbers to let go"
    np.arange(4_000_000, dtype=np.float32).tofile(path)
    whole = np.memmap(path, np.float32, "r").view(np.ndarray)

    assert whole.sum() > 0
    full = resident(path.name)
    assert full >= 15_000
    memory.let_go(whole[1_000_000:3_000_000])
    assert resident(path.name) <= full - 7_000


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="nobody says what is in memory")
def test_files_are_let_go_of_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "numbers of a file"
    np.arange(4_000_000, dtype=np.float32).tofile(path)
    whole = np.memmap(path, np.float32, "r").view(np.ndarray)
    assert whole.sum() > 0
    assert resident(path.name) >= 15_000
    memory.let_go_files([whole[:10], whole[99:200], np.ones(3, np.float32)])
    assert resident(path.name) < 1_000
    np.testing.assert_array_equal(whole, np.arange(4_000_000, dtype=np.float32))


def test_what_was_written_to_a_copy_stays(tmp_path: Path) -> None:
    path = tmp_path / "numbers that change"
    np.zeros(1_000_000, np.float32).tofile(path)
    mine = np.memmap(path, np.float32, "c").view(np.ndarray)
    mine[:] = 3.0
    memory.let_go(mine)
    memory.let_go_files([mine])
    assert (mine == 3.0).all()


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.available() == 2000
    memory.check("net", 4, 2000)
    with pytest.raises(NetError, match="net with 4 samples at once needs"):
        memory.check("net", 4, 2001)
    (tmp_path / "memory.max").write_text("max\n")
    assert (memory.available() or 0) > 2000
