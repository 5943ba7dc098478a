"""The generator of Winograd's transforms: M X M' for a constant matrix M and 16 channels at once.

Points come in pairs +-p, so most rows of M come in pairs that differ in the sign of every other
entry; the sums of their even and odd entries are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from netdsl.cook_toom import Matrix, matrices
from netdsl.cpu.compiler import FLOATS
from netdsl.cpu.micro.fields import CUT, FORMS, SIZES, Size
from netdsl.cpu.micro.shapes import asks, wide
from netdsl.cpu.micro.vectors import FIRST_LEVEL, ask, call_one

LANES = 16
FLOAT, DOUBLE, LONG, INT = ir.FloatType(), ir.DoubleType(), ir.IntType(64), ir.IntType(32)
SINGLES, DOUBLES = ir.VectorType(FLOAT, LANES), ir.VectorType(DOUBLE, LANES)
Values = list[ir.Value]

HELD = 4
"""Inputs along each axis of the largest window that AVX-512's registers hold."""


def combine(builder: ir.IRBuilder, terms: list[tuple[Fraction, ir.Value]]) -> ir.Value | None:
    """The sum of factor times value; None where all factors are 0."""
    total: ir.Value | None = None
    # A factor of 1 first, so that the others are multiply-adds onto it.
    for factor, value in sorted((t for t in terms if t[0]), key=lambda t: t[0] != 1):
        vector = value.type
        if total is None:
            total = value if factor == 1 else builder.fmul(value, each(vector, factor))
        elif factor == 1:
            total = builder.fadd(total, value)
        elif factor == -1:
            total = builder.fsub(total, value)
        else:
            kind = ir.FunctionType(vector, [vector] * 3)
            name = f"llvm.fmuladd.v{LANES}{'f32' if vector.element == FLOAT else 'f64'}"
            call = cgutils.get_or_insert_function(builder.module, kind, name)
            total = builder.call(call, [value, each(vector, factor), total])
    return total


def each(vector: ir.Type, factor: Fraction) -> ir.Constant:
    """A constant in every lane."""
    return ir.Constant(vector, [float(factor)] * LANES)


def apply(builder: ir.IRBuilder, matrix: Matrix, values: Values) -> Values:
    """The matrix times a vector of values."""
    pairs = _pairs(matrix)
    if pairs:
        return _by_column_pairs(builder, matrix, values, pairs)
    found: dict[int, ir.Value] = {}
    for i, row in enumerate(matrix):
        if i in found:
            continue
        twin = _twin(matrix, i)
        terms = list(zip(row, values, strict=True))
        if twin is None:
            found[i] = combine(builder, terms)
        else:
            even, odd = combine(builder, terms[::2]), combine(builder, terms[1::2])
            found[i] = builder.fadd(even, odd)
            same = matrix[twin][::2] == row[::2]
            found[twin] = builder.fsub(even, odd) if same else builder.fsub(odd, even)
    return [found[i] for i in range(len(matrix))]


def _by_column_pairs(
    builder: ir.IRBuilder, matrix: Matrix, values: Values, pairs: list[int]
) -> Values:
    """The same where neighbouring columns differ in sign at most: their sum or difference."""
    sums = {j: builder.fadd(values[j], values[j + 1]) for j in pairs}
    differences = {j: builder.fsub(values[j], values[j + 1]) for j in pairs}
    paired = {j + offset for j in pairs for offset in (0, 1)}
    results = []
    for row in matrix:
        terms = [(v, values[j]) for j, v in enumerate(row) if j not in paired]
        terms += [(row[j], (sums if row[j] == row[j + 1] else differences)[j]) for j in pairs]
        results.append(combine(builder, terms))
    return results


def _pairs(matrix: Matrix) -> list[int]:
    """The first of every two neighbouring columns that differ in signs at most, if any do."""
    columns = [tuple(map(abs, column)) for column in zip(*matrix, strict=True)]
    found: list[int] = []
    for j in range(len(columns) - 1):
        if columns[j] == columns[j + 1] and any(columns[j]) and (not found or found[-1] < j - 1):
            found.append(j)
    return found


def _groups(matrix: Matrix) -> list[list[int]]:
    """All rows, those together that share sums."""
    twins = {i: _twin(matrix, i) for i in range(len(matrix))}
    later = set(twins.values())
    return [[i] if k is None else [i, k] for i, k in twins.items() if i not in later]


