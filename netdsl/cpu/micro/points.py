"""Tiles of 1x1 convolutions by Strassen's algorithm: all of a layer for some places and filters.

They make the four quarters of their outputs from seven products as `quarters.py` says, and end
them: a quarter is stored once, with biases and residual, within its bounds. Memory would be waited
for, so turn by turn they ask for what is read later: weights as products' tiles do, inputs of which
sums are made next, and the residual and the places of the quarter that the product after the next
turns ends. All of a quarter's at once would fill the buffers in which a core waits for memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from netdsl.cpu.compiler import FLOATS, INTS
from netdsl.cpu.micro import vectors
from netdsl.cpu.micro.fields import (
    ADD_RESIDUAL,
    ASKS,
    BIAS_LOWER,
    FROM_BIAS,
    HIGH,
    LOW,
    OUT_LOWER,
    OUT_RIGHT,
    R_BLOCK,
    R_LOWER,
    R_RIGHT,
    R_STEP,
    START,
    STRETCH,
    TURNS,
    Y_BLOCK,
    Y_STEP,
)
from netdsl.cpu.micro.product import Product
from netdsl.cpu.micro.quarters import DONE, ENDS, Between, Quarters
from netdsl.cpu.micro.shapes import Kind, Tile, asks, tiles
from netdsl.cpu.micro.tile import call_one, name_of
from netdsl.cpu.micro.vectors import FLOAT, LANES, LONG, SECOND_LEVEL, ask

ADDED, OUT_STEP, BESIDE_STEP, LEAST, MOST = (ENDS + 8 * i for i in range(5))
INPUTS_AT, INPUTS_LEFT, OUT_AT, BESIDE_AT, PIXELS_LEFT = (ENDS + 8 * i for i in range(5, 10))
"""Where a tile keeps, in bytes: whether there is a residual, the bytes from one pixel's to the next
of outputs and residual, and the bounds; and of what it asks for, the next input and how many are
left of its stretch, then the next outputs, their residual and how many pixels of them are left."""

RECORDS = 128
"""And from where on a record of each quarter, in the order in which they are stored: the biases,
then block by block the addresses of its outputs and of its residual."""

ORDER = ((True, False), (True, True), (False, True), (False, False))
"""That order, Y12, Y22, Y21, Y11: whether each is to the right, and below."""


def record(blocks: int) -> int:
    """Bytes of a record."""
    return 4 * LANES * (blocks + 1)


class End(NamedTuple):
    """Where in the arena the outputs of Y11, or their residual, start; the floats to those of the
    quarters to the right and below, to the next pixel, and to the next block of filters."""

    first: ir.Value
    right: ir.Value
    below: ir.Value
    step: ir.Value
    across: ir.Value


class Points(Quarters):
    """Writes the function of such a tile. Beside what those of Winograd's products are told: where
    the biases and the residual lie; where the first input lies that it asks for, how many are left
    of its stretch and how many all stretches have, none where there is nothing to ask for."""

    arguments = 11

    def field(self, index: int) -> ir.Value:
        return vectors.Writer.field(self, index)

    def source(self, far: ir.Value) -> tuple[ir.Value, ir.Value]:
        place, step = super().source(far)
        odd = self.builder.trunc(far, ir.IntType(1))
        return place, self.builder.select(odd, _number(LANES), step)

    def write(self) -> None:
        b, start = self.builder, self.field(START)
        self.added = self.has(start, ADD_RESIDUAL)
        _, beside, inputs, left, self.stretch = self.places[6:]
        steps = (OUT_RIGHT, OUT_LOWER, Y_STEP, Y_BLOCK), (R_RIGHT, R_LOWER, R_STEP, R_BLOCK)
        self.outputs_end, self.beside_end = (
            End(first, *map(self.field, fields))
            for first, fields in zip((self.y, beside), steps, strict=True)
        )
        self.onward = b.sub(self.field(STRETCH), b.mul(self.stretch, self.x_step))
        words = [b.zext(self.added, LONG)]
        words += [self.times(end.step, 4) for end in (self.outputs_end, self.beside_end)]
        words += [self.field(LOW), self.field(HIGH), inputs, left, *[_number(0)] * 3]
        self.reserve(Ending.room_for(self.shape.blocks), words)
        self.list_records(self.has(start, FROM_BIAS))
        self.seven()
        b.ret_void()

    def parts_of_products(self) -> tuple[ir.Value, ir.Value]:
        """Their products are short: a tile makes all of some channels before the next."""
        return self.field(TURNS), _number(1)

    def has(self, mode: ir.Value, bit: int) -> ir.Value:
        """Whether a mode has a bit."""
        b = self.builder
        return b.icmp_signed("!=", b.and_(mode, _number(bit)), _number(0))

    def list_records(self, biased: ir.Value) -> None:
        """Writes what is known of each quarter."""
        b, blocks = self.builder, self.shape.blocks
        zeros = ir.Constant(self.type, [0.0] * LANES)
        for i, (right, below) in enumerate(ORDER):
            start = RECORDS + i * record(blocks)
            biases = b.add(self.places[6], self.field(BIAS_LOWER) if below else _number(0))
            for block in range(blocks):
                value = self.load(self.vector(self.params, biases, _number(LANES * block)))
                place = b.bitcast(self.word(start + 4 * LANES * block), self.type.as_pointer())
                b.store(b.select(biased, value, zeros), place).align = 4
                for j, end in enumerate((self.outputs_end, self.beside_end)):
                    far = b.add(end.first, self.times(end.across, block))
                    far = b.add(far, end.right) if right else far
                    far = b.add(far, end.below) if below else far
                    address = b.ptrtoint(b.gep(self.arena, [far]), LONG)
                    b.store(address, self.word(start + 4 * LANES * blocks + 16 * block + 8 * j))

    def word(self, byte: int) -> ir.Value:
        """A place in the tile's room."""
        return self.builder.gep(self.room, [_number(byte // 8)])

    def begin(self, turn: ir.Value, across: ir.Value) -> None:
        b = self.builder
        with b.if_then(b.icmp_signed("!=", self.residual, _number(0))):
            Product.begin(self, turn, across)
        left = b.load(self.word(INPUTS_LEFT))
        with b.if_then(b.icmp_signed(">", left, _number(0))):
            self.ask_for_inputs(left)
        if asks():
            left = b.load(self.word(PIXELS_LEFT))
            with b.if_then(b.icmp_signed(">", left, _number(0))):
                self.ask_for_end(OUT_AT, self.outputs_end)
                with b.if_then(self.added):
                    self.ask_for_end(BESIDE_AT, self.beside_end)
                b.store(b.sub(left, _number(1)), self.word(PIXELS_LEFT))

    def ask_for_inputs(self, left: ir.Value) -> None:
        """Asks for some inputs, one pixel's after the other's, stretch after stretch."""
        b, place = self.builder, self.builder.load(self.word(INPUTS_AT))
        for _ in range(ASKS):
            ask(b, b.gep(self.arena, [place]), SECOND_LEVEL)
            left, following = b.sub(left, _number(1)), b.add(place, self.x_step)
            done = b.icmp_signed("<=", left, _number(0))
            place = b.select(done, b.add(following, self.onward), following)
            left = b.select(done, self.stretch, left)
        b.store(place, self.word(INPUTS_AT))
        b.store(left, self.word(INPUTS_LEFT))

    def ask_for_end(self, at: int, end: End) -> None:
        """Asks for a pixel's outputs or residual."""
        b, address = self.builder, self.builder.load(self.word(at))
        first = b.inttoptr(address, FLOAT.as_pointer())
        for block in range(self.shape.blocks):
            ask(b, b.gep(first, [self.times(end.across, block)]), SECOND_LEVEL)
        b.store(b.add(address, self.times(end.step, 4)), self.word(at))

    def text(self, tile: Tile, size: int) -> Between:
        return Ending(tile, size)


class Ending(Between):
    """The text between two products, with all of a quarter's end."""

    vectors, numbers = 3, 5

    def __init__(self, tile: Tile, size: int) -> None:
        self.kept_at = self.room_for(tile.shape.blocks)
        super().__init__(tile, size)

    @staticmethod
    def room_for(blocks: int) -> int:
        """Bytes before P, U and W."""
        return RECORDS + len(ORDER) * record(blocks)

    def end(self) -> None:
        number, room, base = self.number, self.room, self.addresses[1]
        self.find_record()
        # W is added to Y12 and Y22, X to Y21, P to Y11.
        self.lines += [f"movq {room}, {base}", f"cmpq $$6, {number}", "je 4f"]
        self.lines += [f"addq $${2 * self.size}, {base}", "4:"]
        for word, bound in zip((LEAST, MOST), self.bounds, strict=True):
            self.lines.append(f"vbroadcastss {word}({room}), {bound}")
        self.lines += [f"cmpq $$0, {ADDED}({room})", "jne 5f"]
        self.finish(added=False)
        self.lines += ["jmp 6f", "5:"]
        self.finish(added=True)
        self.lines += ["6:", f"movq {DONE}({room}), {number}", f"cmpq $$7, {number}", "je 9f"]
        self.lines += [f"cmpq $$5, {number}", "jne 8f"]
        self.add(1, room)
        self.keep(2, room)  # X
        self.lines.append("8:")
        if asks():
            self.ask()

    def find_record(self) -> None:
        """The address of the record of the quarter that a product ends, by the product's number."""
        known = self.addresses[0]
        self.lines += [f"imulq $${record(self.blocks)}, {self.number}, {known}"]
        self.lines += [f"addq {self.room}, {known}"]

    def known(self, byte: int) -> str:
        """A place in it. The fourth product is the first that ends one."""
        return f"{RECORDS - 3 * record(self.blocks) + byte}({self.addresses[0]})"

    def address(self, block: int, beside: bool = False) -> str:
        """Where it says where a block's outputs, or their residual, start."""
        return self.known(4 * LANES * self.blocks + 16 * block + 8 * beside)

    def finish(self, added: bool) -> None:
        """Stores a quarter: the sums and what is kept, biases, and the residual if there is one."""
        _, base, out, beside = self.addresses
        room, value, (least, most) = self.room, self.vector, self.bounds
        for block in range(self.blocks):
            self.lines.append(f"movq {self.address(block)}, {out}")
            if added:
                self.lines.append(f"movq {self.address(block, beside=True)}, {beside}")
            for i in range(block, len(self.sums), self.blocks):
                self.lines.append(f"vaddps {self.kept(0, i)}({base}), {self.sums[i]}, {value}")
                self.lines.append(f"vaddps {self.known(4 * LANES * block)}, {value}, {value}")
                if added:
                    self.lines.append(f"vaddps ({beside}), {value}, {value}")
                    self.lines.append(f"addq {BESIDE_STEP}({room}), {beside}")
                # Of a NaN and a bound, in this order, they give the NaN.
                self.lines.append(f"vmaxps {value}, {least}, {value}")
                self.lines.append(f"vminps {value}, {most}, {value}")
                self.lines.append(f"vmovups {value}, ({out})")
                self.lines.append(f"addq {OUT_STEP}({room}), {out}")

    def ask(self) -> None:
        """From now on turns ask for what the end of the product after the next one takes."""
        number, room, out = self.number, self.room, self.addresses[2]
        self.lines += [f"movq {DONE}({room}), {number}"]
        self.lines += [f"cmpq $$2, {number}", "jb 7f", f"cmpq $$5, {number}", "ja 7f"]
        self.lines.append(f"incq {number}")
        self.find_record()
        for at, beside in ((OUT_AT, False), (BESIDE_AT, True)):
            self.lines += [f"movq {self.address(0, beside)}, {out}", f"movq {out}, {at}({room})"]
        self.lines += [f"movq $${self.pixels}, {PIXELS_LEFT}({room})", "7:"]


def _number(value: int) -> ir.Constant:
    return ir.Constant(LONG, value)


def points_function(module: ir.Module, tile: Tile) -> ir.Function:
    """The function of one tile in this module, written when first asked for."""
    name = name_of(tile)
    return module.globals.get(name) or Points(module, tile, name).function


@intrinsic
def run_points(
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
    biases: Any,
    residual: Any,
    inputs: Any,
    left: Any,
    stretch: Any,
) -> Any:
    """Runs a tile of points by its number, as `run_quarters` does. biases: where they lie in
    params; residual: in the arena; inputs, left, stretch: what it asks for, see `Points`."""

    def lower(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        call_one(b, points_function, [tile for tile in tiles() if tile.kind is Kind.POINTS], *args)
        return context.get_dummy_value()

    return types.void(types.int64, FLOATS, FLOATS, INTS, *[types.int64] * 11), lower
