"""Which boxes a graph is drawn as.

A block is one box; an activation, normalisation or dropout is a line in the box of what it
follows; a block that the text repeats (`block(64) x2`) is one box that says how often.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from netdsl.cost import Cost, Layer
from netdsl.cost.sheet import short
from netdsl.graph import Graph, Node
from netdsl.ops import (
    Activation,
    Dropout,
    Flatten,
    Input,
    Join,
    LocalResponseNorm,
    Norm,
    Shape,
    show,
)

FOLLOWERS = (Activation, Norm, LocalResponseNorm, Dropout)
LONGEST = 34


@dataclass(frozen=True)
class Box:
    """One box: the nodes it stands for, its lines of text, its figures.

    kind: "input", "conv", "pool", "fc", "join", "block", "other". head: it belongs to an
    auxiliary head. block: the block's call it is folded from ("inception3a"), else empty.
    """

    key: str
    kind: str
    nodes: tuple[str, ...]
    title: str
    words: tuple[str, ...]
    output: Shape
    params: int = 0
    macs: int = 0
    block: str = ""
    head: bool = False
    times: int = 1

    @property
    def lines(self) -> tuple[str, ...]:
        """The text under the title: words, the output's shape, the cost."""
        found = [_cut(word) for word in self.words]
        found.append(show(self.output))
        parts = [f"{short(self.params)} params"] if self.params else []
        parts += [f"{short(self.macs)} MACs"] if self.macs else []
        return (*found, *([", ".join(parts)] if parts else []))


@dataclass(frozen=True)
class Folded:
    """Boxes in order, and arrows between them by their keys."""

    boxes: tuple[Box, ...]
    arrows: tuple[tuple[str, str], ...]


def fold(cost: Cost, opened: frozenset[str] = frozenset(), within: str = "") -> Folded:
    """The graph's boxes. Blocks in `opened` show their insides; `within` takes one block alone."""
    folding = _Folding(cost, opened, within)
    folded = Folded(folding.boxes(), folding.arrows())
    return folded if within else _merge_repeats(folded, cost.graph)


def trivial(graph: Graph) -> frozenset[str]:
    """Blocks of a single op: their box would say less than the op's."""
    sizes: dict[str, int] = {}
    for node in graph:
        for scope in _scopes(node.name):
            sizes[scope] = sizes.get(scope, 0) + 1
    return frozenset(scope for scope, size in sizes.items() if size == 1)


class _Folding:
    """Assigns each node to a box, then makes the boxes and arrows."""

    def __init__(self, cost: Cost, opened: frozenset[str], within: str) -> None:
        self.graph = cost.graph
        self.layers = {x.name: x for x in _all_layers(cost)}
        self.heads = {x.name for head in cost.aux for x in head.layers}
        self.opened = opened | trivial(cost.graph)
        if within:
            inside = [s for s in cost.graph.blocks if s == within or s.startswith(within + ".")]
            self.opened |= frozenset(inside)
        self.nodes = [n for n in self.graph if not within or n.name.startswith(within + ".")]
        self.within = within
        self.box_of: dict[str, str] = {}
        for node in self.nodes:
            self.box_of[node.name] = self._box(node)

    def _box(self, node: Node) -> str:
        scope = next((s for s in _scopes(node.name) if s not in self.opened), None)
        if scope is not None:
            return scope
        before = node.inputs[0] if len(node.inputs) == 1 else ""
        follows = isinstance(node.op, FOLLOWERS) and before in self.box_of
        if follows and len(self.graph.consumers[before]) == 1:
            box = self.box_of[before]
            alone = box in self.graph and not isinstance(self.graph[box].op, Input)
            return box if alone else node.name
        return node.name

    def boxes(self) -> tuple[Box, ...]:
        members: dict[str, list[Node]] = {}
        for node in self.nodes:
            members.setdefault(self.box_of[node.name], []).append(node)
        made = tuple(self._make(key, nodes) for key, nodes in members.items())
        return (*self._entries(), *made)

    def _entries(self) -> Iterable[Box]:
        """For a block alone: the tensors that come in from outside."""
        outside = dict.fromkeys(
            name for node in self.nodes for name in node.inputs if name not in self.box_of
        )
        for name in outside:
            yield Box(name, "input", (name,), "in", (), self.graph[name].shape)

    def arrows(self) -> tuple[tuple[str, str], ...]:
        found: dict[tuple[str, str], None] = {}
        for node in self.nodes:
            for name in node.inputs:
                ends = (self.box_of.get(name, name), self.box_of[node.name])
                if ends[0] != ends[1]:
                    found[ends] = None
        return tuple(found)

    def _make(self, key: str, nodes: list[Node]) -> Box:
        layers = [self.layers[node.name] for node in nodes if node.name in self.layers]
        first, last = nodes[0], nodes[-1]
        folded = key not in self.graph
        words = _block_words(self.graph, key, layers) if folded else _words(nodes)
        head = first.name in self.heads and not self.within
        words = (*words, "in training only") if head and folded else words
        short_key = key.removeprefix(self.within + ".") if self.within else key
        return Box(
            key,
            "block" if folded else _kind(first),
            tuple(node.name for node in nodes),
            short_key,
            words,
            last.shape,
            sum(layer.params for layer in layers),
            sum(layer.macs for layer in layers),
            key if folded else "",
            head,
        )


