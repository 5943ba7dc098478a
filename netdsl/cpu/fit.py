"""Where buffers lie that take turns in one memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from netdsl.cpu.layout import LANES, Buffer
from netdsl.graph.lifetimes import Lifetime, lowest


@dataclass
class Slot:
    """Memory in which buffers of one image and halo take turns; as large as the largest."""

    buffer: Buffer
    busy_until: int
    tenants: list[str]


def take_turns(
    buffers: Mapping[str, Buffer], life: Mapping[str, Lifetime]
) -> tuple[dict[str, Buffer], int]:
    """Buffers with halos in slots. In a slot all samples lie as far apart as the largest needs."""
    slots: list[Slot] = []
    for name in sorted(buffers, key=lambda name: life[name].born):
        buffer = buffers[name]
        free = [s for s in slots if s.busy_until < life[name].born and _alike(s.buffer, buffer)]
        if not free:
            slots.append(Slot(buffer, life[name].dies, [name]))
            continue
        slot = min(free, key=lambda s: abs(s.buffer.channels - buffer.channels))
        slot.buffer = max(slot.buffer, buffer, key=lambda b: b.channels)
        slot.busy_until = life[name].dies
        slot.tenants.append(name)
    placed, offset = {}, 0
    for slot in slots:
        for name in slot.tenants:
            stride = slot.buffer.batch_stride
            placed[name] = replace(buffers[name], offset=offset, batch_stride=stride)
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
