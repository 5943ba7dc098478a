"""Comparisons as sheets: a net's engines, its layers, and all nets side by side."""

from __future__ import annotations

from collections.abc import Sequence

from netdsl.bench.compare import Comparison, Row
from netdsl.bench.peers import OURS
from netdsl.bench.quiet import QUIET
from netdsl.cost.sheet import Column, Sheet
from netdsl.runner import computed_in

ENGINE_COLUMNS = (
    Column("engine"),
    Column("min ms", lambda ms: f"{ms:.3f}", right=True, bar=True),
    Column("median ms", lambda ms: f"{ms:.3f}", right=True),
    Column("ratio", lambda ratio: f"{ratio:.2f}", right=True),
    Column("max error", lambda error: f"{error:.1e}", right=True),
)

LAYER_COLUMNS = (
    Column("layer"),
    Column("op"),
    Column("ms", lambda ms: f"{ms:.3f}", right=True, bar=True),
    Column("GFLOP/s", lambda rate: f"{rate:.0f}", right=True),
    Column("of peak", lambda share: f"{share:.0%}", right=True),
)

DIRECT = " of the direct sum, so Winograd's may pass the peak"


def engine_sheet(found: Comparison, versions: dict[str, str]) -> Sheet:
    """One net and batch: a row an engine, ours first."""
    first = found.rows[0]
    samples = "1 sample" if first.batch == 1 else f"{first.batch} samples"
    rows = tuple((r.engine, r.min_ms, r.median_ms, r.ratio, r.max_error) for r in found.rows)
    notes = [f"{name} is left out: {why}." for name, why in found.left_out.items()]
    notes += [found.against] if found.against else []
    notes += busy_note([found])
    notes += [", ".join(f"{name} {version}" for name, version in versions.items()) + "."]
    title = f"{first.net}: {samples}, {where(first)}{_less(first)}"
    return Sheet(title, ENGINE_COLUMNS, rows, notes=tuple(notes), subject=first.net, bars="length")


def busy_note(found: Sequence[Comparison]) -> list[str]:
    """A warning where other programs took more than a little of the machine meanwhile."""
    seen = [one.busy for one in found if one.busy is not None]
    busy = sum(seen) / len(seen) if seen else 0.0
    if busy <= QUIET:
        return []
    return [f"Other programs took {busy:.0%} of the machine meanwhile: take no time for exact."]


def _less(ours: Row) -> str:
    """What we compute in, where it is not single precision throughout."""
    said = computed_in(ours.precision, ours.fc_weights)
    return "" if said == "fp32" else f", {said}"


def where(row: Row) -> str:
    """What a row was measured on."""
    return threads(row.threads) if row.device == "cpu" else row.device


def threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def layer_sheet(found: Comparison, peak: float) -> Sheet:
    """Our own layers: the least time of each, and its share of the measured peak (GFLOP/s)."""
    rows = tuple(
        (t.name, t.word, t.least_ms, rate, rate and rate / peak)
        for t in found.layers
        for rate in [gflops(t.macs, t.least_ms)]
    )
    ms, macs = sum(t.least_ms for t in found.layers), sum(t.macs for t in found.layers)
    whole = gflops(macs, ms)
    first = found.rows[0]
    # The processor's peak is that of single precision, whatever is computed in.
    less, direct = (_less(first), "") if first.device == "cuda" else ("", DIRECT)
    notes = (
        f"Measured peak on {where(first)}{less}: {peak:.0f} GFLOP/s. A FLOP is half a "
        f"multiply-add{direct}.",
    )
    total = ("total", None, ms, whole, whole and whole / peak)
    return Sheet(f"{found.rows[0].net} by layer", LAYER_COLUMNS, rows, (total,), notes)


def gflops(macs: int, ms: float) -> float | None:
    """10^9 floating-point operations a second; None for a layer without multiply-adds."""
    return 2 * macs / ms / 1e6 if macs and ms else None


def overview(found: Sequence[Comparison]) -> Sheet:
    """All nets and batches: our time, and every other engine's with its ratio to ours."""
    names = list(dict.fromkeys(row.engine for one in found for row in one.rows))
    names.remove(OURS.name)
    columns = (
        Column("net"),
        Column("batch", right=True),
        Column("netdsl ms", figures, right=True),
        *(Column(name, _with_ratio, right=True) for name in names),
        Column("lead over the best", lambda ratio: f"{ratio:.2f}×", right=True),
        Column("max error", lambda error: f"{error:.0e}", right=True),
    )
    notes = ("Least ms of all rounds; in brackets, that engine's time over ours.",)
    rows = tuple(_wide(one, names) for one in found)
    title = f"All nets{_less(found[0].rows[0])}"
    return Sheet(title, columns, rows, notes=(*notes, *busy_note(found)))


def _wide(one: Comparison, names: list[str]) -> tuple[object, ...]:
    ours, by_name = one.rows[0], {row.engine: row for row in one.rows}
    best = min((row.ratio for row in one.rows[1:]), default=None)
    others = [by_name.get(name) for name in names]
    return (ours.net, ours.batch, ours.min_ms, *others, best, ours.max_error)


def _with_ratio(row: Row) -> str:
    return f"{figures(row.min_ms)} [{row.ratio:.2f}×]"


def figures(ms: float) -> str:
    """To three figures, in whole ms from 100 on."""
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.3g}"
