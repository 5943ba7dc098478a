"""`netdsl bench`: our engines side by side with others."""

from __future__ import annotations

from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from netdsl.cli.cost import Nets, Texts, graphs, one_of, print_json, print_sheets
from netdsl.cli.fc_weights import FcWeights
from netdsl.faults import error

if TYPE_CHECKING:
    from netdsl.bench.compare import Comparison
    from netdsl.bench.engine import Engine
    from netdsl.net import Net


def bench(
    nets: Nets = [],  # noqa: B006
    text: Texts = [],  # noqa: B006
    against: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="ENGINES",
            help="Of onnxruntime, openvino, ncnn, litert, torch and torch-compile, joined by "
            "commas. Default: all installed but the last.",
        ),
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N[,N…]", help="Samples at once.")] = "1",
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Threads of every engine. Default: one a core."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each engine.")] = 12,
    precision: Annotated[
        str,
        typer.Option(
            help="What factors are rounded to, in every engine: fp32, bf16, or tf32 (cuda)."
        ),
    ] = "fp32",
    fc_weights: FcWeights = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda (beside PyTorch on the card), or auto.")
    ] = "cpu",
    cpu_time: Annotated[
        bool,
        typer.Option(
            "--cpu-time",
            help="Count the processor's time, which others hardly stretch. One thread only.",
        ),
    ] = False,
    patience: Annotated[
        float,
        typer.Option(min=0, help="Seconds to wait for a busy machine, a net and batch."),
    ] = 10.0,
    train: Annotated[
        bool, typer.Option("--train", help="Training steps, beside PyTorch's, not runs.")
    ] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="Our layers against the measured peak.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="A JSON list, an object a row.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="One Markdown table.")] = False,
) -> None:
    """Time nets beside other engines: same weights, inputs, and threads or card."""
    from netdsl.bench.choose import chosen, ours
    from netdsl.cli.progress import bar
    from netdsl.net import Net, check_settings
    from netdsl.net import chosen as on
    from netdsl.runner import check_fc_weights, check_precision

    one_of({"--json": json, "--markdown": markdown})
    if not isfinite(patience):
        raise error("out-of-range", f"--patience is {patience}", help="seconds, 0 or more")
    wanted, batches = graphs(nets, text), _numbers(batch)
    apart = {"layers": layers, "cpu-time": cpu_time, "fc-weights": fc_weights is not None}
    if train and any(apart.values()):
        flag = next(name for name, given in apart.items() if given)
        raise error("two-views", f"--train does not go with --{flag}")
    check_settings(device, 1, threads)
    device = on(device)
    if device not in ("cpu", "cuda"):
        raise error("unknown-device", f"bench does not time {device}", help="cpu, cuda or auto")
    check_precision(precision, device, exact=False)
    check_fc_weights(fc_weights, device, exact=False)
    engines = chosen("torch" if train and against is None else against, device)
    every: list[type[Engine]] = [ours(device), *engines]
    versions = {engine.package: engine.version() for engine in every}
    settings: dict[str, Any] = {"threads": threads, "count": rounds, "patience": patience}
    settings |= {"device": device, "precision": precision}
    running = partial(_running, layers=layers, cpu_time=cpu_time, fc_weights=fc_weights)
    measure = _training if train else running
    top = _peak(device, threads, precision) if layers else 0.0
    found: list[Comparison] = []
    total = len(wanted) * len(batches)
    with bar("bench", total) as shown:
        for graph in wanted:
            net = Net(graph)
            for size in batches:
                where = f"{net.name}, batch {size}"

                def tell(what: str, where: str = where) -> None:
                    shown.to(len(found), total, f"{where}: {what}")

                found.append(measure(net, engines, batch=size, tell=tell, **settings))
                if not json and not markdown:
                    with shown.aside():
                        _show(found[-1], versions, top, first=len(found) == 1)
    if json:
        print_json([row for one in found for row in _json(one, top)])
    elif markdown:
        _markdown(found, versions, top)


def _peak(device: str, threads: int | None, precision: str) -> float:
    """What the machine can do at all, in GFLOP/s, on the device that is timed."""
    if device == "cuda":
        from netdsl.cuda.peak import peak as of_card

        return of_card(precision)
    from netdsl.bench.peak import peak

    return peak(threads)


def _running(net: Net, engines: list[type[Engine]], **settings: Any) -> Comparison:
    from netdsl.bench.compare import compare

    return compare(net, engines, **settings)


def _training(net: Net, engines: list[type[Engine]], **settings: Any) -> Comparison:
    from netdsl.bench.training import compare_training, trainers

    return compare_training(net, trainers(engines), **settings)


def drivers(about: dict[str, Any]) -> list[str]:
    """The driver and the toolkit, as a machine's description has them."""
    named = {"cuda_driver": "a driver for", "cuda_toolkit": "toolkit"}
    return [f"{words} {about[key]}" for key, words in named.items() if key in about]


def _numbers(text: str) -> list[int]:
    """The batches of "1,8". Raises NetError."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise error(
            "out-of-range", f"batch is {text!r}", help="numbers of 1 or more, as in --batch 1,8"
        )
    return found


def _show(one: Comparison, versions: dict[str, str], peak: float, *, first: bool) -> None:
    from netdsl.bench.tables import engine_sheet, layer_sheet

    sheets = [engine_sheet(one, versions), *([layer_sheet(one, peak)] if one.layers else [])]
    if not first:
        print()
    print_sheets([sheets], csv=False, markdown=False)


def _json(one: Comparison, peak: float) -> list[dict[str, Any]]:
    """The rows; ours has its layers where they were asked for."""
    from netdsl.bench.tables import gflops

    rows = [row.as_json() for row in one.rows]
    if one.layers:
        rows[0]["peak_gflops"] = round(peak, 1)
        rows[0]["layers"] = [
            {
                "layer": t.name,
                "op": t.word,
                "ms": round(t.least_ms, 4),
                "gflops": gflops(t.macs, t.least_ms),
            }
            for t in one.layers
        ]
    return rows


def _markdown(found: list[Comparison], versions: dict[str, str], peak: float) -> None:
    """The overview, the machine and the versions, why engines are missing, and the layers."""
    from datetime import date

    from netdsl.bench.tables import layer_sheet, overview, threads
    from netdsl.cpu.about import cpu_name, isa

    print_sheets([[overview(found)]], csv=False, markdown=True)
    for one in found:
        for name, why in one.left_out.items():
            print(f"\n{name} is left out of {one.rows[0].net}: {why}.")
    stated = ", ".join(f"{name} {version}" for name, version in versions.items())
    first = found[0].rows[0]
    machine = f"{cpu_name()}, {isa()}, {threads(first.threads)}"
    if first.device == "cuda":
        from netdsl import cuda

        about = cuda.about()
        machine = ", ".join([*about.get("cards", [])[:1], *drivers(about)])
    print(f"\n{machine}; {date.today().isoformat()}; {stated}.")
    sheets = [layer_sheet(one, peak) for one in found if one.layers]
    if sheets:
        print()
        print_sheets([sheets], csv=False, markdown=True)
