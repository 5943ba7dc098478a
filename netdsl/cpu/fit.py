"""Where buffers lie that take turns in one memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

from netdsl.cpu.layout import LANES, Buffer
from netdsl.graph.lifetimes import Lifetime, lowest


@dataclass
class Slot:
    """Memory in which buffers of one image and halo take turns; as large as the largest. life: from
    the first one's birth to the last one's death."""

    buffer: Buffer
    life: Lifetime
    tenants: list[str]


def slots(
    buffers: Mapping[str, Buffer], life: Mapping[str, Lifetime], idle: float = inf
) -> list[Slot]:
    """Buffers with halos in slots, which stand idle for so many steps at most."""
    found: list[Slot] = []
    for name in sorted(buffers, key=lambda name: life[name].born):
        buffer, (born, _) = buffers[name], life[name]
        free = [s for s in found if 0 < born - s.life.dies <= idle and _alike(s.buffer, buffer)]
        if not free:
            found.append(Slot(buffer, life[name], [name]))
            continue
        slot = min(free, key=lambda s: abs(s.buffer.channels - buffer.channels))
        slot.buffer = max(slot.buffer, buffer, key=lambda b: b.channels)
        slot.life |= life[name]
        slot.tenants.append(name)
    return found


def settled(slot: Slot, buffers: Mapping[str, Buffer], offset: int) -> dict[str, Buffer]:
    """A slot's buffers where it starts. All samples lie as far apart as the largest needs."""
    stride = slot.buffer.batch_stride
    return {n: replace(buffers[n], offset=offset, batch_stride=stride) for n in slot.tenants}


def take_turns(
    buffers: Mapping[str, Buffer], life: Mapping[str, Lifetime]
) -> tuple[dict[str, Buffer], int]:
    """Buffers with halos in slots, one slot after the other."""
    placed: dict[str, Buffer] = {}
    offset = 0
    for slot in slots(buffers, life):
        placed.update(settled(slot, buffers, offset))
        offset += rounded(slot.buffer.floats)
    return placed, offset


def _alike(a: Buffer, b: Buffer) -> bool:
    """Whether the halos of both lie in the same cells of a block."""
    whole = a.lanes > 1 or a.channels == b.channels
    return whole and (a.batch, a.size, a.halo, a.lanes) == (b.batch, b.size, b.halo, b.lanes)


def pack(
    buffers: Mapping[str, Buffer], life: Mapping[str, Lifetime], start: int
) -> tuple[dict[str, Buffer], int]:
    """Buffers without halos from `start` on, the largest first, each as low as it fits."""
    placed: dict[str, Buffer] = {}
    end = start
    for name in sorted(buffers, key=lambda name: -buffers[name].floats):
        size = rounded(buffers[name].floats)
        taken = (
            (other.offset, other.offset + rounded(other.floats))
            for known, other in placed.items()
            if life[known].overlaps(life[name])
        )
        offset = lowest(taken, size, start)
        placed[name] = buffers[name].at(offset)
        end = max(end, offset + size)
    return placed, end


def rounded(floats: int) -> int:
    return -(-floats // LANES) * LANES
