"""Where every tensor of a plan lies in the arena.

Tensors that share memory by design form a *family* under one root: the branches of a concatenation
are blocks of its buffer, and a pass over the elements writes over what it read. Families are laid
out by their lifetimes. Those with a halo take turns in slots of equal image and halo, so that the
zeros stay zero; those without one lie anywhere among themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from netdsl.cpu.chains import Chain
from netdsl.cpu.layout import LANES, Buffer, Halo, fresh
from netdsl.cpu.rounding import Rounded, buffer_of
from netdsl.cpu.task import Needs
from netdsl.graph import Graph, Node
from netdsl.graph.families import Families
from netdsl.graph.lifetimes import Lifetime, lifetimes
from netdsl.ops import Concat, Shape


class BlockFamilies(Families):
    """Families whose parts start at a channel of their parent."""

    def join_branches(self, node: Node, apart: frozenset[str]) -> None:
        """Puts a concatenation's branches into its buffer, where their channels fill blocks.

        The last may leave its last block unfilled. A branch that is part of another tensor
        already, or comes twice, or is kept apart, is left to be copied.
        """
        channel = 0
        for i, name in enumerate(node.inputs):
            channels = self.graph[name].shape[0]
            last = i == len(node.inputs) - 1
            fits = channel % LANES == 0 and (channels % LANES == 0 or last)
            if fits and name not in self.parent and name not in apart:
                self.link(name, node.name, channel)
            channel += channels

    def write_over(self, node: Node, choices: tuple[int, ...], now: int) -> None:
        """Lets a node write over one of its inputs, if nothing of that one's family is read again.

        choices: the inputs that its kernel may write over.
        """
        for i in choices:
            name = node.inputs[i]
            if not self.spent(node, i, now):
                continue
            if node.name not in self.parent:
                self.link(node.name, name)
                return
            if name not in self.parent:
                self.link(name, node.name)
                return


class Placement(NamedTuple):
    """Each tensor's buffer, the floats they take in all, and where the scratch is."""

    buffers: Mapping[str, Buffer]
    families: Families
    scratch: int
    floats: int


def place(
    graph: Graph,
    batch: int,
    needs: Mapping[str, Needs],
    over: Mapping[str, tuple[int, ...]],
    planar: frozenset[str],
    striped: Sequence[Chain] = (),
    halves: frozenset[str] = frozenset(),
) -> Placement:
    """Lays out a graph's tensors.

    needs: what each node asks for, by name. over: the inputs that its kernel may write over.
    planar: the inputs of the graph that lie in planes. striped: layers that are done in stripes.
    halves: tensors in bfloat16, besides those that steps of rounding make (halves.py).
    """
    families = BlockFamilies(graph, lifetimes(graph, [chain.names for chain in striped]))
    for node in graph:
        if isinstance(node.op, Concat):
            families.join_branches(node, planar)
    for now, node in enumerate(graph.nodes):
        families.write_over(node, over.get(node.name, ()), now)
    halos: dict[str, Halo] = {}
    for reader, need in needs.items():
        for name, halo in zip(graph[reader].inputs, need.halos, strict=False):
            root = families.root(name)
            halos[root] = halos.get(root, Halo()) | halo
    shapes = {node.name: (batch, node.shape) for node in graph}
    for chain in striped:
        shapes.update(chain.shapes)
    buffers, floats = _lay_out(families, shapes, halos, planar, halves)
    scratch = max((each.scratch for each in needs.values()), default=0)
    return Placement(buffers, families, floats, floats + scratch)


def _lay_out(
    families: Families,
    shapes: Mapping[str, tuple[int, Shape]],
    halos: Mapping[str, Halo],
    planar: frozenset[str],
    halves: frozenset[str],
) -> tuple[dict[str, Buffer], int]:
    """The buffer of every tensor, and the floats that all take. shapes: how many samples, and the
    shape of each."""
    roots = {}
    for node in families.graph:
        if node.name not in families.parent:
            lanes = 1 if node.name in planar else LANES
            halo = halos.get(node.name, Halo())
            batch, shape = shapes[node.name]
            if isinstance(node.op, Rounded) or node.name in halves:
                in_pairs = node.op.lanes if isinstance(node.op, Rounded) else LANES
                roots[node.name] = buffer_of(shape, in_pairs, batch, halo)
            else:
                roots[node.name] = fresh(batch, shape, halo, lanes=lanes)
    framed = {name: buffer for name, buffer in roots.items() if buffer.halo != Halo()}
    loose = {name: buffer for name, buffer in roots.items() if name not in framed}
    placed, floats = take_turns(framed, families.life)
    more, floats = pack_tight(loose, families.life, floats)
    placed.update(more)
    for node in families.graph:
        _settle(node.name, families, placed)
    return placed, floats


def _settle(name: str, families: Families, placed: dict[str, Buffer]) -> None:
    """Gives a tensor its part of its parent's buffer, the parent first."""
    if name in placed:
        return
    parent, channel = families.parent[name]
    _settle(parent, families, placed)
    channels, whole = (families.graph[one].shape[0] for one in (name, parent))
    placed[name] = placed[parent].part(channel, channels, channel + channels == whole)


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
        offset += _rounded(slot.buffer.floats)
    return placed, offset


def _alike(a: Buffer, b: Buffer) -> bool:
    """Whether the halos of both lie in the same cells of a block."""
    whole = a.lanes > 1 or a.channels == b.channels
    return whole and (a.batch, a.size, a.halo, a.lanes) == (b.batch, b.size, b.halo, b.lanes)


def pack_tight(
    buffers: Mapping[str, Buffer], life: Mapping[str, Lifetime], start: int
) -> tuple[dict[str, Buffer], int]:
    """Buffers without halos from `start` on, the largest first, each as low as it fits."""
    placed: dict[str, Buffer] = {}
    end = start
    for name in sorted(buffers, key=lambda name: -buffers[name].floats):
        size = _rounded(buffers[name].floats)
        offset = start
        taken = sorted(
            (other.offset, other.offset + _rounded(other.floats))
            for known, other in placed.items()
            if life[known].overlaps(life[name])
        )
        for low, high in taken:
            if offset + size <= low:
                break
            offset = max(offset, high)
        placed[name] = buffers[name].at(offset)
        end = max(end, offset + size)
    return placed, end


def _rounded(floats: int) -> int:
    return -(-floats // LANES) * LANES
