"""What one module holds and computes: from a scope of the net to attributes and statements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from netdsl.formats.source.names import MODULE, Names, identifier
from netdsl.formats.source.parts import (
    Apply,
    Attribute,
    Beside,
    Expression,
    Infix,
    Module,
    Ref,
    Statement,
    Use,
    depth,
)
from netdsl.formats.source.segments import Piece, branch_names, segments
from netdsl.formats.source.tree import Scope
from netdsl.graph import Graph, Node
from netdsl.ops import Add, Concat, Join

Fold = Callable[[tuple[Module, ...]], tuple[Module, ...]]
"""Puts modules that come in a row again and again together."""

DEEP = 4
"""Expressions within each other from which on one gets a name."""

Layers = Callable[[Graph, Node, str], tuple[Module, ...]]
"""The modules of a node, which is called by a name in its scope."""


@dataclass(frozen=True)
class Item:
    """A step of a scope: an op, a join, or a call."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    modules: tuple[Module, ...] = ()
    join: Join | None = None

    @property
    def plain(self) -> bool:
        """One tensor in, one out."""
        return self.join is None and len(self.inputs) == len(self.outputs) == 1


@dataclass
class Chain:
    """Modules in a row, each read by the next alone."""

    source: str
    modules: list[Module]
    result: str


@dataclass
class Body:
    """A module: its attributes, what it computes, and what it gives.

    row: modules in a row that are all there is. heads: statements and results in training alone.
    root: whether it is the net.
    """

    root: bool
    takes: tuple[str, ...]
    names: Mapping[str, str]
    attributes: list[Attribute] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    results: tuple[Expression, ...] = ()
    head_statements: list[Statement] = field(default_factory=list)
    head_results: tuple[Expression, ...] = ()
    row: bool = False

    def states(self) -> tuple[tuple[str, str], ...]:
        """The state dict's names and our parameters'."""
        if self.row:
            (whole,) = self.attributes
            first = len(whole.name) + 1
            return tuple((theirs[first:], ours) for theirs, ours in whole.states())
        return tuple(pair for attribute in self.attributes for pair in attribute.states())


def body(
    graph: Graph, scope: Scope, calls: Mapping[str, Module], layers: Layers, fold: Fold
) -> Body:
    """The body of a scope. calls: the modules of the calls within it, by their names."""
    return _Maker(graph, scope, calls, layers, fold).made()


