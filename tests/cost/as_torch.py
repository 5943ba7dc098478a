"""A graph as the torch.nn module that a PyTorch user would write, to run the peers' tools on."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import nn

from netdsl import ops
from netdsl.graph import Graph, Node
from netdsl.ops.window import Window


class AsTorch(nn.Module):
    """Runs a graph node by node; takes the inputs of the graph in order."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph.without_aux()
        self.parts = nn.ModuleDict()
        for node in self.graph:
            made = module(node, self.graph.input_shapes(node))
            if made is not None:
                self.parts[node.name.replace(".", "_")] = made

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        values = dict(zip(self.graph.inputs, inputs, strict=True))
        for node in self.graph:
            if node.name in values:
                continue
            given = [values[name] for name in node.inputs]
            key = node.name.replace(".", "_")
            values[node.name] = self.parts[key](*given) if key in self.parts else join(node, given)
        return values[self.graph.outputs[0]]


def join(node: Node, given: list[torch.Tensor]) -> torch.Tensor:
    if isinstance(node.op, ops.Concat):
        return torch.cat(given, 1)
    result = given[0]
    for other in given[1:]:
        result = result + other if isinstance(node.op, ops.Add) else result * other
    return result


PLAIN: dict[type[ops.Op], type[nn.Module]] = {
    ops.Relu: nn.ReLU,
    ops.Relu6: nn.ReLU6,
    ops.Leaky: nn.LeakyReLU,
    ops.Elu: nn.ELU,
    ops.Gelu: nn.GELU,
    ops.Silu: nn.SiLU,
    ops.HardSwish: nn.Hardswish,
    ops.Sigmoid: nn.Sigmoid,
    ops.HardSigmoid: nn.Hardsigmoid,
    ops.Tanh: nn.Tanh,
    ops.Dropout: nn.Dropout,
    ops.Flatten: nn.Flatten,
}


def module(node: Node, inputs: tuple[ops.Shape, ...]) -> nn.Module | None:
    """The module of one op; None for inputs and joins."""
    op = node.op
    if isinstance(op, ops.Join | ops.Input):
        return None
    if type(op) in PLAIN:
        return PLAIN[type(op)]()
    if isinstance(op, ops.Linear):
        line = nn.Linear(prod(inputs[0]), op.filters, op.bias)
        return line if len(inputs[0]) == 1 else nn.Sequential(nn.Flatten(), line)
    rank = len(inputs[0]) - 1
    channels = inputs[0][0]
    if isinstance(op, ops.Conv | ops.ConvTranspose):
        return convolution(op, channels, rank)
    if isinstance(op, ops.MaxPool | ops.AveragePool):
        return pool(op, rank)
    if isinstance(op, ops.GlobalMax):
        return named("AdaptiveMaxPool", rank)(1)
    if isinstance(op, ops.GlobalAverage):
        return named("AdaptiveAvgPool", rank)(1)
    if isinstance(op, ops.AdaptiveAveragePool):
        return named("AdaptiveAvgPool", rank)(op.to)
    return other(op, channels, rank)


def named(name: str, rank: int) -> Any:
    return getattr(nn, f"{name}{max(rank, 1)}d")


def even(window: Window) -> tuple[int, ...]:
    assert all(lo == hi for lo, hi in window.padding), "PyTorch pads both sides alike"
    return tuple(lo for lo, _ in window.padding)


def convolution(op: ops.Conv | ops.ConvTranspose, channels: int, rank: int) -> nn.Module:
    w = op.window
    settings: dict[str, Any] = {
        "stride": w.stride,
        "dilation": w.dilation,
        "groups": op.groups,
        "bias": op.bias,
        "padding": even(w),
    }
    if isinstance(op, ops.ConvTranspose):
        settings["output_padding"] = op.out_pad
        return named("ConvTranspose", rank)(channels, op.filters, w.kernel, **settings)
    return named("Conv", rank)(channels, op.filters, w.kernel, **settings)


def pool(op: ops.MaxPool | ops.AveragePool, rank: int) -> nn.Module:
    w = op.window
    if isinstance(op, ops.MaxPool):
        return named("MaxPool", rank)(w.kernel, w.stride, even(w), w.dilation, ceil_mode=w.ceil)
    return named("AvgPool", rank)(w.kernel, w.stride, even(w), w.ceil, op.count_pad)


def other(op: ops.Op, channels: int, rank: int) -> nn.Module:
    if isinstance(op, ops.BatchNorm):
        return named("BatchNorm", rank)(channels, op.eps, affine=op.affine)
    if isinstance(op, ops.InstanceNorm):
        return named("InstanceNorm", rank)(channels, op.eps, affine=op.affine)
    if isinstance(op, ops.LayerNorm) and rank == 0:
        return nn.LayerNorm(channels, op.eps, op.affine)
    if isinstance(op, ops.LayerNorm | ops.GroupNorm):
        groups = 1 if isinstance(op, ops.LayerNorm) else op.groups
        return nn.GroupNorm(groups, channels, op.eps, op.affine)
    if isinstance(op, ops.LocalResponseNorm):
        return nn.LocalResponseNorm(op.size, op.alpha, op.beta, op.k)
    if isinstance(op, ops.PRelu):
        return nn.PReLU(channels)
    if isinstance(op, ops.Softmax):
        return nn.Softmax(1)
    if isinstance(op, ops.LogSoftmax):
        return nn.LogSoftmax(1)
    assert isinstance(op, ops.Upsample), op
    modes = {1: "linear", 2: "bilinear", 3: "trilinear"}
    mode = "nearest" if op.mode == "nearest" else modes[rank]
    return nn.Upsample(scale_factor=op.factor, mode=mode)
