"""The lectures' triptych: memory, parameters and FLOPs, layer by layer, as bars (matplotlib).

Colours are Okabe and Ito's, which people with any colour vision can tell apart; nets that share a
chart differ in lightness too, so that it survives a black-and-white print.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdsl.cost.compare import Aligned, align, label, weighted_bytes
from netdsl.cost.count import Cost
from netdsl.cost.group import Group
from netdsl.faults import error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".svg", ".png", ".pdf")
QUANTITIES = (
    ("Memory", "KB", "#0072B2", lambda group: weighted_bytes(group.layers) / 1024),
    ("Parameters", "thousands", "#D55E00", lambda group: group.params / 1e3),
    ("FLOPs", "millions of multiply-adds", "#009E73", lambda group: group.macs / 1e6),
)
NETS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MOST_COLUMNS, FEW = 24, 9
DPI = 200


def save(costs: list[Cost], path: str | Path) -> None:
    """Writes the triptych of one net, or of several side by side, to a .svg, .png or .pdf file.

    Raises NetError: another kind of file, matplotlib missing, or a place that cannot be written.
    """
    file = Path(path)
    if file.suffix.lower() not in FORMATS:
        raise error("bad-plot", f"{file} must end in one of {', '.join(FORMATS)}")
    if len(costs) > len(NETS):
        raise error("too-many-nets", f"{len(costs)} nets do not fit a chart: at most {len(NETS)}")
    try:
        file.write_bytes(render(costs, file.suffix.lower()[1:]))
    except OSError as problem:
        raise error("unwritable", f"{file} cannot be written: {problem.strerror}") from None


def render(costs: list[Cost], kind: str) -> bytes:
    """The triptych as a file of this kind: svg (with text as text), png or pdf.

    The same nets always give the same bytes. Raises NetError where matplotlib is missing.
    """
    try:
        from matplotlib import rc_context
    except ImportError:
        raise error(
            "no-matplotlib", "charts need matplotlib", help="pip install 'netdsl[plot]'"
        ) from None
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    out = BytesIO()
    with rc_context({"svg.hashsalt": "netdsl", "font.size": 13, "svg.fonttype": "none"}):
        figure(costs).savefig(out, format=kind, dpi=DPI, metadata=dates.get(kind, {}))
    return out.getvalue()


def figure(costs: list[Cost]) -> Figure:
    """The triptych as a matplotlib figure, 16:9 as a slide."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    pads = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12, wspace=0.03)
    drawn = Figure(figsize=(16, 6), layout=pads)
    axes = drawn.subplots(1, 3)
    aligned = align(costs) if len(costs) > 1 else alone(costs[0])
    for axis, quantity in zip(axes, QUANTITIES, strict=True):
        _chart(axis, aligned, quantity, len(costs))
    names = [label(cost) for cost in costs]
    if len(costs) > 1:
        axes[0].legend(names, frameon=False, loc="best")
    drawn.suptitle(", ".join(names), fontsize=18, fontweight="bold")
    return drawn


def alone(cost: Cost) -> Aligned:
    """One net's columns: its layers with weights; of a deep net, its blocks, then its stages."""
    from netdsl.cost.group import groups

    found: tuple[Group, ...] = ()
    for by in ("layer", "block", "stage"):
        found = tuple(g for g in groups(cost, by) if weighted_bytes(g.layers))
        if len(found) <= MOST_COLUMNS:
            break
    return Aligned(tuple(group.name for group in found), (found,))


def _chart(axis: Axes, aligned: Aligned, quantity: tuple[Any, ...], nets: int) -> None:
    title, unit, color, of = quantity
    places = range(len(aligned.labels))
    width = 0.8 / nets
    for i, groups in enumerate(aligned.nets):
        values = [0.0 if group is None else of(group) for group in groups]
        at = [place - 0.4 + width * (i + 0.5) for place in places]
        bars = axis.bar(at, values, width * 0.94, color=color if nets == 1 else NETS[i])
        if nets == 1:
            turn = 0 if len(values) <= FEW else 90
            texts = [_short(value) for value in values]
            axis.bar_label(bars, texts, fontsize=11, padding=3, rotation=turn)
    total = f": {_short(sum(values))}" if nets == 1 else ","
    axis.set_title(f"{title}{total} {unit}", fontsize=15, loc="left", pad=12)
    _labels(axis, aligned.labels)
    _dress(axis, nets)


def _labels(axis: Axes, labels: Sequence[str]) -> None:
    axis.set_xticks(range(len(labels)), labels, rotation=45, ha="right", rotation_mode="anchor")
    axis.tick_params(axis="x", length=0, labelsize=12 if len(labels) <= 12 else 10)


def _dress(axis: Axes, nets: int) -> None:
    """Takes away what tells nothing: frames, and the scale where each bar says its value."""
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.set_axisbelow(True)
    axis.grid(axis="y", color="0.88")
    axis.tick_params(axis="y", length=0)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    if nets == 1:
        axis.margins(y=0.16)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}" if value else ""