def _twin(matrix: Matrix, i: int) -> int | None:
    """A later row that differs from row i in the sign of every other entry, if there is one: of the
    odd ones, or where the number of points is odd of the even ones."""
    if not any(matrix[i][::2]) or not any(matrix[i][1::2]):
        return None
    wanted = tuple(-v if j % 2 else v for j, v in enumerate(matrix[i]))
    either = wanted, tuple(-v for v in wanted)
    later = range(i + 1, len(matrix))
    return next((k for k in later if matrix[k] in either), None)


def sandwich(builder: ir.IRBuilder, matrix: Matrix, grid: list[Values]) -> list[Values]:
    """M X M' of a square of values, rows by columns."""
    columns = [apply(builder, matrix, list(column)) for column in zip(*grid, strict=True)]
    return [apply(builder, matrix, list(row)) for row in zip(*columns, strict=True)]


def at(builder: ir.IRBuilder, base: ir.Value, *terms: ir.Value) -> ir.Value:
    """Pointer to 16 floats."""
    for term in terms:
        base = builder.gep(base, [term])
    return builder.bitcast(base, SINGLES.as_pointer())


def scaled(builder: ir.IRBuilder, value: ir.Value, factor: int) -> ir.Value:
    return builder.mul(value, ir.Constant(LONG, factor))


def load(builder: ir.IRBuilder, place: ir.Value) -> ir.Value:
    found = builder.load(place)
    found.align = 4
    return found


def store(builder: ir.IRBuilder, value: ir.Value, place: ir.Value) -> None:
    builder.store(value, place).align = 4


def function(module: ir.Module, name: str, arguments: list[ir.Type]) -> ir.Function:
    """A new function of this module, not to be inlined."""
    made = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    made.linkage = "internal"
    made.attributes.add("noinline")
    made.attributes.add("nounwind")
    # Vectors of AVX2 for which no register is left are kept on the stack. LLVM aligns it to half of
    # one, so that every other one would lie in two cache lines.
    made.attributes.alignstack = 64
    return made


def input_function(module: ir.Module, size: Size, again: bool | None = None) -> ir.Function:
    """(source, row step, pixel step, target, step): B d B' of a window of inputs, `step` floats
    apart.

    again: whether inputs are loaded again for every two rows of the result, so that registers
    hold what lies between; as suits this CPU by default. LLVM does not take loads across stores.
    Sizes with as many inputs share a function, since they have the same points.
    """
    again = wide() and size.inputs > HELD if again is None else again
    name = f"netdsl.input{size.inputs}"
    if name in module.globals:
        return module.globals[name]
    made = function(module, name, [FLOAT.as_pointer(), LONG, LONG, FLOAT.as_pointer(), LONG])
    source, row, pixel, target, step = made.args
    b = ir.IRBuilder(made.append_basic_block())
    matrix, n = matrices(*size).input, range(size.inputs)
    # Without groups all is loaded first and stored last.
    for rows in _groups(matrix) if again else [list(n)]:
        grid = [
            [load(b, at(b, source, scaled(b, row, i), scaled(b, pixel, j))) for j in n] for i in n
        ]
        some = tuple(matrix[i] for i in rows)
        columns = [apply(b, some, list(column)) for column in zip(*grid, strict=True)]
        for i, values in zip(rows, zip(*columns, strict=True), strict=True):
            for j, value in enumerate(apply(b, matrix, list(values))):
                store(b, value, at(b, target, scaled(b, step, i * size.inputs + j)))
    b.ret_void()
    return made


def filter_function(module: ir.Module, size: Size) -> ir.Function:
    """(source, tap step, target, step): G g G' of one channel's taps for 16 filters.

    In double precision, rounded once.
    """
    name = f"netdsl.filter{size.outputs}x{size.taps}"
    if name in module.globals:
        return module.globals[name]
    made = function(module, name, [FLOAT.as_pointer(), LONG, FLOAT.as_pointer(), LONG])
    source, tap, target, step = made.args
    b = ir.IRBuilder(made.append_basic_block())
    n = range(size.taps)
    grid = [
        [b.fpext(load(b, at(b, source, scaled(b, tap, i * size.taps + j))), DOUBLES) for j in n]
        for i in n
    ]
    for i, values in enumerate(sandwich(b, matrices(*size).filter, grid)):
        for j, value in enumerate(values):
            place = at(b, target, scaled(b, step, i * size.inputs + j))
            store(b, b.fptrunc(value, SINGLES), place)
    b.ret_void()
    return made


