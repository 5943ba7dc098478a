"""The warp's functions on a card: PTX instructions put into kernels as inline assembly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import cuda, types
from numba.cuda.extending import intrinsic

WORD, WIDE, FLOAT, NOTHING = ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.VoidType()
GLOBAL, SHARED = 1, 3
"""Address spaces."""

ALL = 0xFFFFFFFF
"""A mask of all lanes."""

AMPERE = (8, 0)

Code = Callable[[Any, Any, Any, Any], Any]


def place(context: Any, builder: Any, kind: Any, array: Any, index: Any, at: Any) -> Any:
    """A pointer to an element. kind, at: the types of the array and the index."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [context.cast(builder, index, at, types.intp)])


def address(builder: Any, pointer: Any, space: int, number: Any) -> Any:
    """A generic pointer as a number in one address space."""
    there = builder.addrspacecast(pointer, pointer.type.pointee.as_pointer(space))
    return builder.ptrtoint(there, number)


def assembly(
    builder: Any, result: Any, text: str, constraints: str, values: list[Any], *, memory: bool
) -> Any:
    """An instruction. memory: whether it reads or writes memory, and so stays where it is put.

    What all lanes of a warp do together must not be moved to where only some of them come.
    """
    asked = ",".join(filter(None, (constraints, "~{memory}" if memory else "")))
    kind = ir.FunctionType(result, [value.type for value in values])
    together = ["convergent"] if ".sync." in text else []
    code = ir.InlineAsm(kind, text, asked, side_effect=memory)
    return builder.call(code, values, attrs=together)


def tupled(context: Any, builder: Any, kind: Any, result: Any) -> Any:
    """An instruction's several results as a tuple."""
    values = [builder.extract_value(result, i) for i in range(len(kind))]
    return context.make_tuple(builder, kind, values)


@intrinsic
def load4(typing: Any, array: Any, i: Any) -> tuple[Any, Code]:
    result = types.UniTuple(array.dtype, 4)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = place(context, builder, array, args[0], args[1], i)
        vector = ir.VectorType(pointer.type.pointee, 4)
        four = builder.load(builder.bitcast(pointer, vector.as_pointer()), align=16)
        values = [builder.extract_element(four, WORD(k)) for k in range(4)]
        return context.make_tuple(builder, result, values)

    return result(array, i), code


@intrinsic
def base_of(typing: Any, array: Any, i: Any) -> tuple[Any, Code]:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = place(context, builder, array, args[0], args[1], i)
        number = address(builder, pointer, GLOBAL, WIDE)
        # Kept from the compiler, which would add up indices first, and make an address of each sum.
        return assembly(builder, WIDE, "mov.b64 $0, $1;", "=l,l", [number], memory=False)

    return types.uint64(array, i), code


@intrinsic
def load_at(typing: Any, array: Any, base: Any, i: Any) -> tuple[Any, Code]:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_data_type(array.dtype).as_pointer(GLOBAL)
        start = builder.inttoptr(args[1], kind)
        return builder.load(builder.gep(start, [context.cast(builder, args[2], i, types.intp)]))

    return array.dtype(array, types.uint64, i), code


def flag(context: Any, builder: Any, value: Any, kind: Any) -> Any:
    """A truth as one bit."""
    return builder.trunc(context.cast(builder, value, kind, types.boolean), ir.IntType(1))


@intrinsic
def load_if(typing: Any, array: Any, i: Any, there: Any) -> tuple[Any, Code]:
    """Not by a branch, which would have loads wait for each other. A word of bits is asked as it
    is: made a truth, a bit would be shifted first."""
    asked = there == types.int32

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = place(context, builder, array, args[0], args[1], i)
        values = [
            address(builder, pointer, GLOBAL, WIDE),
            args[2] if asked else builder.zext(flag(context, builder, args[2], there), WORD),
        ]
        text = (
            "{ .reg .pred there; setp.ne.b32 there, $2, 0; mov.b32 $0, 0; "
            "@there ld.global.f32 $0, [$1]; }"
        )
        return assembly(builder, FLOAT, text, "=f,l,r", values, memory=True)

    return types.float32(array, i, there), code


@intrinsic
def store4(typing: Any, array: Any, i: Any, a: Any, b: Any, c: Any, d: Any) -> tuple[Any, Code]:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = place(context, builder, array, args[0], args[1], i)
        vector = ir.VectorType(pointer.type.pointee, 4)
        four = ir.Constant(vector, ir.Undefined)
        for k, (value, kind) in enumerate(zip(args[2:], (a, b, c, d), strict=True)):
            held = context.cast(builder, value, kind, array.dtype)
            four = builder.insert_element(four, held, WORD(k))
        builder.store(four, builder.bitcast(pointer, vector.as_pointer()), align=16)
        return context.get_dummy_value()

    return types.void(array, i, a, b, c, d), code


