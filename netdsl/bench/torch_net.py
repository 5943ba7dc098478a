"""A graph run by PyTorch, op by op: the peer in benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from netdsl.bench.engine import Unfit
from netdsl.graph import Graph, Node
from netdsl.graph.passes import sole
from netdsl.ops import (
    AdaptiveAveragePool,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dropout,
    Elu,
    Flatten,
    Gelu,
    GlobalAverage,
    GlobalMax,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    Input,
    InstanceNorm,
    LayerNorm,
    Leaky,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool,
    Multiply,
    Op,
    Pad,
    PRelu,
    Relu,
    Relu6,
    Shuffle,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
    Upsample,
    Window,
)

Own = Mapping[str, Tensor]
"""A node's weights by their own names."""

CONVS = (functional.conv1d, functional.conv2d, functional.conv3d)
CONVS_BACK: tuple[Any, ...] = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)
MAX_POOLS = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
MEAN_POOLS: tuple[Any, ...] = (
    functional.avg_pool1d,
    functional.avg_pool2d,
    functional.avg_pool3d,
)
ADAPTIVE: tuple[Any, ...] = (
    functional.adaptive_avg_pool1d,
    functional.adaptive_avg_pool2d,
    functional.adaptive_avg_pool3d,
)


class TorchNet(torch.nn.Module):
    """A graph as a module: named inputs to the list of its outputs, auxiliary heads' last.

    In training mode dropout drops and batch norm uses the batch's statistics.
    Raises Unfit for an op that PyTorch has no function for.
    """

    def __init__(self, graph: Graph, weights: Mapping[str, NDArray[np.float32]]) -> None:
        super().__init__()
        self.graph = graph
        for node in graph:
            if not isinstance(node.op, Input) and type(node.op) not in FUNCTIONS:
                raise Unfit(f"no function of PyTorch's for {node.op.word()}")
        self.own: dict[str, dict[str, Tensor]] = {node.name: {} for node in graph}
        for node in graph:
            for parameter in graph.parameters(node):
                full = f"{node.name}.{parameter.name}"
                value = torch.tensor(weights[full])
                if parameter.trainable:
                    value = torch.nn.Parameter(value)
                    self.register_parameter(full.replace(".", "/"), value)
                self.own[node.name][parameter.name] = value

    def moved(self, device: str, kind: torch.dtype) -> TorchNet:
        """Itself, with all its weights on a device and of a type."""
        self.to(device, kind)
        for own in self.own.values():
            # Parameters have moved in place; statistics are none.
            own.update((n, v.to(device, kind)) for n, v in own.items() if not v.requires_grad)
        return self

    def to_layout(self, layout: torch.memory_format) -> None:
        """Puts weights of the layout's rank into it."""
        rank = 4 if layout == torch.channels_last else 5
        for weight in self.parameters():
            if weight.dim() == rank:
                weight.data = weight.data.contiguous(memory_format=layout)

    def forward(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        values: dict[str, Tensor] = {}
        for node in self.graph:
            values[node.name] = self.value(node, inputs, [values[name] for name in node.inputs])
        ends = [*self.graph.outputs, *(aux.output for aux in self.graph.aux)]
        return [values[name] for name in ends]

    def value(self, node: Node, inputs: Mapping[str, Tensor], given: list[Tensor]) -> Tensor:
        if isinstance(node.op, Input):
            return inputs[node.name]
        if isinstance(node.op, Dropout):
            return functional.dropout(given[0], node.op.rate, self.training)
        if isinstance(node.op, Relu) and self.may_overwrite(node):
            return functional.relu(given[0], inplace=True)
        own = self.own[node.name]
        if isinstance(node.op, BatchNorm):
            return functional.batch_norm(
                given[0],
                own["mean"],
                own["var"],
                own.get("weight"),
                own.get("bias"),
                self.training,
                node.op.momentum,
                node.op.eps,
            )
        return FUNCTIONS[type(node.op)](node.op, own, *given)

    def may_overwrite(self, node: Node) -> bool:
        """Whether nobody else, and no gradient, needs what an activation reads."""
        layer = self.graph[node.inputs[0]]
        return isinstance(layer.op, Conv | Linear | BatchNorm | Add) and sole(self.graph, layer)


def even(window: Window, x: Tensor, value: float) -> tuple[Tensor, tuple[int, ...]]:
    """The input, and the padding for PyTorch, which wants it alike on both sides: else the input
    is padded before."""
    if all(lo == hi for lo, hi in window.padding):
        return x, tuple(lo for lo, _ in window.padding)
    return functional.pad(x, ends(window.padding), value=value), (0,) * len(window.padding)


def ends(padding: Sequence[tuple[int, int]]) -> list[int]:
    """PyTorch's order: the last axis first."""
    return [size for pair in reversed(padding) for size in pair]


def conv(op: Conv, own: Own, x: Tensor) -> Tensor:
    w = op.window
    x, padding = even(w, x, 0.0)
    function: Any = CONVS[len(w.kernel) - 1]
    result: Tensor = function(
        x, own["weight"], own.get("bias"), w.stride, padding, w.dilation, op.groups
    )
    return result


def conv_transpose(op: ConvTranspose, own: Own, x: Tensor) -> Tensor:
    w = op.window
    # What PyTorch cannot leave off one side alone is cut off afterwards.
    least = tuple(min(pair) for pair in w.padding)
    function = CONVS_BACK[len(w.kernel) - 1]
    y: Tensor = function(
        x, own["weight"], own.get("bias"), w.stride, least, op.out_pad, op.groups, w.dilation
    )
    if all(lo == hi for lo, hi in w.padding):
        return y
    rest = [(p - lo, p - hi) for p, (lo, hi) in zip(least, w.padding, strict=True)]
    return functional.pad(y, ends(rest))


def max_pool(op: MaxPool, own: Own, x: Tensor) -> Tensor:
    w = op.window
    x, padding = even(w, x, -torch.inf)
    function: Any = MAX_POOLS[len(w.kernel) - 1]
    result: Tensor = function(x, w.kernel, w.stride, padding, w.dilation, w.ceil)
    return result


def average_pool(op: AveragePool, own: Own, x: Tensor) -> Tensor:
    w = op.window
    if any(d != 1 for d in w.dilation) or any(lo != hi for lo, hi in w.padding):
        raise Unfit(f"no function of PyTorch's for {op.word()}")
    padding = tuple(lo for lo, _ in w.padding)
    function = MEAN_POOLS[len(w.kernel) - 1]
    result: Tensor = function(x, w.kernel, w.stride, padding, w.ceil, op.count_pad)
    return result


def adaptive(op: AdaptiveAveragePool, own: Own, x: Tensor) -> Tensor:
    result: Tensor = ADAPTIVE[len(op.to) - 1](x, op.to)
    return result


def spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


def upsample(op: Upsample, own: Own, x: Tensor) -> Tensor:
    factor = [float(f) for f in op.factor]
    if op.mode == "nearest":
        return functional.interpolate(x, scale_factor=factor, mode="nearest")
    mode = ("linear", "bilinear", "trilinear")[len(factor) - 1]
    return functional.interpolate(x, scale_factor=factor, mode=mode, align_corners=False)


def pad(op: Pad, own: Own, x: Tensor) -> Tensor:
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}[op.mode]
    value = op.value if op.mode == "constant" else None
    return functional.pad(x, ends(op.amount), mode, value)


