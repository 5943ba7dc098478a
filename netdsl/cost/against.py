"""A net as a tool counts it, and where its figure parts from the multiply-adds."""

from __future__ import annotations

from netdsl.cost.conventions import Convention
from netdsl.cost.count import Cost
from netdsl.cost.sheet import Column, Sheet, number, shape
from netdsl.cost.tables import heading

SHOWN = 3


def convention_sheet(cost: Cost, convention: Convention) -> Sheet:
    """A row a layer with the convention's own count; what it leaves out is said below."""
    columns = (
        Column("layer", key="name"),
        Column("op"),
        Column("output", shape, key="out"),
        Column("parameters", number, right=True, bar=True, key="params"),
        Column(convention.unit, number, right=True, bar=True, key=convention.unit.lower()),
    )
    counted = convention.layers(cost)
    rows = tuple(
        (layer.name, layer.word, layer.output, layer.params, layer.macs + sum(parts.values()))
        for layer, parts in counted
    )
    total = ("total", None, None, cost.params, convention.total(cost))
    notes = (f"counts {convention.says}", f"leaves out {convention.leaves_out}", *_aux(cost))
    title = f"{heading(cost)}, as {convention.name} counts"
    return Sheet(title, columns, rows, (total,), notes, cost.net)


def _aux(cost: Cost) -> tuple[str, ...]:
    heads = ", ".join(head.name for head in cost.aux)
    return (f"auxiliary heads are left out too: {heads}",) if heads else ()


def difference_sheet(cost: Cost, convention: Convention) -> Sheet:
    """From the multiply-adds to the tool's figure, a row a reason, with the layers it is from."""
    columns = (
        Column("reason"),
        Column(convention.unit, _signed, right=True, key="amount"),
        Column("from", key="layers"),
    )
    rows: list[tuple[object, ...]] = [("multiply-adds of conv, tconv and fc", cost.macs, None)]
    found = convention.because(cost)
    rows += [(reason, amount, _where(cost, convention, reason)) for reason, amount in found.items()]
    total = (f"{convention.name}'s figure", convention.total(cost), None)
    apart = convention.total(cost) - cost.macs
    share = f" ({apart / cost.macs:+.2%})" if cost.macs else ""
    notes = (
        f"the difference is {apart:+,}{share}" if apart else "there is no difference",
        f"{convention.name} leaves out {convention.leaves_out}",
        *_aux(cost),
    )
    title = f"{heading(cost)}, against {convention.name}"
    return Sheet(title, columns, tuple(rows), (total,), notes, cost.net)


def _signed(value: int) -> str:
    return f"{value:+,}"


def _where(cost: Cost, convention: Convention, reason: str) -> str:
    """The layers that a reason is from, the largest first."""
    amounts = [
        (parts[reason], layer.name) for layer, parts in convention.layers(cost) if reason in parts
    ]
    amounts.sort(key=lambda pair: -abs(pair[0]))
    names = ", ".join(f"{name} {amount:+,}" for amount, name in amounts[:SHOWN])
    more = len(amounts) - SHOWN
    return f"{names} and {more} more" if more > 0 else names


def layer_sheet(cost: Cost, convention: Convention) -> Sheet:
    """A row for each layer that the tool counts otherwise than by its multiply-adds, and why."""
    columns = (
        Column("layer", key="name"),
        Column("op"),
        Column("MACs", number, right=True, key="macs"),
        Column(convention.name, number, right=True, key="theirs"),
        Column("difference", _signed, right=True),
        Column("because"),
    )
    rows = tuple(
        (
            layer.name,
            layer.word,
            layer.macs,
            layer.macs + sum(parts.values()),
            sum(parts.values()),
            ", ".join(parts),
        )
        for layer, parts in convention.layers(cost)
        if parts
    )
    return Sheet("layer by layer, where they differ", columns, rows, subject=cost.net)


def difference(cost: Cost, convention: Convention) -> dict[str, object]:
    """The same as `--json --against` prints it."""
    total = convention.total(cost)
    return {
        "against": convention.name,
        "total": total,
        "difference": total - cost.macs,
        "because": [
            {"reason": reason, "amount": amount}
            for reason, amount in convention.because(cost).items()
        ],
    }