def output_function(module: ir.Module, size: Size, pooled: bool = False) -> ir.Function:
    """(source, step, target, row step, rows, columns, bias, residual, row step, low, high):
    clamp(A m A' + bias + residual), of which only so many rows and columns are written.

    A residual of null is none. pooled: of every 2x2 values the largest alone is written.
    """
    name = f"netdsl.output{size.outputs}x{size.taps}{'pooled' if pooled else ''}"
    if name in module.globals:
        return module.globals[name]
    pointer = FLOAT.as_pointer()
    kinds = [pointer, LONG, pointer, LONG, LONG, LONG, pointer, pointer, LONG, FLOAT, FLOAT]
    made = function(module, name, kinds)
    source, step, target, row, rows, columns, bias, residual, residual_row, low, high = made.args
    b = ir.IRBuilder(made.append_basic_block())
    n = range(size.inputs)
    if asks():
        ask_for_next(b, target, row, size.outputs // 2 if pooled else size.outputs)
    grid = [[load(b, at(b, source, scaled(b, step, i * size.inputs + j))) for j in n] for i in n]
    results = sandwich(b, matrices(*size).output, grid)
    if pooled:
        # Bias and bounds keep the order of values, so they may come after.
        results = halved(b, results)
    shift, low, high = load(b, at(b, bias)), spread(b, low), spread(b, high)
    more = b.icmp_unsigned("!=", b.ptrtoint(residual, LONG), ir.Constant(LONG, 0))
    done = made.append_basic_block("done")
    for i, values in enumerate(results):
        inside = b.icmp_signed("<", ir.Constant(LONG, i), rows)
        next_row = b.append_basic_block()
        b.cbranch(inside, next_row, done)
        b.position_at_end(next_row)
        for j, value in enumerate(values):
            with b.if_then(b.icmp_signed("<", ir.Constant(LONG, j), columns)):
                along = ir.Constant(LONG, LANES * j)
                value = b.fadd(value, shift)
                value = _plus_residual(b, value, more, residual, scaled(b, residual_row, i), along)
                value = b.select(b.fcmp_ordered("<", value, low), low, value)
                value = b.select(b.fcmp_ordered(">", value, high), high, value)
                store(b, value, at(b, target, scaled(b, row, i), along))
    b.branch(done)
    b.position_at_end(done)
    b.ret_void()
    return made


def ask_for_next(b: ir.IRBuilder, target: ir.Value, row: ir.Value, count: int) -> None:
    """Asks for the cache lines that the next tile along a row will write: its short rows tell the
    CPU too late, so that stores would wait for memory."""
    for i in range(count):
        for j in range(count, 2 * count):
            place = at(b, target, scaled(b, row, i), ir.Constant(LONG, LANES * j))
            ask(b, place, FIRST_LEVEL)


def halved(b: ir.IRBuilder, grid: list[Values]) -> list[Values]:
    """The largest of every 2x2 values; NaN where any is NaN."""
    rows = [
        [larger(b, *pair) for pair in zip(*two, strict=True)]
        for two in zip(grid[::2], grid[1::2], strict=True)
    ]
    return [[larger(b, *pair) for pair in zip(row[::2], row[1::2], strict=True)] for row in rows]


def larger(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """The larger of two in each lane; NaN where either is NaN."""
    found = b.select(b.fcmp_ordered(">", x, y), x, y)
    return b.select(b.fcmp_unordered("uno", x, x), x, found)


def _plus_residual(
    b: ir.IRBuilder, value: ir.Value, more: ir.Value, residual: ir.Value, *terms: ir.Value
) -> ir.Value:
    here = b.block
    with b.if_then(more):
        added = b.fadd(value, load(b, at(b, residual, *terms)))
        there = b.block
    merged = b.phi(SINGLES)
    merged.add_incoming(value, here)
    merged.add_incoming(added, there)
    return merged


def spread(b: ir.IRBuilder, value: ir.Value) -> ir.Value:
    nothing = ir.Constant(SINGLES, ir.Undefined)
    first = b.insert_element(nothing, value, ir.Constant(INT, 0))
    return b.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(INT, LANES), [0] * LANES))