@intrinsic
def store2(typing: Any, array: Any, i: Any, a: Any, b: Any) -> tuple[Any, Code]:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = place(context, builder, array, args[0], args[1], i)
        vector = ir.VectorType(pointer.type.pointee, 2)
        two = ir.Constant(vector, ir.Undefined)
        for k, (value, kind) in enumerate(zip(args[2:], (a, b), strict=True)):
            held = context.cast(builder, value, kind, array.dtype)
            two = builder.insert_element(two, held, WORD(k))
        builder.store(two, builder.bitcast(pointer, vector.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(array, i, a, b), code


@cuda.jit(device=True)
def shuffle_xor(x, mask):  # type: ignore[no-untyped-def]
    return cuda.shfl_xor_sync(ALL, x, mask)


@cuda.jit(device=True)
def shuffle_down(x, by):  # type: ignore[no-untyped-def]
    return cuda.shfl_down_sync(ALL, x, by)


@cuda.jit(device=True)
def shuffle(x, lane):  # type: ignore[no-untyped-def]
    return cuda.shfl_sync(ALL, x, lane)


@cuda.jit(device=True)
def sync_warp():  # type: ignore[no-untyped-def]
    cuda.syncwarp()


def copying(through: str) -> Any:
    """An instruction that copies 16 bytes, by way of a cache or past it."""

    @intrinsic
    def instruction(
        typing: Any, shared: Any, to: Any, array: Any, i: Any, there: Any
    ) -> tuple[Any, Code]:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            target = place(context, builder, shared, args[0], args[1], to)
            source = place(context, builder, array, args[2], args[3], i)
            values = [
                address(builder, target, SHARED, WORD),
                address(builder, source, GLOBAL, WIDE),
                builder.select(flag(context, builder, args[4], there), WORD(16), WORD(0)),
            ]
            text = f"cp.async.{through}.shared.global [$0], [$1], 16, $2;"
            assembly(builder, NOTHING, text, "r,l,r", values, memory=True)
            return context.get_dummy_value()

        return types.void(shared, to, array, i, there), code

    return instruction


copy16, copy16_kept = copying("cg"), copying("ca")


def plain(text: str) -> Any:
    """An instruction without operands."""

    @intrinsic
    def instruction(typing: Any) -> tuple[Any, Code]:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            assembly(builder, NOTHING, text, "", [], memory=True)
            return context.get_dummy_value()

        return types.void(), code

    return instruction


commit = plain("cp.async.commit_group;")


def arrived(behind: int) -> Any:
    return plain(f"cp.async.wait_group {behind};")


def loading(shape: str) -> Any:
    """An instruction that gives every lane a register of each of four matrices."""

    @intrinsic
    def instruction(typing: Any, shared: Any, i: Any) -> tuple[Any, Code]:
        result = types.UniTuple(types.uint32, 4)

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = place(context, builder, shared, args[0], args[1], i)
            text = f"ldmatrix.sync.aligned.{shape}.shared.b16 {{$0, $1, $2, $3}}, [$4];"
            four = ir.LiteralStructType([WORD] * 4)
            row = address(builder, pointer, SHARED, WORD)
            found = assembly(builder, four, text, "=r,=r,=r,=r,r", [row], memory=True)
            return tupled(context, builder, result, found)

        return result(shared, i), code

    return instruction


matrices = loading("m8n8.x4")
matrices_across = loading("m8n8.x4.trans")


def product(shape: str) -> Any:
    """A product of two fragments, whose elements stand two or one to a word, added to a third."""

    @intrinsic
    def instruction(
        typing: Any,
        c0: Any,
        c1: Any,
        c2: Any,
        c3: Any,
        a0: Any,
        a1: Any,
        a2: Any,
        a3: Any,
        b0: Any,
        b1: Any,
    ) -> tuple[Any, Code]:
        result = types.UniTuple(types.float32, 4)

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            text = (
                f"mma.sync.aligned.{shape} "
                "{$0, $1, $2, $3}, {$8, $9, $10, $11}, {$12, $13}, {$4, $5, $6, $7};"
            )
            constraints = "=f,=f,=f,=f,0,1,2,3,r,r,r,r,r,r"
            four = ir.LiteralStructType([FLOAT] * 4)
            found = assembly(builder, four, text, constraints, list(args), memory=False)
            return tupled(context, builder, result, found)

        sums, words = [types.float32] * 4, [types.uint32] * 6
        return result(*sums, *words), code

    return instruction


mma_tf32 = product("m16n8k8.row.col.f32.tf32.tf32.f32")
mma_bf16 = product("m16n8k16.row.col.f32.bf16.bf16.f32")


@intrinsic
def larger(typing: Any, a: Any, b: Any) -> tuple[Any, Code]:
    """One instruction from Ampere on."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        from numba.cuda.core.targetconfig import ConfigStack  # which Numba's own target lacks

        if ConfigStack().top().compute_capability >= AMPERE:
            return assembly(builder, FLOAT, "max.NaN.f32 $0, $1, $2;", "=f,f,f", args, memory=False)
        first, second = args
        larger = builder.fcmp_ordered(">", second, first)
        taken = builder.or_(larger, builder.fcmp_unordered("uno", second, second))
        return builder.select(taken, second, first)

    return types.float32(types.float32, types.float32), code


@intrinsic
def larger_bf16(typing: Any, a: Any, b: Any) -> tuple[Any, Code]:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        words = [builder.bitcast(value, WORD) for value in args]
        text = "max.NaN.bf16x2 $0, $1, $2;"
        return builder.bitcast(assembly(builder, WORD, text, "=r,r,r", words, memory=False), FLOAT)

    return types.float32(types.float32, types.float32), code


@intrinsic
def bits_of(typing: Any, x: Any) -> tuple[Any, Code]:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], WORD)

    return types.uint32(types.float32), code


@intrinsic
def float_of(typing: Any, word: Any) -> tuple[Any, Code]:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], FLOAT)

    return types.float32(types.uint32), code


@intrinsic
def as_tf32(typing: Any, x: Any) -> tuple[Any, Code]:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        text = "cvt.rna.tf32.f32 $0, $1;"
        return builder.bitcast(assembly(builder, WORD, text, "=r,f", args, memory=False), FLOAT)

    return types.float32(types.float32), code


@intrinsic
def as_bf16(typing: Any, low: Any, high: Any) -> tuple[Any, Code]:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        text = "cvt.rn.bf16x2.f32 $0, $2, $1;"
        return builder.bitcast(assembly(builder, WORD, text, "=r,f,f", args, memory=False), FLOAT)

    return types.float32(types.float32, types.float32), code
