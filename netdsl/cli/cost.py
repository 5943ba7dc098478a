"""`netdsl cost`: what nets cost, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from netdsl.faults import error
from netdsl.graph import Graph

if TYPE_CHECKING:
    from netdsl.cost import Cost
    from netdsl.cost.sheet import Sheet

Texts = Annotated[list[str], typer.Option("-e", metavar="TEXT", help="A net as text.")]
Nets = Annotated[list[str], typer.Argument(metavar="NET…", help="Zoo names or .net files.")]
NoLimits = Annotated[
    bool, typer.Option("--no-limits", help="Lift the limits on repeats, size and memory.")
]


def cost(
    nets: Nets = [],  # noqa: B006
    text: Texts = [],  # noqa: B006
    count_as: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="CONVENTION",
            help="Count as macs, flops, lecture, torchinfo, thop, fvcore, ptflops, torch, "
            "deepspeed or onnx-tool do.",
        ),
    ] = "",
    against: Annotated[
        str,
        typer.Option(
            metavar="CONVENTION", help="How that figure differs from the MACs, line by line."
        ),
    ] = "",
    explain: Annotated[
        list[str], typer.Option(metavar="LAYER", help="The layer's arithmetic in full.")
    ] = [],  # noqa: B006
    by: Annotated[str, typer.Option(help="A row a layer, stage, block or kind.")] = "",
    batch: Annotated[int, typer.Option(help="Samples at once.")] = 1,
    dtype: Annotated[
        str, typer.Option(help="float32, float16, bfloat16, float64 or int8.")
    ] = "float32",
    memory: Annotated[bool, typer.Option(help="Memory to run and to train.")] = False,
    optimiser: Annotated[
        str, typer.Option(help="With --memory: sgd, momentum or adam.")
    ] = "momentum",
    machine: Annotated[
        str,
        typer.Option(
            metavar="GFLOPS,GB/s",
            help="Least time by the roofline; `this` measures this machine once.",
        ),
    ] = "",
    plot: Annotated[
        str, typer.Option(metavar="FILE", help="Charts, to a .svg, .png or .pdf file.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="A JSON list, an object a net.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Exact values for a spreadsheet.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="A Markdown table.")] = False,
    no_limits: NoLimits = False,
) -> None:
    """What nets cost: activation memory, parameters, multiply-adds, receptive fields."""
    from netdsl.cost import count

    one_of({"--json": json, "--csv": csv, "--markdown": markdown})
    views: dict[str, Any] = {
        "--as": count_as,
        "--against": against,
        "--explain": explain,
        "--by": by,
    }
    views |= {"--memory": memory, "--machine": machine}
    if not json:
        one_of(views)
    costs = [count(graph, batch, dtype) for graph in graphs(nets, text, no_limits)]
    if plot:
        from netdsl.cost.plot import save

        save(costs, plot)
    if json:
        print_json([_object(one, views, optimiser) for one in costs])
        return
    if explain:
        _print_explained(costs, explain)
        return
    sheets = [_sheets(one, views, optimiser, detailed=not csv) for one in costs]
    print_sheets(sheets, csv=csv, markdown=markdown)


def graphs(nets: list[str], texts: list[str], no_limits: bool = False) -> list[Graph]:
    """The graphs of names and paths, then of texts. Raises NetError, also when there are none."""
    from netdsl.find import graph_of, graph_of_text
    from netdsl.lang import DEFAULT

    if not nets and not texts:
        raise error("no-net", "no net was given", help="a zoo name, a .net file, or -e TEXT")
    limits = None if no_limits else DEFAULT
    named = [graph_of(name, limits) for name in nets]
    return named + [graph_of_text(text, limits) for text in texts]


def print_json(value: Any) -> None:
    """Prints a value as JSON, as text that a person can read too."""
    from json import dumps

    print(dumps(value, indent=2, ensure_ascii=False))


def print_sheets(sheets: list[list[Sheet]], *, csv: bool, markdown: bool) -> None:
    """Prints each net's sheets as tables, as CSV of the first of each, or as Markdown."""
    if csv:
        from netdsl.cost.export import as_csv

        print(as_csv([several[0] for several in sheets]), end="")
        return
    flat = [sheet for several in sheets for sheet in several]
    if markdown:
        from netdsl.cost.export import as_markdown

        print("\n".join(map(as_markdown, flat)), end="")
        return
    from netdsl.cost.tables import show_sheet

    for at, sheet in enumerate(flat):
        if at:
            print()
        show_sheet(sheet)


