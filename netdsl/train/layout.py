"""Where everything of a training step lies in the arena.

Every tensor of the way forward is kept for the way back, but for those that an activation writes
over. Gradients live only from the first that adds to them to their own node's turn, and take turns
in slots of one geometry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from netdsl.cpu.backward.table import BACKS
from netdsl.cpu.backward.task import BackNeeds
from netdsl.cpu.fit import pack, take_turns
from netdsl.cpu.layout import LANES, Buffer, Halo, fresh
from netdsl.cpu.table import RECIPES
from netdsl.cpu.task import Needs, Task
from netdsl.graph import Graph, Node
from netdsl.graph.fused import parts
from netdsl.graph.lifetimes import Lifetime
from netdsl.ops import Concat, Conv, Dropout, Input, Relu, Relu6, Sigmoid, Softmax, Tanh
from netdsl.ops.activation import LogSoftmax

WRITES_OVER = (Relu, Relu6, Sigmoid, Tanh, Dropout)
"""Ops whose way back does not read their input."""
READS_OUTPUT = (Relu, Relu6, Sigmoid, Tanh, Softmax, LogSoftmax)


@dataclass
class Tree:
    """Tensors that lie in others: each links to a parent and its first channel there."""

    parent: dict[str, tuple[str, int]] = field(default_factory=dict)

    def root(self, name: str) -> str:
        """The tensor whose buffer this one lies in."""
        while name in self.parent:
            name = self.parent[name][0]
        return name

    def buffers(
        self, roots: Mapping[str, Buffer], graph: Graph, names: list[str]
    ) -> dict[str, Buffer]:
        """The buffer of every name."""
        found = dict(roots)

        def settle(name: str) -> Buffer:
            if name not in found:
                above, channel = self.parent[name]
                found[name] = settle(above).part(channel, graph[name].shape[0])
            return found[name]

        return {name: settle(name) for name in names}


def base_of(node: Node) -> type:
    """The class of a node's op, under what is fused to it."""
    return type(parts(node).base)


@dataclass
class Layout:
    """A training step's places.

    outputs: the buffer of each node; gradients: of each node that wants one; temporary: where a
    node's share of an input's gradient goes that others have added to before, by (node, which
    input); kept: each node's floats that stay for the way back; scratch; floats in all.
    """

    outputs: dict[str, Buffer]
    gradients: dict[str, Buffer]
    temporary: dict[tuple[str, int], Buffer]
    kept: dict[str, int]
    scratch: int
    floats: int


