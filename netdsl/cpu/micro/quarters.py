"""Tiles that make seven products of quarters of matrices in place of eight: Strassen's algorithm.

    Y11 Y12     A11 A12   B11 B12        S1 = A21 + A22   T1 = B12 - B11
             =          x                S2 = S1 - A11    T2 = B22 - T1
    Y21 Y22     A21 A22   B21 B22        S3 = A11 - A21   T3 = B22 - B12
                                         S4 = A12 - S2    T4 = B21 - T2

A tile makes the same pixels and filters of all four quarters of Y, one product after the other, and
keeps some of the sums for later:

    P = A11 B11         keep P
    U = S2 T2 + P       keep U
    W = S1 T1 + U       keep W
        S4 B22 + W      is Y12
    X = S3 T3 + U       keep X;  S3 T3 + W  is Y22
        A22 T4 + X      is Y21
        A12 B21 + P     is Y11

Each product is summed up by itself: on top of the others, which are larger than what comes of them,
its terms would lose digits. A long one is summed up in parts.

To the loop it is one long sum, over the taps of seven products. What happens between two of them
is a text of the CPU's own instructions: where LLVM knows that there is a choice, it moves the sums
to memory and back, which takes four times as long.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from netdsl.cpu.compiler import FLOATS, INTS
from netdsl.cpu.micro.fields import FURTHER, LOWER, PART, PIECES, RIGHT, TURNS, Y_BLOCK
from netdsl.cpu.micro.product import Product
from netdsl.cpu.micro.sandwich import at, function, load, store
from netdsl.cpu.micro.shapes import Tile, quartered
from netdsl.cpu.micro.tile import Values, call_one
from netdsl.cpu.micro.turn import Loop, Operands
from netdsl.cpu.micro.vectors import FLOAT, LANES, LONG

PRODUCTS = 7
LEFT, TAPS, DONE, MORE, PARTS, ENDS = 0, 8, 16, 24, 32, 40
"""Where a tile keeps, in bytes: the taps left of a part of a product and those of each, how many
products are done, the parts left of a product and those of each, and where the quarters Y12, Y22
and Y21 lie, block by block."""
KEPT = 192
"""And from where on P, U, W and a product's parts that are done."""


class Quarters(Product):
    """Writes the function of such a tile. `more` is where the sums of inputs lie; a tap of one is
    told from one of the inputs by an odd number in the table, one more than its distance."""

    arguments = 6

    def begin(self, turn: ir.Value, across: ir.Value) -> None:
        """Where a row is one tile, it asks for all lines of the next panel, not for every other."""
        b = self.builder
        first = b.add(self.bias, b.mul(turn, self.residual))
        for far in (ir.Constant(LONG, 0), self.field(FURTHER)):
            self.ask_from(b.add(first, far), across)

    def source(self, far: ir.Value) -> tuple[ir.Value, ir.Value]:
        b = self.builder
        formed = b.gep(self.arena, [b.sub(self.places[5], ir.Constant(LONG, 1))])
        odd = b.trunc(far, ir.IntType(1))
        return b.gep(b.select(odd, formed, self.xs), [far]), self.x_step

    def write(self) -> None:
        self.reserve(KEPT, self.ends())
        found, blocks = self.seven(), self.shape.blocks
        self.store([found[block::blocks] for block in range(blocks)])
        self.builder.ret_void()

    def parts_of_products(self) -> tuple[ir.Value, ir.Value]:
        """Turns of a part of a product, and how many parts it has."""
        return self.field(PART), self.field(PIECES)

    def reserve(self, kept: int, words: Values) -> None:
        """The tile's room. kept: where in it P, U and W are kept; words: what it holds from ENDS
        on."""
        b = self.builder
        room = b.alloca(ir.ArrayType(ir.IntType(8), kept + 4 * self.size))
        room.align = 4 * LANES
        self.room = b.bitcast(room, LONG.as_pointer())
        each = self.kind.rows // self.kind.unroll
        part, parts = self.parts_of_products()
        taps = b.lshr(part, ir.Constant(LONG, each.bit_length() - 1))
        for i, word in enumerate((taps, taps, ir.Constant(LONG, 0), parts, parts, *words)):
            b.store(word, b.gep(self.room, [ir.Constant(LONG, i)]))

    def seven(self) -> Values:
        """The sums after all products, as the text between them leaves them."""
        b = self.builder
        loop = Loop(
            b,
            self.tile,
            lambda turn: self.begin(turn, self.across),
            self.source,
            self.table,
            b.gep(self.params, [self.w]),
            self.across,
            self.not_unrolled(),
            self.between,
        )
        start = [ir.Constant(self.type, [0.0] * LANES)] * (self.shape.pixels * self.shape.blocks)
        return loop.write(start, self.times(self.field(TURNS), PRODUCTS))

    @property
    def size(self) -> int:
        """Bytes of all sums."""
        return 4 * LANES * self.shape.pixels * self.shape.blocks

    def ends(self) -> Values:
        """The addresses of Y12, Y22 and Y21, block by block."""
        b, right, lower = self.builder, self.field(RIGHT), self.field(LOWER)
        across, found = self.field(Y_BLOCK), []
        for far, block in product((right, b.add(right, lower), lower), range(self.shape.blocks)):
            place = b.add(b.add(self.y, far), self.times(across, block))
            found.append(b.ptrtoint(b.gep(self.arena, [place]), LONG))
        return found

    def text(self, tile: Tile, size: int) -> Between:
        """What happens between two products."""
        return Between(tile, size)

    def between(self, sums: Values) -> Values:
        """The sums after a tap, where it is a product's last as they go on with the next."""
        b, text = self.builder, self.text(self.tile, self.size)
        on_the_way = [self.type] * text.vectors + [LONG] * text.numbers
        given = ir.LiteralStructType([self.type] * len(sums) + on_the_way)
        kind = ir.FunctionType(given, [self.type] * len(sums) + [self.room.type])
        code = ir.InlineAsm(kind, text.text, text.constraints, side_effect=True)
        made = b.call(code, [*sums, self.room])
        return [b.extract_value(made, i) for i in range(len(sums))]


