"""Kernels' machine code, kept as object files and loaded without the compiler.

Numba takes half a second before it compiles anything, or reads back what it compiled. So each
kernel's object code is kept in a file of its own, named by the kernel and the CPU it was compiled
for, and LLVM's linker brings it into a later process in a millisecond. A file that is damaged, or
that asks for something that is not in this process, is as good as none: the kernel is compiled.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
from functools import cache as once
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from netdsl.cpu import cache

DIGEST = hashlib.sha256().digest_size

INDIFFERENT = {"NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER"}
"""Settings of Numba that leave machine code as it is."""

UNCALLED = {"NRT_Free": "free"}
"""What code names that Numba defines when it first compiles, for errors that no kernel raises; and
what may stand for it."""

_engines: list[Any] = []
"""They hold the code, so live as long as the process."""


def load(name: str) -> int | None:
    """The address of a kept kernel's code; None where none is kept that can be used."""
    try:
        content = place(name).read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[DIGEST:]).digest() != content[:DIGEST]:
        return None
    head, _, code = content[DIGEST:].partition(b"\n")
    about = json.loads(head)
    if not all(map(_known, about["needs"])):
        return None
    return linked(about["symbol"], code)


def keep(name: str, symbol: str, needs: list[str], code: bytes) -> None:
    """Keeps a kernel's object code, if the folder can be written. needs: the symbols from outside
    that it names."""
    head = json.dumps({"symbol": symbol, "needs": needs}).encode()
    content = head + b"\n" + code
    path = place(name)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(hashlib.sha256(content).digest() + content)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def place(name: str) -> Path:
    """The file of a kernel compiled for this CPU."""
    return cache.folder() / f"{name}-{cpu()}.o"


@once
def cpu() -> str:
    """What machine code hangs on beside its source: the CPU, LLVM, and Numba's settings."""
    given = {k: v for k, v in os.environ.items() if k.startswith("NUMBA_") and k not in INDIFFERENT}
    facts = (
        llvm.get_process_triple(),
        llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(),
        llvmlite.__version__,
        sorted(given.items()),
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def linked(symbol: str, code: bytes) -> int:
    """The address of a function of an object file, brought into this process. The file must be
    one that was made here: LLVM takes it as it is."""
    _begin()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return int(engine.get_function_address(symbol))


def assembled(source: str) -> bytes:
    """The object code of a module in LLVM's language."""
    _begin()
    return bytes(_machine().emit_object(llvm.parse_assembly(source)))


@once
def _begin() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def _machine() -> Any:
    """A compiler's back end for this CPU; each engine takes one over."""
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(reloc="default", codemodel="jitdefault", jit=True)


def _known(symbol: str) -> bool:
    """Whether a symbol can be linked, be it by what stands for it."""
    if llvm.address_of_symbol(symbol) is not None:
        return True
    if symbol in UNCALLED:
        with contextlib.suppress(AttributeError, TypeError):
            stand_in = getattr(ctypes.CDLL(None), UNCALLED[symbol])
            llvm.add_symbol(symbol, ctypes.cast(stand_in, ctypes.c_void_p).value)
            return True
    return False
