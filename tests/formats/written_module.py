"""Runs a module that was written, beside the reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from netdsl.formats.torch_module import torch_source
from netdsl.graph import Graph
from netdsl.graph.weights import Floats, initialise
from netdsl.reference import interpret


def drawn(graph: Graph) -> dict[str, Floats]:
    """Weights none of which is 0 or 1, variances above 0."""
    numbers = np.random.default_rng(0)
    return {
        name: (values + numbers.uniform(0.1, 1, values.shape)).astype(np.float32)
        for name, values in initialise(graph).items()
    }


def namespace(text: str) -> dict[str, Any]:
    """What the source defines."""
    found: dict[str, Any] = {"__name__": "written", "__file__": "written.py"}
    exec(compile(text, "written.py", "exec"), found)
    return found


def module(text: str) -> Any:
    """The net of a source: its last class."""
    from torch import nn

    found = namespace(text)
    own = [v for v in found.values() if isinstance(v, type) and issubclass(v, nn.Module)]
    return [cls for cls in own if cls.__module__ == "written"][-1]()


def run_torch(
    text: str,
    states: tuple[tuple[str, str], ...],
    graph: Graph,
    weights: Mapping[str, Floats],
    inputs: Mapping[str, Floats],
) -> list[Floats]:
    """The module's results with these weights, those of auxiliary heads last."""
    import torch

    net = module(text).eval()
    net.load_state_dict({theirs: torch.from_numpy(weights[ours]) for theirs, ours in states})
    net.training = bool(graph.aux)
    with torch.no_grad():
        found = net(*(torch.from_numpy(inputs[name]) for name in graph.inputs))
    return [x.numpy() for x in (found if isinstance(found, tuple) else (found,))]


def compare(graph: Graph, weights: Mapping[str, Floats] | None = None) -> str:
    """The source of the graph's module, which was found to compute what the reference does."""
    weights = weights or drawn(graph)
    text, states = torch_source(graph)
    numbers = np.random.default_rng(1)
    inputs = {
        name: numbers.standard_normal((2, *graph[name].shape)).astype(np.float32)
        for name in graph.inputs
    }
    theirs = run_torch(text, states, graph, weights, inputs)
    ends = [*graph.outputs, *(aux.output for aux in graph.aux)]
    ours = interpret(graph, weights, inputs, aux=True)
    assert len(theirs) == len(ends)
    for name, values in zip(ends, theirs, strict=True):
        scale = max(float(np.abs(ours[name]).max()), 1e-3)
        np.testing.assert_allclose(values, ours[name], rtol=1e-4, atol=1e-4 * scale)
    return text
