"""Object files brought into memory without LLVM do what they do with it."""

from __future__ import annotations

import ctypes
import math
import platform
import sys
from collections.abc import Callable

import pytest

from netdsl.cpu import elf, native

SOURCE = """
@table = internal constant [3 x i64] [i64 5, i64 7, i64 11]
@seen = common global i64 0
@count = internal global i64 40
@pointer = internal global ptr @count
declare double @pow(double, double)

define internal i64 @of_table(i64 %i) {
  %at = getelementptr [3 x i64], ptr @table, i64 0, i64 %i
  %found = load i64, ptr %at
  ret i64 %found
}

define i64 @sums(i64 %i, double %x) noinline {
  %a = call i64 @of_table(i64 %i)
  %where = load ptr, ptr @pointer
  %b = load i64, ptr %where
  %b2 = add i64 %b, 1
  store i64 %b2, ptr %where
  %p = call double @pow(double %x, double 2.5)
  %c = fptosi double %p to i64
  %d = load i64, ptr @seen
  %d2 = add i64 %d, 100
  store i64 %d2, ptr @seen
  %ab = add i64 %a, %b
  %cd = add i64 %c, %d
  %all = add i64 %ab, %cd
  ret i64 %all
}
"""

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux", reason="for x86-64 Linux alone"
)

Sums = Callable[[int, float], int]


def function(address: int) -> Sums:
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_double)(address)


@pytest.fixture(scope="module")
def code() -> bytes:
    return native.assembled(SOURCE)


def test_code_constants_variables_and_calls(code: bytes) -> None:
    found = function(native.linked("sums", code, {}))
    ours = function(elf.loaded(code, "sums", lambda name: native._address(name, {})))
    for turn, (i, x) in enumerate([(0, 1.0), (2, 3.7), (1, 100.0)]):
        wanted = (5, 7, 11)[i] + 40 + turn + int(math.pow(x, 2.5)) + 100 * turn
        assert found(i, x) == ours(i, x) == wanted


def test_each_loading_has_its_own_variables(code: bytes) -> None:
    first, again = (function(native.linked("sums", code, {})) for _ in range(2))
    assert first(0, 0.0) == 45
    assert first(0, 0.0) == 146
    assert again(0, 0.0) == 45


def test_llvm_serves_what_is_laid_out_otherwise(
    code: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elf, "R_PC64", 1000)
    with pytest.raises(elf.UnfitError, match="relocation"):
        elf.loaded(code, "sums", lambda name: native._address(name, {}))
    assert function(native.linked("sums", code, {}))(0, 0.0) == 45


def test_what_is_missing_is_said(code: bytes) -> None:
    with pytest.raises(elf.UnfitError, match="pow"):
        elf.loaded(code, "sums", lambda name: None)
    with pytest.raises(elf.UnfitError):
        elf.loaded(code, "no_such_function", lambda name: native._address(name, {}))


@pytest.mark.parametrize("cut", [0, 10, 64, 200])
def test_what_is_no_object_file_is_refused(code: bytes, cut: int) -> None:
    with pytest.raises(elf.UnfitError):
        elf.loaded(code[:cut], "sums", lambda name: 0)
    with pytest.raises(elf.UnfitError):
        elf.loaded(b"\x7fELF" + bytes(200), "sums", lambda name: 0)