def shuffle(op: Shuffle, own: Own, x: Tensor) -> Tensor:
    table = x.reshape(x.shape[0], op.groups, -1, *x.shape[2:])
    return table.transpose(1, 2).reshape(x.shape)


def prelu(op: PRelu, own: Own, x: Tensor) -> Tensor:
    return functional.prelu(x, own["weight"])


def grouped(groups: int, eps: float, own: Own, x: Tensor) -> Tensor:
    return functional.group_norm(x, groups, own.get("weight"), own.get("bias"), eps)


def response_norm(op: LocalResponseNorm, own: Own, x: Tensor) -> Tensor:
    if op.size % 2 == 0:
        raise Unfit("PyTorch's window of an even size lies otherwise than ours")
    return functional.local_response_norm(x, op.size, op.alpha, op.beta, op.k)


def hard_sigmoid(op: HardSigmoid, own: Own, x: Tensor) -> Tensor:
    return torch.clamp(x * op.slope + op.offset, 0, 1)


def plain(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """A function of the input alone."""
    return lambda op, own, x: function(x)


FUNCTIONS: dict[type[Op], Callable[..., Tensor]] = {
    Conv: conv,
    ConvTranspose: conv_transpose,
    Linear: lambda op, own, x: functional.linear(x.flatten(1), own["weight"], own.get("bias")),
    Flatten: plain(lambda x: x.flatten(1)),
    Dropout: plain(lambda x: x),
    MaxPool: max_pool,
    AveragePool: average_pool,
    AdaptiveAveragePool: adaptive,
    GlobalAverage: plain(lambda x: x.mean(spatial(x), keepdim=True)),
    GlobalMax: plain(lambda x: x.amax(spatial(x), keepdim=True)),
    BatchNorm: plain(lambda x: x),
    LayerNorm: lambda op, own, x: grouped(1, op.eps, own, x),
    InstanceNorm: lambda op, own, x: grouped(x.shape[1], op.eps, own, x),
    GroupNorm: lambda op, own, x: grouped(op.groups, op.eps, own, x),
    LocalResponseNorm: response_norm,
    Upsample: upsample,
    Pad: pad,
    Shuffle: shuffle,
    Concat: lambda op, own, *given: torch.cat(given, 1),
    Add: lambda op, own, *given: reduce(torch.add, given),
    Multiply: lambda op, own, *given: reduce(torch.mul, given),
    Relu: plain(functional.relu),
    Relu6: plain(functional.relu6),
    Leaky: lambda op, own, x: functional.leaky_relu(x, op.slope),
    PRelu: prelu,
    Elu: lambda op, own, x: functional.elu(x, op.alpha),
    Gelu: lambda op, own, x: functional.gelu(
        x, approximate="tanh" if op.form == "tanh" else "none"
    ),
    Silu: plain(functional.silu),
    HardSwish: plain(functional.hardswish),
    Sigmoid: plain(torch.sigmoid),
    HardSigmoid: hard_sigmoid,
    Tanh: plain(torch.tanh),
    Softmax: plain(lambda x: functional.softmax(x, 1)),
    LogSoftmax: plain(lambda x: functional.log_softmax(x, 1)),
}
"""For each class of op, what PyTorch computes it with: (op, its weights, *inputs). Dropout and
batch norm, which training changes, are the module's own."""
