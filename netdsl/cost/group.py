"""Costs summed by stage, block or kind of op.

A stage is what runs at one resolution, as VGG's five: it ends after the op that shrinks the data,
where that is a pool, and before it, where that is a convolution with a stride. Fully connected
layers stand alone, as in the lectures' charts. A block is a call of a `def` at the top of the
text; what stands outside of blocks stands alone.
"""

from __future__ import annotations

from itertools import groupby

from netdsl.cost.count import Cost, Layer, Sums
from netdsl.cost.sheet import Column, Sheet, memory, number, shape
from netdsl.cost.tables import heading
from netdsl.faults import error
from netdsl.frozen import dataclass
from netdsl.ops import Activation, Dropout, Flatten, Join, LocalResponseNorm, Norm, Shape

GROUPINGS = ("layer", "stage", "block", "kind")


@dataclass(frozen=True)
class Group(Sums):
    """Layers under one name; sums over them."""

    name: str
    layers: tuple[Layer, ...]

    @property
    def output(self) -> Shape:
        """The last layer's output."""
        return self.layers[-1].output

    def as_json(self) -> dict[str, object]:
        """The group as `--json --by` prints it."""
        return {
            "name": self.name,
            "layers": [layer.name for layer in self.layers],
            "out": list(self.output),
            "params": self.params,
            "weights": self.weights,
            "macs": self.macs,
            "activation_bytes": self.activation_bytes,
        }


def groups(cost: Cost, by: str) -> tuple[Group, ...]:
    """The net's layers grouped. Raises NetError for an unknown grouping."""
    if by not in GROUPINGS:
        raise error("no-such-grouping", f"--by takes {', '.join(GROUPINGS)}, not {by}")
    return {"layer": _layers, "stage": _stages, "block": _blocks, "kind": _kinds}[by](cost.layers)


def group_sheet(cost: Cost, by: str) -> Sheet:
    """A row a group: how many layers, the last output, memory, parameters, MACs."""
    output = () if by == "kind" else (Column("output", shape, key="out"),)
    columns = (
        Column(by),
        Column("ops", number, right=True),
        *output,
        Column("memory", memory, right=True, bar=True, key="activation_bytes"),
        Column("parameters", number, right=True, bar=True, key="params"),
        Column("MACs", number, right=True, bar=True, key="macs"),
    )
    rows = tuple(
        (g.name, len(g.layers), *((g.output,) if output else ()), *_figures(g))
        for g in groups(cost, by)
    )
    total = ("total", len(cost.layers), *((None,) if output else ()), *_figures(cost))
    title = f"{heading(cost)}, by {by}"
    return Sheet(title, columns, rows, (total,), subject=cost.net)


def _figures(costs: Group | Cost) -> tuple[int, int, int]:
    return costs.activation_bytes, costs.params, costs.macs


def _layers(layers: tuple[Layer, ...]) -> tuple[Group, ...]:
    return tuple(Group(layer.name, (layer,)) for layer in layers)


def _kinds(layers: tuple[Layer, ...]) -> tuple[Group, ...]:
    kinds = dict.fromkeys(layer.kind for layer in layers)
    return tuple(Group(kind, tuple(x for x in layers if x.kind == kind)) for kind in kinds)


def _blocks(layers: tuple[Layer, ...]) -> tuple[Group, ...]:
    runs = groupby(layers, key=lambda layer: layer.block or layer.name)
    return tuple(Group(name, tuple(run)) for name, run in runs)


def _stages(layers: tuple[Layer, ...]) -> tuple[Group, ...]:
    stages: list[tuple[str, list[Layer]]] = []
    size: Shape | None = None  # the resolution of the open stage, None where none is open
    count = 0
    for unit in _blocks(layers):
        last = _last_working(unit.layers)
        pool = last.kind in POOLS
        works_at = last.inputs[0][1:] if pool else last.output[1:]
        if last.kind == "fc":
            stages.append((unit.name, []))
            size = None
        elif not stages or (not isinstance(last.op, FOLLOWERS) and not pool and works_at != size):
            count += 1
            stages.append((f"stage{count}", []))
            size = works_at
        if pool and last.output[1:] != size:
            size = None
        stages[-1][1].extend(unit.layers)
    return tuple(Group(name, tuple(found)) for name, found in stages)


FOLLOWERS = (Activation, Norm, LocalResponseNorm, Dropout, Flatten, Join)
POOLS = ("maxpool", "avgpool", "gap", "gmp")


def _last_working(layers: tuple[Layer, ...]) -> Layer:
    """The last layer that is more than an activation, a norm or a join; else the last."""
    working = [layer for layer in layers if not isinstance(layer.op, FOLLOWERS)]
    return working[-1] if working else layers[-1]
