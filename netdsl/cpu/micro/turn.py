"""Turns of a tile's loop in AVX-512's own instructions.

LLVM fills the registers well, but not the rest of a core. It keeps an address for each of 14
pixels, which the general registers do not hold, and spreads every number by an instruction of its
own. A core that issues two multiply-adds of 16 floats a cycle, or one that shares its decoders with
another thread, then waits for instructions instead of sums. So these tiles are written out: of a
multiply-add's two factors one may be a number in memory, which is spread on its way in, and the
load costs no instruction.

    pixel       0       1       2       3     ...        step: bytes from one pixel to the next
    address   base   +step    base   +step               a base for every other pixel, made once
    read by   each   one      each   one                 a turn, by an addition each
              sum    load     sum    load

Only an address that is one register and a constant goes into a multiply-add at no cost; so the
pixels between are loaded by base and step, once for all blocks of filters. That also keeps the
loads below what the first cache gives, two a cycle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from llvmlite import ir

from netdsl.cpu.micro.shapes import NARROW, Kind, Tile
from netdsl.cpu.micro.vectors import FLOAT, LANES, LONG

REGISTERS = 32
MULTIPLY_ADD = {
    Kind.BLOCKED: "vfmadd231ps",
    Kind.POINTS: "vfmadd231ps",
    Kind.PAIRED: "vdpbf16ps",
}
VECTOR = ir.VectorType(FLOAT, LANES)
Values = list[ir.Value]


def written_out(tile: Tile) -> bool:
    """Whether a tile's turns are these. Those of one or two pixels wait for their weights, and the
    narrow ones are for other CPUs too."""
    return tile.kind in MULTIPLY_ADD and tile.shape.pixels > 2 and tile not in NARROW


class Place(NamedTuple):
    """An address: a register, bytes from there on, and maybe another register, times 1 to 8."""

    base: str
    byte: int = 0
    rest: str = ""

    def at(self, byte: int) -> str:
        return f"{self.byte + byte or ''}({self.base}{self.rest})"


class Operands:
    """The numbers by which LLVM puts registers into a text: what it gives, then what it takes."""

    def __init__(self) -> None:
        self.constraints: list[str] = []

    def add(self, constraint: str, count: int = 1) -> list[str]:
        """So many more registers."""
        first = len(self.constraints)
        self.constraints += [constraint] * count
        return [f"${first + i}" for i in range(count)]


class Turn:
    """The text of a turn, and its operands in order.

    Given: the sums, pixel by pixel, then what it uses on the way. Taken: the sums as they were;
    where the first pixel's input and the weights lie; the bytes from one pixel, and from one block
    of filters, to the next.

    near: whether pixels lie side by side, so that constants lead from one to the next.
    """

    def __init__(self, tile: Tile, near: bool) -> None:
        self.kind, (pixels, blocks) = tile.kind, tile.shape
        # Bases stand close enough together for all pixels, and are few enough for the registers.
        apart = 2 if pixels <= 16 else 4
        self.lines: list[str] = []
        operands = Operands()
        self.sums = operands.add("=v", pixels * blocks)
        # Where they do not all fit, the last block's weights are read by each multiply-add.
        self.weights = operands.add("=&v", min(blocks, REGISTERS - 1 - pixels * blocks))
        free = REGISTERS - len(operands.constraints)
        self.numbers = operands.add("=&v", min(free, 4, pixels))
        self.scratch = operands.add("=&r", 0 if near else scratch_for(pixels, apart))
        self.scratch += operands.add("=&r", scratch_for(blocks, 4))
        self.given = [VECTOR] * (REGISTERS - free + len(self.numbers)) + [LONG] * len(self.scratch)
        operands.constraints += [str(i) for i in range(len(self.sums))]
        x, w, step, across = operands.add("r", 4)
        side_by_side = [Place(x, pixel * self.kind.rows * 4) for pixel in range(pixels)]
        inputs = side_by_side if near else self.places(x, step, pixels, apart)
        filters = self.places(w, across, blocks, 4)
        if len(self.weights) < blocks:
            thrice = filters[3].rest.strip(",")
            self.lines.append(f"leaq {filters[3].at(0)}, {thrice}")
            filters[3] = Place(thrice)
        self.write(inputs, filters)
        self.constraints = ",".join(operands.constraints)
        self.text = "\n".join(self.lines)

    def places(self, first: str, step: str, count: int, apart: int) -> list[Place]:
        """So many places, a step from one to the next, with a base for each `apart` of them."""
        rests = ["", f",{step}", f",{step},2"]
        if count > 3 and apart == 4:
            thrice = self.scratch.pop()
            self.lines.append(f"leaq ({step},{step},2), {thrice}")
            rests.append(f",{thrice}")
        bases = [first]
        while len(bases) * apart < count:
            # As many steps farther than an earlier base as an address can multiply by.
            far = max(n for n in (2, 4, 8) if n <= len(bases) * apart and n % apart == 0)
            earlier = bases[len(bases) - far // apart]
            bases.append(self.scratch.pop())
            self.lines.append(f"leaq ({earlier},{step},{far}), {bases[-1]}")
        return [Place(bases[i // apart], 0, rests[i % apart]) for i in range(count)]

    def write(self, inputs: list[Place], filters: list[Place]) -> None:
        """All channels of a turn."""
        for channel in range(self.kind.unroll):
            weights = [place.at(channel * 4 * LANES) for place in filters]
            for i, register in enumerate(self.weights):
                self.lines.append(f"vmovups {weights[i]}, {register}")
                weights[i] = register
            for pixel, place in enumerate(inputs):
                number = f"{place.at(channel * 4)}{{1to16}}"
                if not self.embedded(pixel, place, len(filters)):
                    number = self.numbers[pixel % len(self.numbers)]
                    self.lines.append(f"vbroadcastss {place.at(channel * 4)}, {number}")
                for total, factor in zip(self.sums[pixel * len(filters) :], weights, strict=False):
                    # What is in memory is named first.
                    pair = sorted((number, factor), key=lambda name: "(" not in name)
                    self.lines.append(f"{MULTIPLY_ADD[self.kind]} {', '.join(pair)}, {total}")

    @staticmethod
    def embedded(pixel: int, place: Place, blocks: int) -> bool:
        """Whether a pixel's multiply-adds read it themselves: every other one, or all for a single
        block of filters, but none for so many that it would be more than the cache gives."""
        return not place.rest and (blocks == 1 or (pixel % 2 == 0 and blocks < 4))


def scratch_for(count: int, apart: int) -> int:
    """Registers for so many places: a base for each group but the first, and three steps."""
    return -(-count // apart) - 1 + (count > 3 and apart == 4)


class Loop(NamedTuple):
    """What a loop over taps, and in it one over a tap's turns, is written with.

    begin: writes what a turn, whose number it is told, does first. source: where the tile's first
    pixel lies for a tap of which the table says so much, and the floats from there to the next
    pixel; weights: those of the first tap, across: floats from one block's to the next. once: what
    keeps LLVM from unrolling a loop. between: writes what becomes of the sums after each tap.
    """

    builder: ir.IRBuilder
    tile: Tile
    begin: Callable[[ir.Value], None]
    source: Callable[[ir.Value], tuple[ir.Value, ir.Value]]
    table: ir.Value
    weights: ir.Value
    across: ir.Value
    once: ir.MDValue
    between: Callable[[Values], Values] = list

    def write(self, before: Values, turns: ir.Value) -> Values:
        """The sums, pixel by pixel, after so many turns, one at least; the last tap may have fewer
        than the others."""
        b, rows = self.builder, self.tile.kind.unroll
        here, taps, inner, onward, after = b.block, *(b.append_basic_block() for _ in range(4))
        b.branch(taps)
        b.position_at_end(taps)
        start = [self.table, _number(0), self.weights, *before]
        outer = tap, first, _, *_ = [b.phi(value.type) for value in start]
        following = b.add(first, _number(self.tile.kind.rows // rows))
        end = b.select(b.icmp_signed("<", following, turns), following, turns)
        x, step = self.source(b.load(tap))
        b.branch(inner)
        b.position_at_end(inner)
        state = place, turn, w, *sums = [b.phi(value.type) for value in (x, *outer[1:])]
        self.begin(turn)
        last, done = b.block, b.add(turn, _number(1))
        further = [b.gep(place, [_number(rows)]), done, b.gep(w, [_number(rows * LANES)])]
        further += self.turned(sums, place, w, step)
        again = b.cbranch(b.icmp_signed("<", done, end), inner, onward)
        again.set_metadata("llvm.loop", self.once)
        b.position_at_end(onward)
        found = self.between(further[3:])
        onto = [b.gep(tap, [_number(1)]), *further[1:3], *found]
        again = b.cbranch(b.icmp_signed("<", done, turns), taps, after)
        again.set_metadata("llvm.loop", self.once)
        for phi, old, new in zip(state, (x, *outer[1:]), further, strict=True):
            phi.add_incoming(old, taps)
            phi.add_incoming(new, last)
        for phi, old, new in zip(outer, start, onto, strict=True):
            phi.add_incoming(old, here)
            phi.add_incoming(new, onward)
        b.position_at_end(after)
        return found

    def turned(self, sums: Values, x: ir.Value, w: ir.Value, step: ir.Value) -> Values:
        """The sums after a turn."""
        near = isinstance(step, ir.Constant)
        turn = Turn(self.tile, near)
        steps = [self.builder.shl(floats, _number(2)) for floats in (step, self.across)]
        arguments = [*sums, x, w, *steps]
        kind = ir.FunctionType(ir.LiteralStructType(turn.given), [v.type for v in arguments])
        code = ir.InlineAsm(kind, turn.text, turn.constraints, side_effect=False)
        given = self.builder.call(code, arguments)
        return [self.builder.extract_value(given, i) for i in range(len(sums))]


def _number(value: int) -> ir.Constant:
    return ir.Constant(LONG, value)
