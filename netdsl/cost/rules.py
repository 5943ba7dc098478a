"""VGG's design rules (lecture 8), told where nets that are compared show one.

A stack of convolutions that keeps C channels on H x W costs so many C² weights and C²HW
multiply-adds. Two 3x3 see as much as one 5x5 and cost 18 C² against 25 C². And when the size
halves and the channels double, a stage costs the same as the one before.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import groupby

from netdsl.cost.count import Cost
from netdsl.frozen import dataclass
from netdsl.ops import Activation, Conv, Norm, show

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Stack:
    """Convolutions, one after the other, that keep channels and size."""

    channels: int
    size: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]
    weights: int
    macs: int
    outputs: int
    field: tuple[int, ...]

    @property
    def positions(self) -> int:
        found = 1
        for size in self.size:
            found *= size
        return found

    @property
    def words(self) -> str:
        """two 3x3, one 5x5"""
        runs = [(kernel, len(list(run))) for kernel, run in groupby(self.kernels)]
        return " and ".join(f"{_number(count)} {show(kernel)}" for kernel, count in runs)


def stack(cost: Cost) -> Stack | None:
    """The net as a stack; None where it is not one."""
    inputs = tuple(cost.inputs.values())
    if len(inputs) != 1 or len(inputs[0]) < 2:
        return None
    convolutions = []
    for layer in cost.layers:
        op = layer.op
        if isinstance(op, Activation | Norm):
            continue
        if not isinstance(op, Conv) or op.groups != 1 or layer.output != inputs[0]:
            return None
        convolutions.append(layer)
    if not convolutions:
        return None
    last = convolutions[-1]
    assert last.receptive_field is not None
    channels, *size = inputs[0]
    return Stack(
        channels,
        tuple(size),
        tuple(layer.op.window.kernel for layer in convolutions if isinstance(layer.op, Conv)),
        sum(layer.weights for layer in convolutions),
        sum(layer.counts.macs for layer in convolutions),
        last.activation_bytes // cost.itemsize // max(cost.batch, 1),
        last.receptive_field,
    )


def rules(costs: list[Cost], label: Callable[[Cost], str]) -> tuple[str, ...]:
    """What the compared nets show, in words; nothing where they show none of the rules."""
    stacks = [stack(cost) for cost in costs]
    found = [s for s in stacks if s is not None]
    if len(found) < 2 or len(found) != len(costs):
        return ()
    first = found[0]
    if all((s.channels, s.size) == (first.channels, first.size) for s in found):
        return _kernels(found)
    doubled = all(s.channels * s.positions == first.channels * first.positions for s in found)
    return () if doubled else _stages(found)


def _kernels(stacks: list[Stack]) -> tuple[str, ...]:
    """The same channels and size: what each stack costs in C² and C²HW, and what it sees."""
    lines = []
    for s in stacks:
        per = _times(Fraction(s.weights, s.channels**2))
        work = _times(Fraction(s.macs, s.channels**2 * s.positions))
        lines.append(
            f"{s.words}: {per}C² weights, {work}C²{_axes(s)} MACs, receptive field {_field(s)} "
            f"(C = {s.channels}, {_where(s)})"
        )
    return (*lines, *_same_field(stacks))


def _same_field(stacks: list[Stack]) -> tuple[str, ...]:
    least = min(stacks, key=lambda s: s.weights)
    most = max(stacks, key=lambda s: s.weights)
    if least.weights == most.weights or len({s.field for s in stacks}) > 1:
        return ()
    saved = 1 - Fraction(least.weights, most.weights)
    extra = len(least.kernels) - len(most.kernels)
    room = f"; room for {_number(extra)} more activation" if extra > 0 else ""
    room += "s" if extra > 1 else ""
    return (
        f"VGG's first rule: {least.words} see as much as {most.words} for {float(saved):.0%} "
        f"fewer weights and MACs{room}",
    )


def _stages(stacks: list[Stack]) -> tuple[str, ...]:
    """Channels that double as the size halves: memory halves, weights grow 4x, work stays."""
    channels = min(s.channels for s in stacks)
    last = min(stacks, key=lambda s: s.positions)
    unit = last.positions
    axes = _axes(last)
    lines = []
    for s in stacks:
        memory = _times(Fraction(s.outputs, channels * unit))
        weights = _times(Fraction(s.weights, channels**2))
        work = _times(Fraction(s.macs, channels**2 * unit))
        lines.append(
            f"{s.channels} channels on {show(s.size)}: memory {memory}{axes}C, weights "
            f"{weights}C², MACs {work}{axes}C²"
        )
    lines.append(f"C = {channels}, {_where(last)}")
    if len({s.macs for s in stacks}) == 1:
        lines.append("VGG's third rule: channels double as the size halves, and the work is equal")
    return tuple(lines)


def _number(count: int) -> str:
    return NUMBERS[count] if 0 <= count < len(NUMBERS) else str(count)


def _times(value: Fraction) -> str:
    """A factor before a letter: 25, 2.5, and nothing for 1."""
    if value == 1:
        return ""
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.3g}"


def _axes(s: Stack) -> str:
    """The letters of the spatial axes: HW, L for one axis, DHW for three."""
    return {1: "L", 2: "HW", 3: "DHW"}.get(len(s.size), "N")


def _where(s: Stack) -> str:
    names = _axes(s)
    letters = list(names) if len(names) == len(s.size) else [names]
    return ", ".join(f"{a} = {n}" for a, n in zip(letters, s.size, strict=False))


def _field(s: Stack) -> str:
    return str(s.field[0]) if len(set(s.field)) == 1 else show(s.field)