class Planner:
    """Lays out one graph; see `lay_out`."""

    def __init__(self, graph: Graph, tasks: Mapping[str, Task], batch: int) -> None:
        self.graph, self.tasks, self.batch = graph, tasks, batch
        self.ends = [*graph.outputs, *(aux.output for aux in graph.aux)]
        self.needs: dict[str, Needs] = {}
        self.back: dict[str, BackNeeds] = {}
        for name, task in tasks.items():
            kind = base_of(task.node)
            own_way = BACKS[kind].forward is not None
            self.needs[name] = Needs() if own_way else RECIPES[kind].needs(task)
            self.back[name] = BACKS[kind].needs(task)
        self.wants = self._wants()
        self.order = {node.name: i for i, node in enumerate(reversed(graph.nodes))}

    def _wants(self) -> set[str]:
        """The nodes whose gradient some parameter needs."""
        wants: set[str] = set()
        for node in self.graph:
            learns = any(p.trainable for p in self.graph.parameters(node))
            if learns or any(name in wants for name in node.inputs):
                wants.add(node.name)
        return wants

    def lay_out(self, start: int) -> Layout:
        """Places from `start` on."""
        outputs, end = self._outputs(start)
        gradients, temporary, end = self._gradients(end)
        kept = {}
        for name, asked in self.back.items():
            kept[name] = end
            end += asked.kept
        scratch = [n.scratch for n in self.needs.values()]
        scratch += [n.scratch for n in self.back.values()]
        return Layout(outputs, gradients, temporary, kept, end, end + max(scratch, default=0))

    def planar(self) -> set[str]:
        """The inputs that lie in planes: all their readers are convolutions that ask for it."""
        found = set()
        for name in self.graph.inputs:
            readers = [self.tasks[reader] for reader in self.graph.consumers[name]]
            convs = [
                t for t in readers if isinstance(t.whole.base, Conv) and t.whole.base.groups == 1
            ]
            asked = all(self.needs[t.node.name].planar for t in convs)
            if readers and len(convs) == len(readers) and asked and name not in self.ends:
                found.add(name)
        return found

    def _outputs(self, start: int) -> tuple[dict[str, Buffer], int]:
        tree, planar = Tree(), self.planar()
        for node in self.graph:
            if isinstance(node.op, Concat):
                self._branches(node, tree, planar)
            elif base_of(node) in WRITES_OVER and self._may_write_over(node):
                tree.parent[node.inputs[0]] = (node.name, 0)
        halos: dict[str, Halo] = {}
        for name, task in self.tasks.items():
            for asked in (self.needs[name].halos, self.back[name].inputs):
                for read, halo in zip(task.node.inputs, asked, strict=False):
                    root = tree.root(read)
                    halos[root] = halos.get(root, Halo()) | halo
        roots, offset = {}, start
        for node in self.graph:
            if node.name not in tree.parent:
                lanes = 1 if node.name in planar else LANES
                halo = halos.get(node.name, Halo())
                buffer = fresh(self.batch, node.shape, halo, lanes=lanes, offset=offset)
                roots[node.name] = _apart(buffer)
                offset += -(-roots[node.name].floats // LANES) * LANES
        names = [node.name for node in self.graph]
        return tree.buffers(roots, self.graph, names), offset

    def _branches(self, node: Node, tree: Tree, planar: set[str]) -> None:
        """Branches of a concatenation lie in it where their channels begin a block."""
        channel = 0
        for i, name in enumerate(node.inputs):
            channels, last = self.graph[name].shape[0], i == len(node.inputs) - 1
            fits = channel % LANES == 0 and (channels % LANES == 0 or last)
            if fits and name not in tree.parent and name not in planar:
                tree.parent[name] = (node.name, channel)
            channel += channels

    def _may_write_over(self, node: Node) -> bool:
        """Whether nobody else reads the node's input, on either way."""
        (name,) = node.inputs
        source = self.graph[name]
        if isinstance(source.op, Input) or self._uses(name) > 1:
            return False
        reads = base_of(source) in READS_OUTPUT or parts(source).activation is not None
        return not reads and source.shape == node.shape and not isinstance(source.op, Concat)

    def _uses(self, name: str) -> int:
        """How many add to a tensor's gradient."""
        return len(self.graph.consumers[name]) + self.ends.count(name)

    def _gradients(
        self, start: int
    ) -> tuple[dict[str, Buffer], dict[tuple[str, int], Buffer], int]:
        tree = self._gradient_tree()
        life: dict[str, Lifetime] = {}
        born: dict[str, int] = {}
        halos: dict[str, Halo] = {}
        for node in reversed(self.graph.nodes):
            now = self.order[node.name]
            if node.name in self.wants:
                root = tree.root(node.name)
                first = -1 if node.name in self.ends else born.get(node.name, now)
                life[root] = life.get(root, Lifetime(first, now)) | Lifetime(first, now)
                halo = self.back[node.name].gradient
                halos[root] = halos.get(root, Halo()) | halo
            for name in node.inputs:
                born.setdefault(name, now)
        wanted: dict[str, Buffer] = {}
        for name in life:
            wanted[name] = _apart(fresh(self.batch, self.graph[name].shape, halos[name]))
        shares = self._temporary(tree)
        for key, (name, now) in shares.items():
            wanted[key] = fresh(self.batch, self.graph[name].shape)
            life[key] = Lifetime(now, now)
        placed, end = _placed(wanted, life, start)
        names = [node.name for node in self.graph if node.name in self.wants]
        gradients = tree.buffers(placed, self.graph, names)
        temporary = {_split(key): placed[key] for key in shares}
        return gradients, temporary, end

    def _gradient_tree(self) -> Tree:
        tree = Tree()
        for node in self.graph:
            if node.name not in self.wants or isinstance(node.op, Input):
                continue
            if isinstance(node.op, Concat):
                self._gradient_branches(node, tree)
            elif BACKS[base_of(node)].over:
                name = node.inputs[0]
                if self._alone(name, tree) and self.graph[name].shape == node.shape:
                    tree.parent[name] = (node.name, 0)
        return tree

    def _alone(self, name: str, tree: Tree) -> bool:
        return name in self.wants and self._uses(name) == 1 and name not in tree.parent

    def _gradient_branches(self, node: Node, tree: Tree) -> None:
        channel = 0
        for i, name in enumerate(node.inputs):
            channels, last = self.graph[name].shape[0], i == len(node.inputs) - 1
            fits = channel % LANES == 0 and (channels % LANES == 0 or last)
            if fits and self._alone(name, tree):
                tree.parent[name] = (node.name, channel)
            channel += channels

    def _temporary(self, tree: Tree) -> dict[str, tuple[str, int]]:
        """What needs a place of its own before it is added: by "node/which", (tensor, when)."""
        found, written = {}, set(self.ends)
        for node in reversed(self.graph.nodes):
            if node.name not in self.wants:
                continue
            for i, name in enumerate(node.inputs):
                if name not in self.wants:
                    continue
                if name in written:
                    found[f"{node.name}/{i}"] = (name, self.order[node.name])
                written.add(name)
        return found


def _apart(buffer: Buffer) -> Buffer:
    """Samples of a vector an odd number of cache lines apart: kernels read one number of each, and
    a power of 2 between them would bring all to the same place of the cache."""
    if buffer.size != (1, 1, 1):
        return buffer
    return replace(buffer, batch_stride=LANES * (buffer.batch_stride // LANES | 1))


def _split(key: str) -> tuple[str, int]:
    name, _, which = key.rpartition("/")
    return name, int(which)


def _placed(
    buffers: Mapping[str, Buffer], life: Mapping[str, Lifetime], start: int
) -> tuple[dict[str, Buffer], int]:
    """Buffers with halos in slots of one geometry, the others anywhere they fit."""
    framed = {name: b for name, b in buffers.items() if b.halo != Halo()}
    loose = {name: b for name, b in buffers.items() if b.halo == Halo()}
    turns, floats = take_turns(framed, life)
    placed = {name: b.at(b.offset + start) for name, b in turns.items()}
    more, end = pack(loose, life, start + floats)
    return placed | more, end
