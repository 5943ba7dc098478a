"""Which of AMX's eight registers hold what in a tile of matrices."""

from __future__ import annotations

from netdsl.cpu.micro.shapes import Shape

REGISTERS = 8


def registers(shape: Shape) -> tuple[range, range]:
    """Those that inputs go through, and weights. Sums are in the first, the fewer of both stay in
    the next while the others take turns in what is left."""
    inputs, weights = shape
    first, few = inputs * weights, min(inputs, weights)
    stay, turns = range(first, first + few), range(first + few, REGISTERS)
    return (stay, turns) if inputs <= weights else (turns, stay)
