"""From steps to a graph: what is not needed falls away, arithmetic that is left becomes layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from netdsl.formats.onnx.step import AFFINE, Array, Formula, Params, Relaid, Step
from netdsl.graph import Graph
from netdsl.graph.build import GraphBuilder
from netdsl.ops import BatchNorm, Conv, ConvTranspose, Linear, Norm, Op

NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

Complain = Callable[[str, str, str], None]
"""Takes an operator, the node's name and why the language cannot say it."""


class Finish:
    """Makes the graph of steps. `names`: whether the model's own names are kept, where they fit.

    Afterwards `nodes` has the node of each step, `relaid` the view that an input is read in, and
    `origins` for each node the name of the ONNX node it is from.
    """

    def __init__(self, name: str, names: bool, complain: Complain) -> None:
        self.builder = GraphBuilder(name)
        self.names, self.complain = names, complain
        self.nodes: dict[Step, str] = {}
        self.relaid: dict[Step, Relaid] = {}
        self.weights: dict[str, Array] = {}
        self.origins: dict[str, str] = {}

    def graph(self, inputs: Mapping[str, Step], outputs: Iterable[Step]) -> Graph:
        outputs = list(outputs)
        live = _live(outputs)
        self._read_by = _readers(live)
        self._held = set(outputs)
        for name, step in inputs.items():
            self._input(name, step, live)
        for step in sorted(live, key=lambda s: s.number):
            if step not in self.nodes:
                self._add(step)
        return self.builder.finish(list(dict.fromkeys(self.nodes[s] for s in outputs)))

    def _input(self, name: str, step: Step, live: set[Step]) -> None:
        read = self._read_by.get(step, [])
        layouts = [s for s in read if isinstance(s.op, Relaid)]
        if layouts and (len(layouts) < len(read) or len(layouts) > 1 or step in self._held):
            self.complain("input", name, "it is read in more than one layout")
        chosen = layouts[0] if layouts else step
        self.nodes[step] = self.nodes[chosen] = self.builder.input(chosen.shape, name)
        if isinstance(chosen.op, Relaid):
            self.relaid[step] = chosen.op
            self.nodes.update(dict.fromkeys(layouts, name))

    def _add(self, step: Step) -> None:
        inputs = tuple(self.nodes[s] for s in step.inputs)
        if step.op == AFFINE:
            if self._absorbed(step):
                self.nodes[step] = inputs[0]
                return
            op, params = _as_norm(step)
        elif isinstance(step.op, Formula):
            self.complain("arithmetic", step.origin, f"the language has no {step.op.text}")
            op, params = BatchNorm(), _as_norm(step)[1]
        else:
            op, params = self._with_affine(step)
        given = step.origin.partition("/")[0]
        keep = self.names and NAME.fullmatch(given) and given not in self.builder
        node = self.builder.add(op, *inputs, name=given if keep else None)
        self.nodes[step] = node
        self.origins[node] = step.origin
        self.weights |= {f"{node}.{name}": values for name, values in params.items()}

    def _absorbed(self, step: Step) -> bool:
        """Whether the step before does this scale and shift itself."""
        layer = step.inputs[0]
        if layer in self._held or len(self._read_by[layer]) != 1:
            return False
        if isinstance(layer.op, Conv | ConvTranspose | Linear):
            return not layer.op.bias and bool((step.params["scale"] == 1).all())
        return isinstance(layer.op, Norm) and not layer.op.affine

    def _with_affine(self, step: Step) -> tuple[Op, Params]:
        """The step's op and parameters, with the scale and shift that follow it."""
        readers = self._read_by.get(step, [])
        if len(readers) != 1 or readers[0].op != AFFINE or not self._absorbed(readers[0]):
            return step.op, step.params
        scale, shift = (_each(readers[0], name) for name in ("scale", "shift"))
        if isinstance(step.op, Norm):
            return replace(step.op, affine=True), {**step.params, "weight": scale, "bias": shift}
        assert isinstance(step.op, Conv | ConvTranspose | Linear)
        return replace(step.op, bias=True), {**step.params, "bias": shift}


EXACT = 2.0**-17
"""An eps for which variance 1 - eps is a single-precision number: their sum is 1 exactly."""


def _as_norm(step: Step) -> tuple[Op, Params]:
    """Scale and shift as a batch norm whose mean is 0 and whose deviation is 1, exactly."""
    channels = step.shape[0]
    params = {"mean": np.zeros(channels, np.float32), "var": np.full(channels, 1 - EXACT, "f4")}
    for name, part in (("weight", "scale"), ("bias", "shift")):
        params[name] = _each(step, part) if step.op == AFFINE else params["mean"]
    return BatchNorm(EXACT), params


def _each(step: Step, name: str) -> Array:
    return np.array(np.broadcast_to(step.params[name], step.shape[:1]), np.float32)


def _live(outputs: Iterable[Step]) -> set[Step]:
    """The steps that the outputs need."""
    found: set[Step] = set()
    todo = list(outputs)
    while todo:
        step = todo.pop()
        if step not in found:
            found.add(step)
            todo += step.inputs
    return found


def _readers(live: set[Step]) -> dict[Step, list[Step]]:
    found: dict[Step, list[Step]] = {}
    for step in sorted(live, key=lambda s: s.number):
        for source in step.inputs:
            found.setdefault(source, []).append(step)
    return found
