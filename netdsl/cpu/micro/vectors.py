"""What the generators of micro-kernels share: functions in LLVM's language on vectors of floats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llvmlite import ir
from numba.core import cgutils

LANES = 16
FLOAT, LONG, INT = ir.FloatType(), ir.IntType(64), ir.IntType(32)
FIRST_LEVEL, SECOND_LEVEL = 3, 2
"""Caches, as LLVM counts them."""


def ask(builder: ir.IRBuilder, place: ir.Value, level: int) -> None:
    """Asks for the cache line of a place ahead of time, into a level."""
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, INT, INT, INT])
    fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    how = [ir.Constant(INT, value) for value in (0, level, 1)]  # to read; level; data
    builder.call(fetch, [builder.bitcast(place, byte), *how])


def call_one(
    builder: ir.IRBuilder,
    wanted: ir.Value,
    functions: Iterable[tuple[int, ir.Function]],
    arguments: Sequence[ir.Value],
) -> None:
    """Calls the function with the number wanted, of some with their numbers; none for others."""
    after = builder.append_basic_block("called")
    chosen = builder.switch(wanted, after)
    for number, function in functions:
        way = builder.append_basic_block()
        chosen.add_case(ir.Constant(LONG, number), way)
        with builder.goto_block(way):
            builder.call(function, arguments)
            builder.branch(after)
    builder.position_at_end(after)


class Writer:
    """Writes a function(arena, params, t, *places): t points into a descriptor, places are numbers.

    lanes: the floats of a vector.
    """

    def __init__(self, module: ir.Module, name: str, places: int, lanes: int = LANES) -> None:
        self.type = ir.VectorType(FLOAT, lanes)
        self.lanes = lanes
        pointer, numbers = FLOAT.as_pointer(), LONG.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, pointer, numbers, *[LONG] * places])
        self.function = ir.Function(module, kind, name)
        self.function.linkage = "internal"
        self.function.attributes.add("noinline")
        self.function.attributes.add("nounwind")
        self.arena, self.params, self.t, *self.places = self.function.args
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))

    def field(self, index: int) -> ir.Value:
        return self.builder.load(self.builder.gep(self.t, [ir.Constant(LONG, index)]))

    def bound(self, index: int) -> ir.Value:
        bits = self.builder.trunc(self.field(index), INT)
        return self.spread(self.builder.bitcast(bits, FLOAT))

    def spread(self, value: ir.Value) -> ir.Value:
        nothing = ir.Constant(self.type, ir.Undefined)
        first = self.builder.insert_element(nothing, value, ir.Constant(INT, 0))
        order = ir.Constant(ir.VectorType(INT, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, nothing, order)

    def vector(self, base: ir.Value, *terms: ir.Value) -> ir.Value:
        """Pointer to a vector at base + terms."""
        for term in terms:
            base = self.builder.gep(base, [term])
        return self.builder.bitcast(base, self.type.as_pointer())

    def times(self, value: ir.Value, factor: int) -> ir.Value:
        return self.builder.mul(value, ir.Constant(LONG, factor))

    def load(self, place: ir.Value) -> ir.Value:
        found = self.builder.load(place)
        found.align = 4
        return found

    def clamped(self, value: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
        """Between low and high; NaN stays NaN, since a comparison with it is false."""
        b = self.builder
        value = b.select(b.fcmp_ordered("<", value, low), low, value)
        return b.select(b.fcmp_ordered(">", value, high), high, value)

    def muladd(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a b + c, in every lane."""
        kind = ir.FunctionType(self.type, [self.type] * 3)
        name = f"llvm.fmuladd.v{self.lanes}f32"
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, [a, b, c])

    def not_unrolled(self) -> ir.MDValue:
        """What keeps LLVM from unrolling a loop further, for which it would spill sums."""
        module = self.builder.module
        disable = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
        node = module.add_metadata([disable, ir.Constant(LONG, len(module.metadata))])
        # LLVM wants a loop's node to name itself first.
        node.operands = (node, disable)
        return node
