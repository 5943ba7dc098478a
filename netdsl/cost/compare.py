"""Nets side by side: totals with ratios, and layer by layer as the lectures' charts have it.

Memory is that of the outputs of convolutions and fully connected layers, as the slides count it.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import prod
from typing import Any

from netdsl.cost.count import Cost, Layer
from netdsl.cost.group import Group, groups
from netdsl.cost.rules import rules
from netdsl.cost.sheet import Column, Sheet, memory, number, pixels, shape
from netdsl.cost.tools import WEIGHTED
from netdsl.frozen import dataclass

LONGEST = 40
QUANTITIES: dict[str, Callable[[Any], int]] = {
    "memory": lambda group: weighted_bytes(group.layers),
    "parameters": lambda group: int(group.params),
    "MACs": lambda group: int(group.macs),
}
"""What the charts show of a group, in the order of the slides' triptych."""

SHOWS = {"memory": memory, "parameters": number, "MACs": number}


def weighted_bytes(layers: tuple[Layer, ...]) -> int:
    """Bytes of the outputs of convolutions and fully connected layers."""
    return sum(layer.activation_bytes for layer in layers if layer.kind in WEIGHTED)


def label(cost: Cost) -> str:
    """The net's name; of one given as text, the text without its input."""
    if cost.graph.file is not None or cost.net != "net":
        return cost.net
    spans = [node.span for node in cost.graph if node.span is not None]
    if not spans:
        return cost.net
    statements = spans[0].source.text.replace("\n", ";").split(";")
    told = [s.strip() for s in statements if not s.strip().startswith(("input", "net "))]
    text = "; ".join(filter(None, told))
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def compare_sheet(costs: list[Cost]) -> Sheet:
    """A row a net: year, error, input, memory, parameters, MACs with ratios to the first net."""
    columns = (
        Column("net"),
        Column("year", right=True),
        Column("top-5 error", lambda v: f"{v:g}%", right=True, key="top5_error"),
        Column("input", shape),
        Column("memory", memory, right=True, bar=True, key="memory_bytes"),
        Column("×", ratio, right=True, key="memory_ratio"),
        Column("parameters", number, right=True, bar=True, key="params"),
        Column("×", ratio, right=True, key="params_ratio"),
        Column("MACs", number, right=True, bar=True, key="macs"),
        Column("×", ratio, right=True, key="macs_ratio"),
        Column("field", str, right=True, key="receptive_field"),
    )
    first = _totals(costs[0])
    rows = tuple(_row(cost, first) for cost in costs)
    keep = [i for i, column in enumerate(columns) if any(row[i] is not None for row in rows)]
    notes = (
        f"× is against {label(costs[0])}; memory is the outputs of convolutions and fully "
        "connected layers, as the slides count it",
        *(f"{label(cost)}: auxiliary heads left out" for cost in costs if cost.aux),
        *rules(costs, label),
    )
    kept_rows = tuple(tuple(row[i] for i in keep) for row in rows)
    title = ", ".join(label(cost) for cost in costs)
    return Sheet(title, tuple(columns[i] for i in keep), kept_rows, (), notes, title, "length")


def _totals(cost: Cost) -> tuple[int, int, int]:
    return weighted_bytes(cost.layers), cost.params, cost.macs


def _row(cost: Cost, first: tuple[int, int, int]) -> tuple[Any, ...]:
    meta = cost.graph.meta
    inputs = tuple(cost.inputs.values())
    figures: list[Any] = []
    for value, base in zip(_totals(cost), first, strict=True):
        figures += [value, Fraction(value, base) if base else None]
    return (
        label(cost),
        meta.get("year"),
        meta.get("top5_error"),
        inputs[0] if len(inputs) == 1 else None,
        *figures,
        last_field(cost),
    )


def last_field(cost: Cost) -> str | None:
    """The receptive field of the last layer that has not seen everything, in pixels."""
    fields = [x.receptive_field for x in cost.layers if x.receptive_field and not x.sees_all]
    return pixels(fields[-1]) if fields else None


