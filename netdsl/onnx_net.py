"""A net that takes and gives arrays as the ONNX model does that it was read from.

Needs the extra `onnx`; `netdsl.from_onnx` makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from netdsl.faults import error
from netdsl.formats.onnx import Imported, Port
from netdsl.formats.onnx.view import N
from netdsl.net import Net
from netdsl.ops import show
from netdsl.runner import Array, wrong_shape


class OnnxNet(Net):
    """A net out of an ONNX model.

    It is a net like any other, by our names and channels first, but for `run`, which speaks the
    model's language. `model_inputs` and `model_outputs` are the model's, in its order: each has
    the model's `name`, and `node`, what that is called here.
    """

    def __init__(self, found: Imported, source: str) -> None:
        super().__init__(found.graph)
        self.model_inputs, self.model_outputs = found.inputs, found.outputs
        self._take(dict(found.weights), source, trained=True)

    def run(self, *x: Any, **settings: Any) -> Any:
        """The model's outputs for its inputs.

        x: an array for each of the model's inputs in its order, or a list of them, or a dict of
        them by the model's names; each in the model's own layout, with any number of samples where
        the model has a batch axis, even a fixed one. settings: those of `Net.run`.

        Returns an array of the model's type and layout for a model with one output, else a tuple
        of them in the model's order; auxiliary heads are outputs like others, which `aux=False`
        leaves out. Raises NetError as `Net.run` does.
        """
        named = self._by_name(x)
        given = {p.node: p.taken(_checked(p, named[p.name])) for p in self.model_inputs}
        heads = any(port.node not in self.graph.outputs for port in self.model_outputs)
        found = super().run(given, **{"aux": heads, **settings})
        by_node = found if isinstance(found, Mapping) else {self.graph.outputs[0]: found}
        wanted = [port for port in self.model_outputs if port.node in by_node]
        outputs = tuple(_given(port, by_node[port.node]) for port in wanted)
        return outputs[0] if len(outputs) == 1 else outputs

    def _by_name(self, x: tuple[Any, ...]) -> Mapping[str, Any]:
        """The inputs by the model's names. Raises NetError for too few, too many, unknown ones."""
        names = [port.name for port in self.model_inputs]
        if len(x) == 1 and isinstance(x[0], Mapping):
            given = x[0]
            unknown = [name for name in given if name not in names]
            if unknown:
                raise error(
                    "unknown-input",
                    f"{self.name} has no input called {unknown[0]}",
                    help=f"its inputs: {', '.join(names)}",
                )
            missing = [name for name in names if name not in given]
            if missing:
                raise error(
                    "missing-input", f"{self.name} also needs an array for {', '.join(missing)}"
                )
            return given
        arrays = x[0] if len(x) == 1 and isinstance(x[0], list | tuple) else x
        if len(arrays) != len(names):
            takes = f"{len(names)} input{'s' if len(names) != 1 else ''} ({', '.join(names)})"
            raise error("missing-input", f"{self.name} takes {takes}, not {len(arrays)}")
        return dict(zip(names, arrays, strict=True))


def _checked(port: Port, values: Any) -> Array:
    """An array of numbers in the shape that the model's input has. Raises NetError."""
    x = np.asarray(values)
    if x.dtype.kind not in "biuf":
        raise error("not-numbers", f"{port.name} is an array of {x.dtype}, not of numbers")
    if N in port.view.atoms:
        if x.shape[1:] != port.shape:
            raise wrong_shape(port.name, x.shape, port.shape)
    elif x.shape != port.shape:
        raise error(
            "wrong-shape",
            f"{port.name} has shape {show(x.shape)}, the model takes {show(port.shape)}",
        )
    return x


def _given(port: Port, values: Array) -> Array:
    """Our array (N, *shape) as the model's. Raises NetError for samples that it cannot hold."""
    if N not in port.view.atoms and len(values) != 1:
        raise error(
            "wrong-shape",
            f"the model's output {port.name} has no batch axis: it holds 1 sample, not "
            f"{len(values)}",
        )
    return port.given(values)