def one_of(flags: dict[str, Any]) -> None:
    """Raises NetError where more than one of these views is asked for."""
    given = [flag for flag, value in flags.items() if value]
    if len(given) > 1:
        raise error("two-views", f"{given[0]} and {given[1]} cannot be shown at once")


def _sheets(one: Cost, views: dict[str, Any], optimiser: str, *, detailed: bool) -> list[Sheet]:
    """What is printed of a net."""
    if views["--as"] == "lecture":
        from netdsl.cost.lecture import lecture_sheet

        return [lecture_sheet(one)]
    if views["--as"] or views["--against"]:
        return _counted(one, views["--as"], views["--against"])
    if views["--memory"]:
        from netdsl.cost.memory import memory_sheet

        return [memory_sheet(one, optimiser, arena(one))]
    if views["--machine"]:
        from netdsl.cost.roofline import roofline_sheet

        return [roofline_sheet(one, _machine(views["--machine"]))]
    if views["--by"] not in ("", "layer"):
        from netdsl.cost.group import group_sheet

        return [group_sheet(one, views["--by"])]
    from netdsl.cost.tables import cost_sheet

    return [cost_sheet(one)]


def _counted(one: Cost, count_as: str, against: str) -> list[Sheet]:
    from netdsl.cost.against import convention_sheet, difference_sheet, layer_sheet
    from netdsl.cost.conventions import convention

    if count_as:
        return [convention_sheet(one, convention(count_as))]
    tool = convention(against)
    found = [difference_sheet(one, tool)]
    return [*found, layer_sheet(one, tool)] if tool.because(one) else found


def _machine(text: str) -> Any:
    from netdsl.cost.machine import this_machine
    from netdsl.cost.roofline import parse_machine

    return this_machine() if text == "this" else parse_machine(text)


def arena(one: Cost) -> int | None:
    """Bytes of the arena that the CPU engine plans for the net and batch, in its own float32."""
    if one.dtype != "float32":
        return None
    from netdsl.cpu.arena import arena_bytes

    return arena_bytes(one.graph, one.batch)


def _object(one: Cost, views: dict[str, Any], optimiser: str) -> dict[str, Any]:
    """A net's JSON object: its cost, and a key more for each view that was asked for."""
    found = one.as_json()
    if views["--as"]:
        from netdsl.cost.conventions import convention

        tool = convention(views["--as"])
        found |= {"convention": tool.name, "total": tool.total(one)}
    if views["--against"]:
        from netdsl.cost.against import difference
        from netdsl.cost.conventions import convention

        found["difference"] = difference(one, convention(views["--against"]))
    if views["--by"]:
        from netdsl.cost.group import groups

        found["groups"] = [group.as_json() for group in groups(one, views["--by"])]
    if views["--explain"]:
        found["explained"] = {name: str(item) for name, item in _explained(one, views)}
    if views["--memory"]:
        from netdsl.cost.memory import memory_json

        found["memory"] = memory_json(one, optimiser, arena(one))
    if views["--machine"]:
        from netdsl.cost.roofline import roofline_json

        found["roofline"] = roofline_json(one, _machine(views["--machine"]))
    return found


def _explained(one: Cost, views: dict[str, Any]) -> list[tuple[str, Any]]:
    from netdsl.cost.explain import explain

    return [(name, explain(one, name)) for name in views["--explain"]]


def _print_explained(costs: list[Cost], names: list[str]) -> None:
    from netdsl.cost.explain import explain

    texts = [str(explain(one, name)) for one in costs for name in names]
    print("\n\n".join(texts))
