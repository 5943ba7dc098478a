"""netdsl as a backend of ONNX, for its conformance tests. Needs the extra `onnx`.

from netdsl.backend import Backend
outputs = Backend.run_model(onnx.load("net.onnx"), [x])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, backend, helper
from onnx.backend.base import BackendRep, namedtupledict

from netdsl.faults import error
from netdsl.formats.onnx import Imported, import_onnx
from netdsl.onnx_net import OnnxNet

Array = npt.NDArray[Any]

PARAMETRIC = frozenset(
    (
        "BatchNormalization",
        "Clip",
        "Conv",
        "ConvTranspose",
        "Dropout",
        "Gemm",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "MatMul",
        "PRelu",
        "Pad",
        "Pow",
        "ReduceMax",
        "ReduceMean",
        "Reshape",
        "Resize",
        "Squeeze",
        "Unsqueeze",
        "Upsample",
    )
)
"""Operators of whose inputs the first alone is data."""


class Rep(BackendRep):
    """A model ready to run. Inputs that only serve as weights are known when it runs."""

    def __init__(self, model: ModelProto, engine: str = "cpu") -> None:
        self.model, self.engine = model, engine
        held = {tensor.name for tensor in model.graph.initializer}
        self.inputs = [v.name for v in model.graph.input if v.name not in held]
        self.data = _data(model)

    def run(self, inputs: Any, **kwargs: Any) -> Any:
        """Outputs in the model's order, for its inputs in its order or by name. Raises NetError."""
        named = self._named(inputs)
        constants = {n: x for n, x in named.items() if n not in self.data}
        net = import_onnx(self.model, constants=constants)
        outputs = run(net, named, self.engine)
        names = [port.name for port in net.outputs]
        return namedtupledict("Outputs", names)(*outputs)

    def _named(self, inputs: Any) -> dict[str, Array]:
        if isinstance(inputs, Mapping):
            return {name: _array(name, x) for name, x in inputs.items()}
        given = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
        if len(given) != len(self.inputs):
            raise error(
                "missing-input", f"the model takes {len(self.inputs)} inputs, not {len(given)}"
            )
        return {n: _array(n, x) for n, x in zip(self.inputs, given, strict=True)}


def _array(name: str, value: Any) -> Array:
    if isinstance(value, list | tuple):
        raise error("not-numbers", f"{name} is a sequence of tensors, which the language lacks")
    return np.asarray(value)


ENGINES = ("cpu", "reference")


class Backend(backend.base.Backend):
    """Runs models and single nodes on the CPU engine, or with engine="reference" in float64."""

    @classmethod
    def prepare(
        cls, model: ModelProto, device: str = "CPU", engine: str = "cpu", **kwargs: Any
    ) -> Rep:
        if not cls.supports_device(device) or engine not in ENGINES:
            raise error("unknown-device", f"no device {device} with {engine}")
        return Rep(model, engine)

    @classmethod
    def run_node(
        cls,
        node: Any,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        arrays = [np.asarray(x) for x in inputs]
        infos = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for n, x in zip((n for n in node.input if n), arrays, strict=True)
        ]
        outputs = [helper.make_empty_tensor_value_info(n) for n in node.output if n]
        graph = helper.make_graph([node], "node", infos, outputs)
        return cls.run_model(helper.make_model(graph), arrays, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.partition(":")[0].upper() == "CPU"


def run(found: Imported, named: Mapping[str, Array], engine: str) -> list[Array]:
    """An imported model's outputs, as the model would give them, for its inputs by name."""
    net = OnnxNet(found, "the model")
    outputs = net.run({p.name: named[p.name] for p in found.inputs}, device=engine)
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


def _data(model: ModelProto) -> frozenset[str]:
    """The inputs that are data: all but those that only serve as weights or settings."""
    parameters: set[str] = set()
    data: set[str] = {output.name for output in model.graph.output}
    for node in model.graph.node:
        first = 1 if node.op_type in PARAMETRIC else len(node.input)
        data.update(node.input[:first])
        parameters.update(node.input[first:])
    return frozenset(v.name for v in model.graph.input if v.name not in parameters - data)
