"""Sums of outer products, the one shape of all products in training.

`outer((M, V), ...)` makes an intrinsic that adds, over a table of rows and K steps along each,
M numbers times V vectors of 16 to a tile of M x V vectors that stays in registers:

    C[m][v] (+)= sum over rows t, steps k of
        A[a + rows[2t] + m am + k ak] * B[b + rows[2t+1] + v bv + k bk + (0 … 15)]

A convolution's weight gradient is this with A the input's channels (or a planar input's columns),
B the output's gradient and the steps along a row of the picture; a fully connected layer's two
gradients are this with the steps along samples and along outputs.

`inner((M, V), ...)` is its companion for a fully connected layer's output, with vectors on both
sides:

    C[m][v] += sum over steps k, lanes l of A[a + m am + k ak + l] * B[b + v bv + k bk + l]
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from netdsl.cpu.intrinsics import FLOAT, FLOATS, INTS, LONG, spread
from netdsl.cpu.micro.vectors import call_one

FRESH, ADD = 0, 1
"""Whether C starts at zero or at what it holds."""


Shape = tuple[int, int]
"""m and v: how many numbers, or vectors, by how many vectors a tile is."""


def outer(*shapes: Shape) -> Any:
    """The intrinsic of tiles of some shapes: call it with

    (number, A, a, am, ak, B, b, bv, bk, C, c, cm, cv, table, first, rows, steps, mode), where
    `number` says which of the shapes, the capitals are float pointers, `table` an int64 pointer
    whose rows begin at `first`, the others int64.
    """
    return _tiles(shapes, False)


def inner(*shapes: Shape) -> Any:
    """The intrinsic of tiles of sums of products; called as `outer`'s.

    C holds single floats; they are always added to.
    """
    return _tiles(shapes, True)


def _tiles(shapes: tuple[Shape, ...], dot: bool) -> Any:
    @intrinsic
    def tile(  # type: ignore[no-untyped-def]
        typing, number, A, a, am, ak, B, b, bv, bk, C, c, cm, cv, table, first, rows, steps, mode
    ):
        floats, longs = types.CPointer(types.float32), types.CPointer(types.int64)
        long = types.int64
        takes = (long, *(floats, long, long, long) * 3, longs, long, long, long, long)

        def lower(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
            number, *others = values
            each = (_function(builder.module, *shape, dot) for shape in shapes)
            call_one(builder, number, enumerate(each), others)
            return context.get_dummy_value()

        return types.void(*takes), lower

    return tile


def _function(module: ir.Module, m: int, v: int, dot: bool) -> ir.Function:
    """The function of a tile, written once a module."""
    name = f"netdsl_{'inner' if dot else 'outer'}_{m}x{v}"
    if name in module.globals:
        return module.globals[name]
    pointer, longs = FLOAT.as_pointer(), LONG.as_pointer()
    kinds = [pointer, LONG, LONG, LONG] * 3 + [longs, LONG, LONG, LONG, LONG]
    made = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    made.linkage = "internal"
    made.attributes.add("noinline")
    _body(made, m, v, dot)
    return made


def _body(function: ir.Function, m: int, v: int, dot: bool) -> None:
    blocks = {
        name: function.append_basic_block(name)
        for name in ("entry", "start", "row", "step", "row_end", "end")
    }
    A, a, am, ak, B, b, bv, bk, C, c, cm, cv, table, first, rows, steps, mode = function.args
    builder = ir.IRBuilder(blocks["entry"])
    zero, one = ir.Constant(LONG, 0), ir.Constant(LONG, 1)

    def at(pointer: ir.Value, *places: ir.Value) -> ir.Value:
        place = places[0]
        for more in places[1:]:
            place = builder.add(place, more)
        return builder.gep(pointer, [place])

    def times(number: int, stride: ir.Value) -> ir.Value:
        return builder.mul(ir.Constant(LONG, number), stride)

    def vector(pointer: ir.Value) -> ir.Value:
        found = builder.load(builder.bitcast(pointer, FLOATS.as_pointer()))
        found.align = 4
        return found

    a_places = [times(i, am) for i in range(m)]
    b_places = [times(i, bv) for i in range(v)]
    places = [at(C, c, times(i, cm), times(j, cv)) for i in range(m) for j in range(v)]
    fresh = ir.Constant(FLOATS, [0.0] * 16)
    builder.cbranch(builder.icmp_signed("==", mode, zero), blocks["row"], blocks["start"])
    builder.position_at_end(blocks["start"])
    held = [fresh if dot else vector(place) for place in places]
    builder.branch(blocks["row"])

    builder.position_at_end(blocks["row"])
    t = builder.phi(LONG, "t")
    t.add_incoming(zero, blocks["entry"])
    t.add_incoming(zero, blocks["start"])
    sums = []
    for value in held:
        phi = builder.phi(FLOATS)
        phi.add_incoming(fresh, blocks["entry"])
        phi.add_incoming(value, blocks["start"])
        sums.append(phi)
    entry = builder.add(first, builder.shl(t, one))
    row_a = builder.add(a, builder.load(at(table, entry)))
    row_b = builder.add(b, builder.load(at(table, entry, one)))
    builder.branch(blocks["step"])

    builder.position_at_end(blocks["step"])
    k = builder.phi(LONG, "k")
    here_a, here_b = builder.phi(LONG), builder.phi(LONG)
    inner = [builder.phi(FLOATS) for _ in sums]
    right = [vector(at(B, here_b, place)) for place in b_places]
    made = []
    fma = _multiply_add(function.module)
    for i in range(m):
        place = at(A, here_a, a_places[i])
        left = vector(place) if dot else spread(builder, builder.load(place), FLOATS)
        made += [builder.call(fma, [left, right[j], inner[i * v + j]]) for j in range(v)]
    next_k = builder.add(k, one)
    for phi, start, after in (
        (k, zero, next_k),
        (here_a, row_a, builder.add(here_a, ak)),
        (here_b, row_b, builder.add(here_b, bk)),
        *zip(inner, sums, made, strict=True),
    ):
        phi.add_incoming(start, blocks["row"])
        phi.add_incoming(after, blocks["step"])
    builder.cbranch(builder.icmp_signed("<", next_k, steps), blocks["step"], blocks["row_end"])

    builder.position_at_end(blocks["row_end"])
    next_t = builder.add(t, one)
    t.add_incoming(next_t, blocks["row_end"])
    for phi, after in zip(sums, made, strict=True):
        phi.add_incoming(after, blocks["row_end"])
    builder.cbranch(builder.icmp_signed("<", next_t, rows), blocks["row"], blocks["end"])

    builder.position_at_end(blocks["end"])
    for place, value in zip(places, made, strict=True):
        if dot:
            builder.store(builder.fadd(_total(builder, value), builder.load(place)), place)
        else:
            builder.store(value, builder.bitcast(place, FLOATS.as_pointer())).align = 4
    builder.ret_void()


def _total(builder: ir.IRBuilder, vector: ir.Value) -> ir.Value:
    """The sum of the lanes, in pairs."""
    for half in (8, 4, 2, 1):
        order = ir.Constant(INTS, [(i + half) % 16 for i in range(16)])
        undefined = ir.Constant(FLOATS, ir.Undefined)
        vector = builder.fadd(vector, builder.shuffle_vector(vector, undefined, order))
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


def _multiply_add(module: ir.Module) -> ir.Function:
    name = "llvm.fmuladd.v16f32"
    found = module.globals.get(name)
    return found or ir.Function(module, ir.FunctionType(FLOATS, [FLOATS] * 3), name)