class Between:
    """The text of what happens between two products, with its operands: given the sums, vectors
    and numbers on the way; taken the sums as they were, and the tile's room."""

    vectors, numbers, kept_at = 1, 1, KEPT

    def __init__(self, tile: Tile, size: int) -> None:
        pixels, blocks = tile.shape
        self.pixels, self.blocks, self.size = pixels, blocks, size
        operands = Operands()
        self.sums = operands.add("=v", pixels * blocks)
        self.vector, *self.bounds = operands.add("=&v", self.vectors)
        self.number, *self.addresses = operands.add("=&r", self.numbers)
        operands.constraints += [str(i) for i in range(len(self.sums))]
        (self.room,) = operands.add("r")
        self.lines: list[str] = []
        self.write()
        self.text = "\n".join(self.lines)
        self.constraints = ",".join([*operands.constraints, "~{memory}", "~{flags}"])

    def write(self) -> None:
        number, room = self.number, self.room
        self.lines += [f"decq {LEFT}({room})", "jnz 9f"]
        self.lines += [f"movq {TAPS}({room}), {number}", f"movq {number}, {LEFT}({room})"]
        self.part()
        self.lines += [f"movq {DONE}({room}), {number}", f"incq {DONE}({room})"]
        self.lines += [f"cmpq $$3, {number}", "jae 3f", f"testq {number}, {number}", "jz 2f"]
        self.lines += [f"imulq $${self.size}, {number}, {number}", f"addq {room}, {number}"]
        self.add(-1, number)  # P, or U
        self.keep(0, number)  # U, or W
        self.lines += ["jmp 8f", "2:"]
        self.keep(0, room)  # P
        self.lines += ["jmp 8f", "3:"]
        self.end()
        self.lines += ["8:", *(f"vpxord {v}, {v}, {v}" for v in self.sums), "9:"]

    def part(self) -> None:
        """Puts a part of a product aside, unless it is the last, to which it adds the others."""
        number, room = self.number, self.room
        self.lines += [f"movq {PARTS}({room}), {number}", f"decq {MORE}({room})", "jz 1f"]
        self.lines += [f"decq {number}", f"cmpq {MORE}({room}), {number}", "je 0f"]
        self.add(3, room)
        self.lines.append("0:")
        self.keep(3, room)
        self.lines += ["jmp 8f", "1:", f"movq {number}, {MORE}({room})"]
        self.lines += [f"cmpq $$1, {number}", "je 0f"]
        self.add(3, room)
        self.lines.append("0:")

    def end(self) -> None:
        """What happens from the fourth product on: the first stores a quarter, the next one and
        makes X, then one, and the last leaves Y11 in its registers."""
        number, room = self.number, self.room
        self.lines += ["ja 4f"]
        self.add(2, room)
        self.put(0)
        self.lines += ["jmp 8f", "4:", f"cmpq $$5, {number}", "ja 6f", "je 5f"]
        self.put(1, more=2)
        self.add(1, room)
        self.keep(2, room)  # X
        self.lines += ["jmp 8f", "5:"]
        self.add(2, room)
        self.put(2)
        self.lines += ["jmp 8f", "6:"]
        self.add(0, room)
        self.lines += ["jmp 9f"]

    def kept(self, which: int, i: int) -> int:
        """Where a vector of P, U or W is kept, X in the place of W."""
        return self.kept_at + which * self.size + 4 * LANES * i

    def keep(self, which: int, base: str) -> None:
        """Keeps the sums."""
        self.lines += [
            f"vmovaps {v}, {self.kept(which, i)}({base})" for i, v in enumerate(self.sums)
        ]

    def add(self, which: int, base: str) -> None:
        """Adds what is kept to the sums."""
        self.lines += [
            f"vaddps {self.kept(which, i)}({base}), {v}, {v}" for i, v in enumerate(self.sums)
        ]

    def put(self, end: int, more: int | None = None) -> None:
        """Stores the sums in a quarter, with what is kept added where that is said."""
        for block in range(self.blocks):
            word = ENDS + 8 * (end * self.blocks + block)
            self.lines.append(f"movq {word}({self.room}), {self.number}")
            for pixel in range(self.pixels):
                i = pixel * self.blocks + block
                value = self.sums[i]
                if more is not None:
                    kept = f"{self.kept(more, i)}({self.room})"
                    self.lines.append(f"vaddps {kept}, {value}, {self.vector}")
                    value = self.vector
                self.lines.append(f"vmovups {value}, {4 * LANES * pixel}({self.number})")