def _all_layers(cost: Cost) -> Iterable[Layer]:
    yield from cost.layers
    for head in cost.aux:
        yield from head.layers


def _scopes(name: str) -> list[str]:
    """a.b.conv1 -> a, a.b"""
    parts = name.split(".")[:-1]
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _kind(node: Node) -> str:
    head = node.op.head
    if isinstance(node.op, Input):
        return "input"
    if isinstance(node.op, Join):
        return "join"
    if head in ("conv", "dwconv", "tconv"):
        return "conv"
    if head in ("maxpool", "avgpool", "gap", "gmp"):
        return "pool"
    return "fc" if head == "fc" else "other"


def _words(nodes: list[Node]) -> tuple[str, ...]:
    """The op, and in a second line what follows it in the same box."""
    first = () if isinstance(nodes[0].op, Input) else (nodes[0].op.word(),)
    after = ", ".join(node.op.word() for node in nodes[1:])
    return (*first, *((after,) if after else ()))


def _block_words(graph: Graph, key: str, layers: list[Layer]) -> tuple[str, ...]:
    """What block it is a call of, and how many ops of each weighted kind it holds."""
    counts: dict[str, int] = {}
    for layer in layers:
        if not isinstance(layer.op, (*FOLLOWERS, Join, Flatten)):
            counts[layer.kind] = counts.get(layer.kind, 0) + 1
    inside = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    name = graph.blocks.get(key, "block")
    return (f"{name}: {inside}" if inside else name,)


def _merge_repeats(folded: Folded, graph: Graph) -> Folded:
    """Runs of a block's calls, one after the other and named by number, as one box."""
    after: dict[str, list[str]] = {}
    before: dict[str, list[str]] = {}
    for a, b in folded.arrows:
        after.setdefault(a, []).append(b)
        before.setdefault(b, []).append(a)
    into: dict[str, str] = {}
    merged: dict[str, Box] = {}
    for box in folded.boxes:
        ahead = before.get(box.key, [])
        run = into.get(ahead[0], ahead[0]) if len(ahead) == 1 else ""
        fits = run in merged and len(after[ahead[0]]) == 1
        if fits and _repeats(merged[run], box, graph):
            merged[run] = _joined(merged[run], box)
            into[box.key] = run
        else:
            merged[box.key] = box
    arrows = dict.fromkeys((into.get(a, a), into.get(b, b)) for a, b in folded.arrows)
    return Folded(tuple(merged.values()), tuple((a, b) for a, b in arrows if a != b))


def _repeats(first: Box, box: Box, graph: Graph) -> bool:
    def counted(one: Box) -> str | None:
        name = graph.blocks.get(one.block)
        return name if name and one.block.removeprefix(name).isdigit() else None

    same = bool(first.block and box.block) and counted(first) == counted(box) is not None
    return same and first.words == box.words and first.head == box.head


def _joined(first: Box, box: Box) -> Box:
    start = first.title.partition(" ")[0]
    return replace(
        first,
        nodes=first.nodes + box.nodes,
        title=f"{start} … {box.title}  x{first.times + 1}",
        output=box.output,
        params=first.params + box.params,
        macs=first.macs + box.macs,
        times=first.times + 1,
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
