"""Kernels' machine code, kept as object files and loaded without a compiler.

Numba takes half a second before it compiles anything, or reads back what it compiled. So each
kernel's object code is kept in a file of its own, named by the kernel and the CPU it was compiled
for. A later process brings it into memory by itself (`elf.py`), or by LLVM's linker where the file
is of another kind. A file that is damaged, or that asks for something that is not in this process,
is as good as none: the kernel is compiled.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping
from functools import cache as once
from pathlib import Path
from typing import Any

from netdsl import kept
from netdsl.cpu import cache, elf, host

UNCALLED = {"NRT_Free": "free"}
"""What code names that Numba defines, for errors that no kernel raises, and what may stand for it;
for all that begins with `numba_`, the end of the process."""

Known = Mapping[str, int]
"""Addresses of symbols that no library tells by name."""

NOTHING: Known = {}

_engines: list[Any] = []
"""They hold the code, so live as long as the process."""


def load(name: str, known: Known = NOTHING) -> int | None:
    """The address of a kept kernel's code; None where none is kept that can be used."""
    content = kept.read(place(name))
    if content is None:
        return None
    head, _, code = content.partition(b"\n")
    about = json.loads(head)
    found = {symbol: _address(symbol, known) for symbol in about["needs"]}
    if None in found.values():
        return None
    return linked(about["symbol"], code, {k: v for k, v in found.items() if v is not None})


def keep(name: str, symbol: str, needs: list[str], code: bytes) -> None:
    """Keeps a kernel's object code, if the folder can be written. needs: the symbols from outside
    that it names."""
    head = json.dumps({"symbol": symbol, "needs": needs}).encode()
    kept.write(place(name), head + b"\n" + code)


def place(name: str) -> Path:
    """The file of a kernel compiled for this CPU."""
    return cache.folder() / f"{name}-{host.digest()}.o"


def linked(symbol: str, code: bytes, known: Known) -> int:
    """The address of a function of an object file, brought into this process. The file must be
    one that was made here: it is taken as it is."""
    try:
        return elf.loaded(code, symbol, lambda name: _address(name, known))
    except (elf.UnfitError, OSError):
        return _linked_by_llvm(symbol, code, known)


def _linked_by_llvm(symbol: str, code: bytes, known: Known) -> int:
    import llvmlite.binding as llvm

    for name, address in known.items():
        if llvm.address_of_symbol(name) is None:
            llvm.add_symbol(name, address)
    _begin()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return int(engine.get_function_address(symbol))


def assembled(source: str) -> bytes:
    """The object code of a module in LLVM's language."""
    import llvmlite.binding as llvm

    _begin()
    return bytes(_machine().emit_object(llvm.parse_assembly(source)))


@once
def _begin() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def _machine() -> Any:
    """A compiler's back end for this CPU; each engine takes one over."""
    import llvmlite.binding as llvm

    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(reloc="default", codemodel="jitdefault", jit=True)


def _address(symbol: str, known: Known) -> int | None:
    """Where a symbol lies, or what stands for it; None where nothing does."""
    if symbol in known:
        return known[symbol]
    name = "abort" if symbol.startswith("numba_") else UNCALLED.get(symbol, symbol)
    for library in _libraries():
        try:
            return ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        except AttributeError:
            continue
    return None


@once
def _libraries() -> list[ctypes.CDLL]:
    """Where symbols are looked for: in this process, Python among it, and among the functions of
    mathematics."""
    found: list[ctypes.CDLL] = [ctypes.pythonapi]
    for name in (None, "libm.so.6"):
        try:
            found.append(ctypes.CDLL(name))
        except (OSError, TypeError):
            continue
    return found