def quarters_function(module: ir.Module, tile: Tile) -> ir.Function:
    """The function of one tile in this module, written when first asked for."""
    name = f"netdsl.quarters{tile.shape.pixels}x{tile.shape.blocks}"
    return module.globals.get(name) or Quarters(module, tile, name).function


def sums_function(module: ir.Module) -> ir.Function:
    """(quarters, sums, floats of each): T1, T2, T3 and T4 of B11, B12, B21 and B22, which lie one
    after the other, as the sums will."""
    name = "netdsl.sums"
    if name in module.globals:
        return module.globals[name]
    made = function(module, name, [FLOAT.as_pointer(), FLOAT.as_pointer(), LONG])
    source, target, size = made.args
    b = ir.IRBuilder(made.append_basic_block())
    before, loop, after = b.block, b.append_basic_block(), b.append_basic_block()
    b.branch(loop)
    b.position_at_end(loop)
    n = b.phi(LONG)
    far = [b.add(n, b.mul(size, ir.Constant(LONG, i))) for i in range(4)]
    b11, b12, b21, b22 = (load(b, at(b, source, place)) for place in far)
    t1, t3 = b.fsub(b12, b11), b.fsub(b22, b12)
    t2 = b.fsub(b22, t1)
    for place, value in zip(far, (t1, t2, t3, b.fsub(b21, t2)), strict=True):
        store(b, value, at(b, target, place))
    following = b.add(n, ir.Constant(LONG, LANES))
    n.add_incoming(ir.Constant(LONG, 0), before)
    n.add_incoming(following, loop)
    b.cbranch(b.icmp_signed("<", following, size), loop, after)
    b.position_at_end(after)
    b.ret_void()
    return made


@intrinsic
def form_quarters(typing: Any, arena: Any, source: Any, target: Any, size: Any) -> Any:
    """Sums of the quarters at arena[source], of so many floats each, to arena[target]."""

    def lower(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        arena, source, target, size = args
        ends = [b.gep(arena, [source]), b.gep(arena, [target]), size]
        b.call(sums_function(b.module), ends)
        return context.get_dummy_value()

    return types.void(FLOATS, *[types.int64] * 3), lower


@intrinsic
def run_quarters(
    typing: Any,
    number: Any,
    arena: Any,
    params: Any,
    t: Any,
    x: Any,
    w: Any,
    y: Any,
    following: Any,
    step: Any,
    formed: Any,
) -> Any:
    """Runs a tile as `run_product` does, of all quarters. formed: where the sums of inputs lie."""

    def lower(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        call_one(b, quarters_function, quartered(), *args)
        return context.get_dummy_value()

    return types.void(types.int64, FLOATS, FLOATS, INTS, *[types.int64] * 6), lower
