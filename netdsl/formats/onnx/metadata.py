"""What a net says beside its ops, kept in the metadata of the ONNX files that we write."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf
from typing import Any

from onnx import ModelProto

from netdsl.formats.onnx.faults import broken
from netdsl.graph import Aux, Graph, Labels, Node
from netdsl.ops import Input, Picture

KEY = "netdsl"


def put(model: ModelProto, graph: Graph) -> None:
    """Writes how pictures become the net's inputs, its labels, its facts, and which of the model's
    outputs are auxiliary heads'."""
    pictures = {name: graph.input_op(name).picture._asdict() for name in graph.inputs}
    labels = None if graph.labels is None else graph.labels._asdict()
    facts: dict[str, Any] = {"pictures": pictures, "labels": labels, "meta": dict(graph.meta)}
    heads = [aux._asdict() for aux in graph.aux if aux.output not in graph.outputs]
    if heads:
        facts["aux"] = heads
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(facts)


def take(model: ModelProto, graph: Graph) -> Graph:
    """The graph with what `put` wrote, where there is any. Raises NetError where it is damaged."""
    for entry in model.metadata_props:
        if entry.key == KEY:
            try:
                return _with(graph, json.loads(entry.value))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                raise broken("the net's settings in the model's metadata are damaged") from None
    return graph


def _with(graph: Graph, facts: dict[str, Any]) -> Graph:
    pictures = facts["pictures"]
    nodes = tuple(
        _input(node, pictures[node.name]) if node.name in pictures else node for node in graph
    )
    labels = facts["labels"]
    heads = [Aux(str(a["name"]), float(a["weight"]), a["output"]) for a in facts.get("aux", ())]
    ends = {head.output for head in heads}
    outputs = tuple(name for name in graph.outputs if name not in ends)
    if not outputs or not ends <= set(graph.outputs) or not all(0 <= h.weight < inf for h in heads):
        raise ValueError("heads that the model has not")
    return replace(
        graph,
        outputs=outputs,
        aux=tuple(heads),
        nodes=nodes,
        labels=None if labels is None else Labels(str(labels["name"]), bool(labels["is_file"])),
        meta={str(name): value for name, value in facts["meta"].items()},
    )


def _input(node: Node, settings: dict[str, Any]) -> Node:
    resize, order = settings["resize"], settings["order"]
    if order not in ("rgb", "bgr"):
        raise ValueError("an unknown order of channels")
    picture = Picture(
        None if resize is None else int(resize),
        order,
        float(settings["scale"]),
        tuple(map(float, settings["mean"])),
        tuple(map(float, settings["std"])),
    )
    return replace(node, op=Input(node.shape, picture))
