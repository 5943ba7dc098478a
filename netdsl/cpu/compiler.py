"""A worker's Python into machine code: what needs Numba and LLVM, imported when one is compiled."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from llvmlite import binding
from numba.core import types
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from netdsl.cpu.late import real

FLOATS, INTS = types.CPointer(types.float32), types.CPointer(types.int64)
SIGNATURE = types.void(FLOATS, FLOATS, INTS, types.int64, types.int64)


class Compiled(NamedTuple):
    """A worker's machine code. address: where it lies in this process; code: as an object file,
    in which it is called `symbol`; needs: the symbols from outside that the file names. holder
    keeps the code in memory."""

    address: int
    symbol: str
    needs: list[str]
    code: bytes
    holder: Any


class Part(JITCodeLibrary):
    """What Numba makes of a function, as a part of a kernel's code.

    Numba optimises each function with all that it calls, makes machine code of it and brings that
    into memory, before it does the same with those that call it, so a tile that a kernel calls
    through four functions is compiled five times. Of a part none of this is done until it is said
    to be the whole.
    """

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return 0

    @property
    def codegen(self) -> Any:
        """Who would be told where the function's surroundings in Python are. It has none."""
        return self

    def set_env(self, name: str, env: Any) -> None:
        pass

    def address(self, name: str) -> int:
        """Where a function of it lies, all of it being optimised and brought into memory."""
        self.finalize()
        super()._optimize_final_module()
        super()._finalize_final_module()
        return int(super().get_pointer_to_function(name))


@contextmanager
def _in_parts() -> Iterator[None]:
    """Lets Numba make parts. Other Python threads, which may want whole functions, wait."""
    codegen = cpu_target.target_context.codegen()
    with global_compiler_lock:
        before = codegen._library_class
        codegen._library_class = Part
        try:
            yield
        finally:
            codegen._library_class = before


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is raised at the end where LLVM, calling Python back, would print and forget it."""
    lost, before = [], sys.unraisablehook

    def hook(ignored: Any) -> None:
        if issubclass(ignored.exc_type, KeyboardInterrupt):
            lost.append(ignored.exc_type)
        else:
            before(ignored)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
    if lost:
        raise KeyboardInterrupt


def compiled(function: Callable[..., None]) -> Compiled:
    """Compiles a worker for this CPU."""
    binding.initialize_native_asmparser()  # for what tiles write in a CPU's own instructions
    options = {"nopython": True, "boundscheck": False, "error_model": "numpy"}
    args = (SIGNATURE.args, SIGNATURE.return_type)
    made = CFunc(real(function), args, locals={}, options=options)
    with _interruptible(), _in_parts():
        made.compile()
        library = made._library
        address = library.address(made.native_name)
    module = library._final_module
    needs = [
        each.name
        for each in (*module.functions, *module.global_variables)
        if each.is_declaration and not each.name.startswith("llvm.")
    ]
    return Compiled(address, made.native_name, needs, bytes(library._get_compiled_object()), made)
