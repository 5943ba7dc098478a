"""Where every tensor of a plan lies in the arena.

Tensors that share memory by design form a *family* under one root: the branches of a concatenation
are blocks of its buffer, and a pass over the elements writes over what it read. Families are laid
out by their lifetimes. Those with a halo take turns in slots of equal image and halo, so that the
zeros stay zero. Large slots lie among the families without a halo, wherever memory is free while
their tensors are wanted, and have their halos cleared in each run, before the first of these is
written; small ones have memory of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import NamedTuple

from netdsl.cpu.chains import Chain
from netdsl.cpu.fit import Slot, pack, settled, slots, take_turns
from netdsl.cpu.layout import LANES, Buffer, Halo, fresh
from netdsl.cpu.rounding import Rounded, buffer_of
from netdsl.cpu.sections import Section
from netdsl.cpu.task import Needs
from netdsl.graph import Graph, Node
from netdsl.graph.families import Families
from netdsl.graph.lifetimes import Lifetime, inner, lifetimes
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


class Cleared(NamedTuple):
    """A buffer whose halo is to be zeroed in each run, before the node at this place in the graph's
    order is done."""

    before: int
    buffer: Buffer


class Placement(NamedTuple):
    """Each tensor's buffer, the floats they take in all, where the scratch is, and which halos are
    to be cleared, the first first."""

    buffers: Mapping[str, Buffer]
    families: Families
    scratch: int
    floats: int
    cleared: tuple[Cleared, ...] = ()


def place(
    graph: Graph,
    batch: int,
    needs: Mapping[str, Needs],
    over: Mapping[str, tuple[int, ...]],
    planar: frozenset[str],
    striped: Sequence[Chain] = (),
    by_turns: Sequence[Section] = (),
    halves: frozenset[str] = frozenset(),
) -> Placement:
    """Lays out a graph's tensors.

    needs: what each node asks for, by name. over: the inputs that its kernel may write over.
    planar: the inputs of the graph that lie in planes. striped: layers that are done in stripes;
    by_turns: those that do some samples before the next. halves: tensors in bfloat16, besides those
    that steps of rounding make (halves.py).
    """
    striped_names = [chain.names for chain in striped]
    life = lifetimes(graph, striped_names, [section.names for section in by_turns])
    families = BlockFamilies(graph, life)
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
    between = frozenset(name for names in striped_names for name in names[:-1])
    apart = _apart(families, by_turns, between)
    roots = _roots(families, shapes, halos, planar, halves)
    placed, cleared, floats = _fitted(roots, families.life, apart, between)
    for node in graph:
        _settle(node.name, families, placed)
    scratch = max((each.scratch for each in needs.values()), default=0)
    return Placement(placed, families, floats, floats + scratch, cleared)


class Apart(NamedTuple):
    """Tensors of which each sample lies apart, one with all that sections have of it behind the
    other: a thread that does one writes nowhere that another thread reads.

    roots: these tensors; life: while their memory is wanted.
    """

    roots: frozenset[str]
    samples: int
    life: Lifetime


def _apart(
    families: Families, by_turns: Sequence[Section], between: frozenset[str]
) -> Apart | None:
    """What none but one section's layers read. between: what lies between layers in stripes, which
    threads have apart already."""
    if not by_turns:
        return None
    place = {node.name: i for i, node in enumerate(families.graph.nodes)}
    inside = {n for one in by_turns for n in inner(families.graph, one.names)} - between
    outside = {families.root(name) for name in place if name not in inside}
    life = Lifetime(place[by_turns[0].names[0]], place[by_turns[-1].names[-1]])
    roots = frozenset(map(families.root, inside)) - outside
    return Apart(roots, by_turns[0].samples, life)


def _roots(
    families: Families,
    shapes: Mapping[str, tuple[int, Shape]],
    halos: Mapping[str, Halo],
    planar: frozenset[str],
    halves: frozenset[str],
) -> dict[str, Buffer]:
    """The buffer of every family. shapes: how many samples, and the shape of each."""
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
    return roots


SHARED = 1 << 18
"""Floats of a buffer with a halo from which on its memory is others' before and after it. To clear
a halo is a call, which in a smaller one would be longer than the clearing."""

FRAME = 0.1
"""The part of a buffer that its halo may be for that, as in images of 40 pixels and more: to clear
more takes time that little memory is saved for."""

IDLE = 4
"""Steps for which such memory is kept for a buffer of the same halo, which then need not be cleared
again: so many lie between the 3x3 layers of a residual net."""


def _fitted(
    roots: Mapping[str, Buffer],
    life: Mapping[str, Lifetime],
    apart: Apart | None,
    between: frozenset[str],
) -> tuple[dict[str, Buffer], tuple[Cleared, ...], int]:
    """Buffers where they lie, which are to be cleared, and the floats that all take. Those apart
    are laid out for a sample, which then takes its place among the others as often as there are
    samples. between: see `_apart`."""
    names = apart.roots if apart else frozenset[str]()
    framed, loose = _by_halo({name: roots[name] for name in roots if name not in names})

    def shares(name: str) -> bool:
        buffer = framed[name]
        large = buffer.lanes == LANES and buffer.floats >= SHARED
        clear = prod(buffer.size) >= (1 - FRAME) * prod(buffer.outer)
        return large and clear and life[name].born >= 0 and name not in between

    large = slots({n: b for n, b in framed.items() if shares(n)}, life, IDLE)
    placed, floats = take_turns({n: b for n, b in framed.items() if not shares(n)}, life)
    if apart is not None:
        one = {name: replace(roots[name], batch=1) for name in roots if name in names}
        inside, tight = _by_halo(one)
        turns, size = take_turns(inside, life)
        placed.update(_repeated(turns, floats, apart.samples, size))
        floats += apart.samples * size
        packed, size = pack(tight, life, 0)
        loose[ROOM] = fresh(apart.samples, (LANES, size // LANES))
        life = {**life, ROOM: apart.life}
    more, cleared, floats = _among(large, framed, loose, life, floats)
    if apart is not None:
        room = more.pop(ROOM)
        placed.update(_repeated(packed, room.offset, apart.samples, room.batch_stride))
    return {**placed, **more}, cleared, floats


def _among(
    large: Sequence[Slot],
    framed: Mapping[str, Buffer],
    loose: Mapping[str, Buffer],
    life: Mapping[str, Lifetime],
    start: int,
) -> tuple[dict[str, Buffer], tuple[Cleared, ...], int]:
    """Slots among buffers without halos, from a start on."""
    each = {slot.tenants[0]: slot for slot in large}
    lives = {**life, **{name: slot.life for name, slot in each.items()}}
    rooms = {**loose, **{name: slot.buffer for name, slot in each.items()}}
    placed, floats = pack(rooms, lives, start)
    cleared = [Cleared(slot.life.born, placed[name]) for name, slot in each.items()]
    for name, slot in each.items():
        placed.update(settled(slot, framed, placed[name].offset))
    return placed, tuple(sorted(cleared, key=lambda one: one.before)), floats


ROOM = "samples apart"
"""What the memory of tensors apart goes by among buffers; no node's name has spaces."""


def _by_halo(buffers: Mapping[str, Buffer]) -> tuple[dict[str, Buffer], dict[str, Buffer]]:
    """Those with a halo, and those without."""
    framed = {name: buffer for name, buffer in buffers.items() if buffer.halo != Halo()}
    return framed, {name: buffer for name, buffer in buffers.items() if name not in framed}


def _repeated(
    buffers: Mapping[str, Buffer], offset: int, samples: int, size: int
) -> dict[str, Buffer]:
    """Buffers of a sample, for more samples so far apart."""
    return {
        name: replace(buffer, offset=offset + buffer.offset, batch=samples, batch_stride=size)
        for name, buffer in buffers.items()
    }


def _settle(name: str, families: Families, placed: dict[str, Buffer]) -> None:
    """Gives a tensor its part of its parent's buffer, the parent first."""
    if name in placed:
        return
    parent, channel = families.parent[name]
    _settle(parent, families, placed)
    channels, whole = (families.graph[one].shape[0] for one in (name, parent))
    placed[name] = placed[parent].part(channel, channels, channel + channels == whole)
