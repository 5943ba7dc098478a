"""A kernel's code is optimised once, with all that it calls, and Numba is left as it was."""

from __future__ import annotations

import ctypes
import sys

import numpy as np
import pytest
from numba import njit
from numba.core.codegen import CPUCodeLibrary, JITCodeLibrary
from numba.core.registry import cpu_target

from netdsl.cpu import late
from netdsl.cpu.compiler import compiled
from netdsl.cpu.launch import PARTS, Worker


@late.njit()
def least(a, b):  # type: ignore[no-untyped-def]
    return min(a, b)


@late.njit(forceinline=True)
def clipped(a):  # type: ignore[no-untyped-def]
    return max(least(a, 3.0), np.float32(1.0))


def clip(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    for i in range(part, 8, parts):
        arena[i] = clipped(arena[i])


def test_what_a_kernel_calls_is_not_compiled_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for name in ("_optimize_final_module", "_finalize_final_module"):
        whole = getattr(CPUCodeLibrary, name)

        def noted(self: CPUCodeLibrary, name: str = name, whole: object = whole) -> None:
            done.append(name)
            assert callable(whole)
            whole(self)

        monkeypatch.setattr(CPUCodeLibrary, name, noted)
    assert compiled(clip).address
    assert done == ["_optimize_final_module", "_finalize_final_module"]


def test_it_calls_them_all_the_same() -> None:
    worker = Worker(clip)
    worker._address = compiled(clip).address
    arena, d = np.arange(8, dtype=np.float32), np.zeros(PARTS + 1, np.int64)
    d[PARTS] = 2
    worker(arena, arena, d)
    assert (arena == np.clip(np.arange(8), 1, 3)).all()


def test_functions_of_others_are_whole() -> None:
    held = [compiled(clip)]  # which made parts of what Numba itself says of min and max

    def between(x, low, high):  # type: ignore[no-untyped-def]
        return max(min(x, np.float32(high)), np.float32(low))

    assert cpu_target.target_context.codegen()._library_class is JITCodeLibrary
    assert njit(between)(np.float32(5), 1.0, 3.0) == 3
    assert held


def test_a_kernel_that_is_wrong_leaves_numba_as_it_was() -> None:
    def wrong(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
        return arena.nothing

    with pytest.raises(Exception, match="nothing"):
        compiled(wrong)
    assert cpu_target.target_context.codegen()._library_class is JITCodeLibrary


@pytest.mark.parametrize("raised", [KeyboardInterrupt, ValueError])
def test_an_interrupt_in_a_callback_is_not_lost(
    raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As LLVM's calls of Python lose it. Whatever else is lost there is left to others."""
    others: list[object] = []
    whole = CPUCodeLibrary._optimize_final_module

    def call() -> None:
        raise raised

    def disturbed(self: CPUCodeLibrary) -> None:
        ctypes.CFUNCTYPE(None)(call)()
        whole(self)

    monkeypatch.setattr(CPUCodeLibrary, "_optimize_final_module", disturbed)
    monkeypatch.setattr(sys, "unraisablehook", lambda one: others.append(one.exc_type))
    hook = sys.unraisablehook
    if raised is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            compiled(clip)
    else:
        assert compiled(clip).address
    assert others == ([] if raised is KeyboardInterrupt else [raised])
    assert sys.unraisablehook is hook