class _Maker:
    def __init__(
        self,
        graph: Graph,
        scope: Scope,
        calls: Mapping[str, Module],
        layers: Layers,
        fold: Fold,
    ) -> None:
        self.graph, self.scope, self.layers, self.fold = graph, scope, layers, fold
        self.root = not scope.name
        self.names: dict[str, str] = {}
        self.items = self._items(calls)
        heads = graph.aux if self.root else ()
        self.ends = [*scope.gives, *(aux.output for aux in heads)]
        self.uses = Counter([*(n for item in self.items for n in item.inputs), *self.ends])
        self.pending: dict[str, Expression] = {}
        self.attributes: list[Attribute] = []
        self.taken = Names(MODULE)
        self.stages = 0
        self.made_body = Body(self.root, scope.takes, self.names)

    def _items(self, calls: Mapping[str, Module]) -> list[Item]:
        found = []
        labels = {node: label for label, node in self.graph.names.items()} if self.root else {}
        for name in self.scope.takes:
            self.names[name] = labels.get(name, name.rpartition(".")[2])
        for item in self.scope.items:
            local = item.name.rpartition(".")[2]
            if isinstance(item, Scope):
                found.append(Item(item.takes, item.gives, (calls[item.name],)))
                for name in item.gives:
                    own = local if len(item.gives) == 1 else name.rpartition(".")[2]
                    self.names[name] = labels.get(name, own)
                continue
            self.names[item.name] = labels.get(item.name, local)
            if isinstance(item.op, Join):
                found.append(Item(item.inputs, (item.name,), join=item.op))
            else:
                modules = self.layers(self.graph, item, local)
                found.append(Item(item.inputs, (item.name,), modules))
        return found

    def _chains(self) -> list[Chain | Item]:
        found: list[Chain | Item] = []
        ends: dict[str, Chain] = {}
        for item in self.items:
            if not item.plain:
                found.append(item)
                continue
            (source,), (result,) = item.inputs, item.outputs
            chain = ends.pop(source, None) if self.uses[source] == 1 else None
            if chain is None:
                chain = Chain(source, [], result)
                found.append(chain)
            chain.modules += item.modules
            chain.result = result
            ends[result] = chain
        return found

    def made(self) -> Body:
        made, units = self.made_body, self._chains()
        for unit in units:
            if isinstance(unit, Chain):
                unit.modules = list(self.fold(tuple(unit.modules)))
        whole = units[0] if len(units) == 1 else None
        if isinstance(whole, Chain) and not self.root and len(whole.modules) > 1:
            self._attribute(Attribute("row", tuple(whole.modules), True))
            made.row = True
        else:
            self.joins = {
                name: unit
                for unit in units
                if isinstance(unit, Item) and unit.join
                for name in unit.inputs
                if self.uses[name] == 1
            }
            self.starts = {u.source: u for u in units if isinstance(u, Chain)}
            self.branches = self._branches(units)
            for unit in units:
                self._unit(unit)
            gives = len(self.scope.gives)
            results = tuple(self._read(name) for name in self.ends)
            made.results, made.head_results = results[:gives], results[gives:]
        made.attributes = _numberless(self.attributes)
        return made

    def _branches(self, units: list[Chain | Item]) -> dict[str, str]:
        """What the chains that join in a bracket are called, by their results."""
        chains = {unit.result: unit for unit in units if isinstance(unit, Chain)}
        found: dict[str, str] = {}
        for unit in units:
            if isinstance(unit, Item) and unit.join:
                inside = [
                    chains[name]
                    if name in chains and self.uses[name] == 1 < self.uses[chains[name].source]
                    else None
                    for name in unit.inputs
                ]
                rows = [tuple(chain.modules) if chain else () for chain in inside]
                if self.root and isinstance(unit.join, Concat) and sum(map(bool, rows)) == 1:
                    continue  # past a skip connection the net itself goes on
                for name, wish in zip(unit.inputs, branch_names(unit.join, rows), strict=True):
                    if wish:
                        found[name] = wish
        return found

    def _unit(self, unit: Chain | Item) -> None:
        if isinstance(unit, Chain):
            self._chain(unit)
        elif unit.join is not None:
            self._join(unit, unit.join)
        else:
            inside = tuple(self._read(name) for name in unit.inputs)
            (module,) = unit.modules
            self._state(unit.outputs, Use(self._hold(_alone(module)), inside))

    def _join(self, item: Item, join: Join) -> None:
        inside = tuple(self._read(name) for name in item.inputs)
        expression: Expression
        if isinstance(join, Concat):
            expression = Beside(inside)
        else:
            expression = Infix("+" if isinstance(join, Add) else "*", inside)
        (result,) = item.outputs
        after = self.starts.get(result)
        goes_on = after is not None and bool(after.modules[0].function)
        inline = result in self.joins or goes_on or self._only(result)
        if self.uses[result] == 1 and inline and depth(expression) < DEEP:
            self.pending[result] = expression
        else:
            self._state((result,), expression)

    def _chain(self, chain: Chain) -> None:
        expression = self._read(chain.source)
        modules = tuple(chain.modules)
        name = self.branches.get(chain.result) or self._head(chain)
        if name:
            parts = [Piece(name, modules)]
        else:
            starts = self.root and chain.source in self.scope.takes
            parts = segments(modules, starts=starts, stages=self.stages)
            self.stages += sum(piece.name.startswith("stage") for piece in parts)
        steps = [step for piece in parts for step in self._steps(piece)]
        for i, step in enumerate(steps):
            expression = self._applied(step, expression)
            if i == len(steps) - 1:
                break
            if not isinstance(step, str) and any(m.states or m.block for m in step.modules):
                between = f"{chain.result}\0{i}"
                self.names[between] = "y"
                self._state((between,), expression, chain.result)
                expression = Ref(between)
        if (chain.result in self.joins or self._only(chain.result)) and depth(expression) < DEEP:
            self.pending[chain.result] = expression
        else:
            self._state((chain.result,), expression)

    def _only(self, name: str) -> bool:
        """Whether a tensor is a result and nothing else."""
        alone = len(self.scope.gives) == 1 or name not in self.scope.gives
        head = bool(self.graph.aux) and self.root and name in self.scope.gives
        return self.uses[name] == 1 and name in self.ends and alone and not head

    def _head(self, chain: Chain) -> str:
        """The name of the auxiliary head that a chain is the whole of."""
        if not self.root or chain.source not in self.graph.main:
            return ""
        heads = (a.name for a in self.graph.aux if a.output == chain.result)
        return next(heads, "") if chain.result not in self.graph.main else ""

    def _steps(self, piece: Piece) -> list[Attribute | str]:
        """A piece as attributes, and as functions where those say it as well."""
        if piece.name:
            alone = len(piece.modules) == 1
            if alone and piece.modules[0].function:
                return [piece.modules[0].function]
            return [Attribute(piece.name, piece.modules, not alone)]
        rest = [module for module in piece.modules if not module.function]
        if len(rest) > 1:
            return [Attribute(rest[-1].name, piece.modules, True)]
        return [m.function if m.function else _alone(m) for m in piece.modules]

    def _applied(self, step: Attribute | str, inside: Expression) -> Expression:
        if isinstance(step, str):
            head, _, tail = step.partition("{}")
            return Apply(head, (inside,), tail)
        return Use(self._hold(step), (inside,))

    def _hold(self, wish: Attribute) -> int:
        """The number of an attribute; one without weights may serve again."""
        if not wish.series and not any(wish.states()) and not wish.modules[0].block:
            for i, held in enumerate(self.attributes):
                if not held.series and held.modules == wish.modules:
                    return i
        return self._attribute(wish)

    def _attribute(self, wish: Attribute) -> int:
        name = self.taken.fresh(identifier(wish.name))
        self.attributes.append(Attribute(name, wish.modules, wish.series))
        return len(self.attributes) - 1

    def _read(self, name: str) -> Expression:
        return self.pending.pop(name, Ref(name))

    def _state(self, names: tuple[str, ...], expression: Expression, of: str = "") -> None:
        main = not self.root or (of or names[0]) in self.graph.main
        made = self.made_body
        (made.statements if main else made.head_statements).append(Statement(names, expression))


def _alone(module: Module) -> Attribute:
    return Attribute(module.name, (module,), False)


def _numberless(attributes: list[Attribute]) -> list[Attribute]:
    """Attributes that are the only ones of their kind without their number."""
    kinds = Counter(a.modules[-1].kind for a in attributes if not a.series)
    names = {a.name for a in attributes}
    found = []
    for held in attributes:
        kind = held.modules[-1].kind
        named = not held.series and held.name.removeprefix(kind).isdigit()
        plain = identifier(kind)
        if kind and named and kinds[kind] == 1 and plain not in names | MODULE:
            held = Attribute(plain, held.modules, held.series)
        found.append(held)
    return found