Write = Callable[..., ir.Function]
Forms = Sequence[tuple[int, tuple[Any, ...]]]
"""Numbers, and what a function is written for that goes by each."""


def inputs(sizes: Sequence[Size]) -> Forms:
    """Those of inputs and filters of some sizes."""
    return tuple((SIZES.index(size), (size,)) for size in sizes)


def outputs(sizes: Sequence[Size]) -> Forms:
    """Those of outputs of some sizes, pooled and not."""
    return tuple((index, form) for index, form in enumerate(FORMS) if form[0] in sizes)


def switched(
    builder: ir.IRBuilder,
    number: ir.Value,
    write: Write,
    arguments: Values,
    forms: Forms,
) -> None:
    """Calls the function of the form with this number."""
    functions = ((index, write(builder.module, *form)) for index, form in forms)
    call_one(builder, number, functions, arguments)


def input_of(sizes: Sequence[Size]) -> Any:
    """What transforms a tile of inputs of one of these sizes, by its number."""

    def typed(
        typing: Any,
        number: Any,
        arena: Any,
        source: Any,
        row: Any,
        pixel: Any,
        target: Any,
        step: Any,
    ) -> Any:
        def lower(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            number, arena, source, row, pixel, target, step = args
            ends = [b.gep(arena, [source]), row, pixel, b.gep(arena, [target]), step]
            switched(b, number, input_function, ends, inputs(sizes))
            return context.get_dummy_value()

        return types.void(types.int64, FLOATS, *[types.int64] * 5), lower

    return typed


transform_input = intrinsic(input_of(SIZES))
"""transform_input(number, arena, source, row, pixel, target, step) writes B d B' from arena[source]
(rows `row` floats apart, pixels `pixel`) to arena[target] (`step` apart)."""
transform_cut_input = intrinsic(input_of(CUT))
"""The same of the sizes whose products are cut in quarters."""


@intrinsic
def transform_filter(
    typing: Any,
    number: Any,
    packed: Any,
    source: Any,
    tap: Any,
    out: Any,
    target: Any,
    step: Any,
) -> Any:
    """G g G' from packed[source] (taps `tap` floats apart) to out[target] (`step` apart)."""

    def lower(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        number, packed, source, tap, out, target, step = args
        ends = [b.gep(packed, [source]), tap, b.gep(out, [target]), step]
        switched(b, number, filter_function, ends, inputs(SIZES))
        return context.get_dummy_value()

    numbers = types.int64
    return types.void(numbers, FLOATS, numbers, numbers, FLOATS, numbers, numbers), lower


def output_of(sizes: Sequence[Size]) -> Any:
    """What transforms a tile of products of one of these sizes, by the number of its form."""

    def typed(
        typing: Any,
        number: Any,
        arena: Any,
        source: Any,
        step: Any,
        target: Any,
        row: Any,
        rows: Any,
        columns: Any,
        params: Any,
        bias: Any,
        residual: Any,
        residual_row: Any,
        low: Any,
        high: Any,
    ) -> Any:
        def lower(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            number, arena, source, step, target, row, rows, columns = args[:8]
            params, bias, residual, residual_row, *bounds = args[8:]
            low, high = (b.bitcast(b.trunc(bound, INT), FLOAT) for bound in bounds)
            none = b.icmp_signed("<", residual, ir.Constant(LONG, 0))
            null = ir.Constant(FLOAT.as_pointer(), None)
            more = b.select(none, null, b.gep(arena, [residual]))
            ends = [b.gep(arena, [source]), step, b.gep(arena, [target]), row, rows, columns]
            ends += [b.gep(params, [bias]), more, residual_row, low, high]
            switched(b, number, output_function, ends, outputs(sizes))
            return context.get_dummy_value()

        number = types.int64
        kinds = (number, FLOATS, *[number] * 6, FLOATS, *[number] * 5)
        return types.void(*kinds), lower

    return typed


transform_output = intrinsic(output_of(SIZES))
"""transform_output(number, arena, source, step, target, row, rows, columns, params, bias, residual,
residual_row, low, high) writes clamp(A m A' + params[bias] + arena[residual]), `rows` by `columns`
of it, in a form. Products lie `step` floats apart from arena[source]; a residual below 0 is none;
low and high are float32 bits."""
transform_cut_output = intrinsic(output_of(CUT))
"""The same of the sizes whose products are cut in quarters."""
