"""How much memory a net takes: to run once, and to be trained.

Running holds the parameters and, at any moment, the tensors that are still to be read. Training
holds the parameters, a gradient for each, the optimiser's state, and every tensor that some op's
backward pass reads (each once, however many ops read it).
"""

from __future__ import annotations

from math import prod

from netdsl.cost.count import Cost, Layer
from netdsl.cost.sheet import Column, Sheet, memory, number
from netdsl.cost.tables import heading
from netdsl.faults import error
from netdsl.frozen import dataclass
from netdsl.graph import Graph
from netdsl.ops import Dropout, GroupNorm, InstanceNorm, LayerNorm

OPTIMISERS = {"sgd": 0, "momentum": 1, "adam": 2}
"""Numbers that an optimiser keeps for each learned number."""


@dataclass(frozen=True)
class Inference:
    """Bytes to run a batch: parameters (running statistics too) and the most that tensors take.

    `live` counts each tensor from when it is written to when it is last read, as if none shared
    its place with another; `at` is the layer where that is most. `arena` is what an engine's plan
    takes for the same tensors (it fuses activations, and aligns), where one was asked.
    """

    parameters: int
    live: int
    at: str
    arena: int | None = None


@dataclass(frozen=True)
class Training:
    """Bytes to train on a batch with an optimiser."""

    optimiser: str
    parameters: int
    gradients: int
    state: int
    kept: int
    tensors: int

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.state + self.kept


def inference(cost: Cost, arena: int | None = None) -> Inference:
    """The memory of one run of the net without its auxiliary heads."""
    graph = cost.graph.without_aux()
    size = {node.name: prod(node.shape) * cost.itemsize * cost.batch for node in graph}
    readers = dict(graph.consumers)
    unread = {name: len(found) for name, found in readers.items()}
    live, peak, at = sum(size[name] for name in graph.inputs), 0, graph.inputs[0]
    for node in graph:
        if node.name not in graph.inputs:
            live += size[node.name]
        if live > peak:
            peak, at = live, node.name
        for name in node.inputs:
            unread[name] -= 1
            if not unread[name] and name not in graph.outputs:
                live -= size[name]
    return Inference(_held(cost), peak, at, arena)


def training(cost: Cost, optimiser: str = "sgd") -> Training:
    """The memory of a training step, auxiliary heads included. Raises NetError."""
    if optimiser not in OPTIMISERS:
        known = ", ".join(OPTIMISERS)
        raise error("no-such-optimiser", f"--optimiser takes {known}, not {optimiser}")
    learned = cost.params + sum(head.params for head in cost.aux)
    tensors, extra = _kept(cost)
    kept = sum(tensors.values()) + extra
    size = learned * cost.itemsize
    state = size * OPTIMISERS[optimiser]
    return Training(optimiser, _held(cost, with_aux=True), size, state, kept, len(tensors))


def _held(cost: Cost, with_aux: bool = False) -> int:
    """Bytes of parameters and running statistics."""
    graph: Graph = cost.graph if with_aux else cost.graph.without_aux()
    return sum(p.size for p in graph.all_parameters().values()) * cost.itemsize


def _kept(cost: Cost) -> tuple[dict[str, int], int]:
    """Tensors that backward passes read, by name with their bytes; and what else they keep."""
    graph = cost.graph
    tensors: dict[str, int] = {}
    extra = 0
    layers = [*cost.layers, *(layer for head in cost.aux for layer in head.layers)]
    for layer in layers:
        saves = layer.op.gradient.saves
        names = graph[layer.name].inputs if "input" in saves else ()
        if "output" in saves:
            names = (*names, layer.name)
        for name in names:
            tensors[name] = prod(graph[name].shape) * cost.itemsize * cost.batch
        if "mask" in saves and isinstance(layer.op, Dropout):
            extra += prod(layer.output) * cost.batch
        if "statistics" in saves:
            extra += 2 * _groups(layer) * cost.itemsize
    return tensors, extra


def _groups(layer: Layer) -> int:
    """How many means (and deviations) a norm keeps for a batch."""
    op, channels = layer.op, layer.inputs[0][0]
    if isinstance(op, LayerNorm):
        return layer.batch
    if isinstance(op, GroupNorm):
        return layer.batch * op.groups
    return layer.batch * channels if isinstance(op, InstanceNorm) else channels


def memory_json(cost: Cost, optimiser: str, arena: int | None = None) -> dict[str, object]:
    """Both, as `--json --memory` prints them: bytes."""
    run, train = inference(cost, arena), training(cost, optimiser)
    return {
        "run": {
            "parameters": run.parameters,
            "activations": run.live,
            "at": run.at,
            "arena": run.arena,
        },
        "train": {
            "optimiser": train.optimiser,
            "parameters": train.parameters,
            "gradients": train.gradients,
            "state": train.state,
            "activations": train.kept,
            "total": train.total,
        },
    }


def memory_sheet(cost: Cost, optimiser: str, arena: int | None = None) -> Sheet:
    """Both, as rows of a table with what each is."""
    run, train = inference(cost, arena), training(cost, optimiser)
    rows = [
        ("run", "parameters", run.parameters, "and running statistics"),
        ("run", "activations", run.live, f"tensors still to be read, at most (at {run.at})"),
    ]
    if arena is not None:
        rows.append(
            ("run", "arena", arena, "the same, and scratch, as the CPU engine lays them out")
        )
    needed = run.parameters + (run.live if arena is None else arena)
    rows += [
        ("run", "in all", needed, "" if arena is None else "parameters and arena"),
        ("train", "parameters", train.parameters, "auxiliary heads too" if cost.aux else ""),
        ("train", "gradients", train.gradients, "one for each learned number"),
        ("train", "optimiser", train.state, _state(optimiser)),
        ("train", "activations", train.kept, f"{number(train.tensors)} tensors kept for backward"),
        ("train", "in all", train.total, ""),
    ]
    columns = (
        Column("to"),
        Column("memory of", key="of"),
        Column("size", memory, right=True, key="bytes"),
        Column("what it is", key="note"),
    )
    note = "Training leaves out the gradients of activations, which come and go, and workspace."
    return Sheet(f"{heading(cost)}: memory", columns, tuple(rows), (), (note,), cost.net)


def _state(optimiser: str) -> str:
    count = OPTIMISERS[optimiser]
    return f"{optimiser}: {count or 'no'} number{'' if count == 1 else 's'} for each learned number"
