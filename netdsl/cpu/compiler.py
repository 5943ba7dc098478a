"""A worker's Python into machine code: what needs Numba and LLVM, imported when one is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import binding
from numba.core import types
from numba.core.ccallback import CFunc

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


def compiled(function: Callable[..., None]) -> Compiled:
    """Compiles a worker for this CPU."""
    binding.initialize_native_asmparser()  # for what tiles write in a CPU's own instructions
    options = {"nopython": True, "boundscheck": False, "error_model": "numpy"}
    args = (SIGNATURE.args, SIGNATURE.return_type)
    made = CFunc(real(function), args, locals={}, options=options)
    made.compile()
    library = made._library
    module = library._final_module
    needs = [
        each.name
        for each in (*module.functions, *module.global_variables)
        if each.is_declaration and not each.name.startswith("llvm.")
    ]
    code = library._get_compiled_object()
    return Compiled(int(made.address), made.native_name, needs, bytes(code), made)
