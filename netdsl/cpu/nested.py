"""What a worker runs other workers by (stripes.py)."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from netdsl.cpu.compiler import FLOATS, INTS
from netdsl.cpu.layout import WORKER


@intrinsic
def run_worker(typing: Any, arena: Any, params: Any, d: Any) -> Any:
    """Runs the worker of a descriptor, all of its work."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        number = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [*(a.type for a in args), number, number])
        address = builder.load(builder.gep(args[2], [ir.Constant(number, WORKER)]))
        function = builder.inttoptr(address, kind.as_pointer())
        builder.call(function, [*args, ir.Constant(number, 0), ir.Constant(number, 1)])
        return context.get_dummy_value()

    return types.void(FLOATS, FLOATS, INTS), lower
