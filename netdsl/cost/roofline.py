"""Arithmetic intensity, and the time a machine needs at least: the roofline model.

A layer's time is the longer of its arithmetic at the machine's peak and its traffic at the
machine's bandwidth (Williams, Waterman, Patterson 2009). Traffic is inputs, parameters and output,
each moved once. Activations, batch norm, dropout, flatten and concatenation are taken as fused
into what computes their input, as good engines do: they cost nothing.
"""

from __future__ import annotations

from math import prod

from netdsl.cost.count import Cost, Layer
from netdsl.cost.sheet import Column, Sheet, memory, number
from netdsl.cost.tables import heading
from netdsl.faults import error
from netdsl.frozen import dataclass
from netdsl.ops import Activation

FREE = ("bn", "dropout", "flatten", "concat")


@dataclass(frozen=True)
class Machine:
    """Peak arithmetic in FLOP/s (a multiply-add is two) and memory bandwidth in bytes/s."""

    flops: float
    bandwidth: float
    name: str = ""

    @property
    def ridge(self) -> float:
        """The intensity, in FLOP a byte, from which arithmetic is the limit."""
        return self.flops / self.bandwidth


@dataclass(frozen=True)
class Roof:
    """A layer under a machine's roof: its arithmetic, traffic and least time."""

    layer: Layer
    flops: int
    traffic: int
    seconds: float
    bound: str

    @property
    def intensity(self) -> float | None:
        """FLOP for each byte moved; None where nothing moves."""
        return self.flops / self.traffic if self.traffic else None


def parse_machine(text: str) -> Machine:
    """`500,20` -> 500 GFLOP/s and 20 GB/s. Raises NetError."""
    try:
        flops, bandwidth = (float(part) for part in text.split(","))
    except ValueError:
        flops = bandwidth = 0.0
    if not (0 < flops < 1e15 and 0 < bandwidth < 1e15):
        raise error(
            "bad-machine",
            f"--machine takes GFLOPS,GB/s, both above 0, not {text}",
            help="as in --machine 500,20, or --machine this to measure this one once",
        )
    return Machine(flops * 1e9, bandwidth * 1e9, f"{flops:g} GFLOP/s, {bandwidth:g} GB/s")


def roofs(cost: Cost, machine: Machine) -> tuple[Roof, ...]:
    """Each layer that costs time."""
    return tuple(_roof(layer, cost, machine) for layer in cost.layers if not _free(layer))


def _free(layer: Layer) -> bool:
    return layer.kind in FREE or isinstance(layer.op, Activation)


def _roof(layer: Layer, cost: Cost, machine: Machine) -> Roof:
    counts = layer.counts
    other = counts.bias + counts.compares + counts.adds + counts.elementwise
    flops = 2 * layer.macs + other * layer.batch
    moved = (sum(map(prod, layer.inputs)) + prod(layer.output)) * layer.batch
    traffic = (moved + layer.params) * cost.itemsize
    compute, move = flops / machine.flops, traffic / machine.bandwidth
    return Roof(
        layer, flops, traffic, max(compute, move), "compute" if compute >= move else "memory"
    )


def roofline_sheet(cost: Cost, machine: Machine) -> Sheet:
    """A row a layer: arithmetic, traffic, intensity, least time, and what bounds it."""
    found = roofs(cost, machine)
    columns = (
        Column("layer", key="name"),
        Column("FLOP", number, right=True, key="flop"),
        Column("traffic", memory, right=True, key="traffic_bytes"),
        Column("FLOP/B", _figure, right=True, key="intensity"),
        Column("time", _time, right=True, bar=True, key="seconds"),
        Column("bound by", key="bound"),
    )
    rows = tuple((r.layer.name, r.flops, r.traffic, r.intensity, r.seconds, r.bound) for r in found)
    flops, traffic = sum(r.flops for r in found), sum(r.traffic for r in found)
    seconds = sum(r.seconds for r in found)
    intensity = flops / traffic if traffic else None
    total = ("total", flops, traffic, intensity, seconds, None)
    rate = f"{cost.batch / seconds:,.0f} samples/s at most" if seconds else "nothing to do"
    notes = (
        f"{rate}; arithmetic is the limit from {machine.ridge:.1f} FLOP a byte on. The time is a "
        "lower bound: each tensor is moved once and activations, bn, dropout and joins by | are "
        "fused away.",
    )
    title = f"{heading(cost)}, roofline on {machine.name}"
    return Sheet(title, columns, rows, (total,), notes, cost.net)


def roofline_json(cost: Cost, machine: Machine) -> dict[str, object]:
    """The same as `--json --machine` prints it."""
    found = roofs(cost, machine)
    return {
        "flops_per_second": machine.flops,
        "bytes_per_second": machine.bandwidth,
        "seconds": sum(roof.seconds for roof in found),
        "layers": [
            {
                "name": roof.layer.name,
                "flops": roof.flops,
                "traffic_bytes": roof.traffic,
                "intensity": roof.intensity,
                "seconds": roof.seconds,
                "bound": roof.bound,
            }
            for roof in found
        ],
    }


def _figure(value: float) -> str:
    return f"{value:,.1f}"


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:,.2f} {unit}"
    return f"{seconds / 1e-6:,.2f} µs"