def ratio(value: Fraction) -> str:
    """2.26, 19.0, 193: three figures or so."""
    size = float(value)
    return f"{size:,.2f}" if size < 10 else f"{size:,.1f}" if size < 100 else f"{size:,.0f}"


@dataclass(frozen=True)
class Aligned:
    """Charts' columns: labels as on the slides, and each net's group under each, or none."""

    labels: tuple[str, ...]
    nets: tuple[tuple[Group | None, ...], ...]


def align(costs: list[Cost]) -> Aligned:
    """Nets column by column: convolutions from the front, fully connected layers at the end.

    A net of at most as many convolutions as the others have stages is taken layer by layer
    (AlexNet), a deeper one stage by stage (VGG-16), as the slides do.
    """
    staged = [_split(groups(cost, "stage")) for cost in costs]
    most = max(len(stages) for stages, _ in staged)
    nets = []
    for cost, (stages, ends) in zip(costs, staged, strict=True):
        layers = tuple(g for g in groups(cost, "layer") if g.layers[0].kind in WEIGHTED)
        convolutions, _ = _split(layers)
        alone = len(convolutions) <= max(most, len(stages))
        nets.append((convolutions if alone else stages, ends))
    front = max(len(convolutions) for convolutions, _ in nets)
    back = max(len(ends) for _, ends in nets)
    labels = [f"conv{i + 1}" for i in range(front)]
    labels += [f"fc{front + i + 1}" for i in range(back)]
    return Aligned(tuple(labels), tuple(_spread(a, b, front, back) for a, b in nets))


def _split(found: tuple[Group, ...]) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
    """Groups with convolutions, and groups of a fully connected layer."""
    ends = tuple(g for g in found if g.layers[0].kind == "fc")
    front = tuple(g for g in found if any(x.kind in WEIGHTED - {"fc"} for x in g.layers))
    return front, ends


def _spread(
    front: tuple[Group, ...], ends: tuple[Group, ...], width: int, back: int
) -> tuple[Group | None, ...]:
    gaps = (None,) * (width - len(front)), (None,) * (back - len(ends))
    return (*front, *gaps[0], *gaps[1], *ends)


def layer_sheets(costs: list[Cost]) -> list[Sheet]:
    """A sheet each of memory, parameters and MACs: a row a column of the charts, a bar a net.

    None where every net has but one layer.
    """
    aligned = align(costs)
    if len(aligned.labels) < 2:
        return []
    sheets = []
    for quantity, of in QUANTITIES.items():
        columns = (Column(""), *(_net_column(cost, quantity) for cost in costs))
        rows = tuple(
            (name, *(None if g is None else of(g) for g in column))
            for name, column in zip(aligned.labels, zip(*aligned.nets, strict=True), strict=True)
        )
        sheets.append(Sheet(f"{quantity}, layer by layer", columns, rows, bars="table"))
    return sheets


def _net_column(cost: Cost, quantity: str) -> Column:
    return Column(label(cost), SHOWS[quantity], right=True, bar=True)


def compare_json(costs: list[Cost]) -> dict[str, object]:
    """The comparison as `--json` prints it: exact integers, ratios to the first net."""
    first = _totals(costs[0])
    return {"nets": [_object(cost, first) for cost in costs], "rules": list(rules(costs, label))}


def _object(cost: Cost, first: tuple[int, int, int]) -> dict[str, object]:
    found = cost.as_json()
    totals = _totals(cost)
    names = ("memory_ratio", "params_ratio", "macs_ratio")
    ratios = {
        name: value / base if base else None
        for name, value, base in zip(names, totals, first, strict=True)
    }
    meta = {key: cost.graph.meta.get(key) for key in ("year", "top5_error")}
    return {
        **found,
        **meta,
        "label": label(cost),
        "memory_bytes": totals[0],
        **ratios,
        "outputs": [prod(cost.graph[name].shape) for name in cost.graph.outputs],
    }
