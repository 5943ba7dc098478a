"""A graph run and trained by PyTorch, op by op: what benchmarks compare with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from netdsl.graph import Graph
from netdsl.ops import (
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    Dropout,
    Flatten,
    GlobalAverage,
    Input,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Relu,
)


class Torch(torch.nn.Module):
    """A graph run by PyTorch, op by op."""

    def __init__(self, graph: Graph, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.graph = graph
        trainable = {n: p.trainable for n, p in graph.all_parameters().items()}
        self.learned = torch.nn.ParameterDict(
            {
                name.replace(".", "/"): torch.nn.Parameter(torch.tensor(value))
                for name, value in weights.items()
                if trainable[name]
            }
        )
        self.measured = {
            name: torch.tensor(value) for name, value in weights.items() if not trainable[name]
        }

    def weight(self, name: str) -> Any:
        key = name.replace(".", "/")
        return self.learned.get(key)

    def forward(self, x: Any) -> list[Any]:
        values: dict[str, Any] = {}
        for node in self.graph:
            values[node.name] = self.node(node, x, [values[n] for n in node.inputs])
        ends = [*self.graph.outputs, *(aux.output for aux in self.graph.aux)]
        return [values[name].flatten(1) for name in ends]

    def node(self, node: Any, x: Any, given: list[Any]) -> Any:
        op = node.op
        if isinstance(op, Input):
            return x
        if isinstance(op, Concat):
            return torch.cat(given, 1)
        if isinstance(op, Add):
            return sum(given[1:], given[0])
        (v,) = given
        weight, bias = (self.weight(f"{node.name}.{part}") for part in ("weight", "bias"))
        if isinstance(op, Conv):
            padding = tuple(lo for lo, _ in op.window.padding)
            w = op.window
            return functional.conv2d(v, weight, bias, w.stride, padding, w.dilation, op.groups)
        if isinstance(op, Linear):
            return functional.linear(v.flatten(1), weight, bias)
        if isinstance(op, MaxPool):
            w, padding = op.window, tuple(lo for lo, _ in op.window.padding)
            return functional.max_pool2d(v, w.kernel, w.stride, padding, ceil_mode=w.ceil)
        if isinstance(op, AveragePool):
            return functional.avg_pool2d(v, op.window.kernel, op.window.stride)
        if isinstance(op, LocalResponseNorm):
            return functional.local_response_norm(v, op.size, op.alpha, op.beta, op.k)
        if isinstance(op, BatchNorm):
            mean, var = (self.measured[f"{node.name}.{part}"] for part in ("mean", "var"))
            return functional.batch_norm(v, mean, var, weight, bias, True, op.momentum, op.eps)
        if isinstance(op, Dropout):
            return functional.dropout(v, op.rate)
        if isinstance(op, GlobalAverage):
            return v.mean((2, 3), keepdim=True)
        if isinstance(op, Relu):
            return functional.relu(v, inplace=True)
        assert isinstance(op, Flatten), op
        return v.flatten(1)


def torch_step(
    graph: Graph, weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, last: bool
) -> Callable[[], float]:
    """A step of PyTorch's."""
    net = Torch(graph, weights)
    layout = torch.channels_last if last else torch.contiguous_format
    net = net.to(memory_format=layout)
    inputs, labels = torch.tensor(x).to(memory_format=layout), torch.tensor(y)
    decayed = [p for n, p in net.named_parameters() if n.endswith("weight")]
    plain = [p for n, p in net.named_parameters() if not n.endswith("weight")]
    optimiser = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 5e-4}, {"params": plain}], 0.001, momentum=0.9
    )
    shares = [1.0] * len(graph.outputs) + [aux.weight for aux in graph.aux]

    def step() -> float:
        optimiser.zero_grad()
        losses = [functional.cross_entropy(scores, labels) for scores in net(inputs)]
        loss = sum(share * one for share, one in zip(shares, losses, strict=True))
        loss.backward()  # type: ignore[union-attr]
        optimiser.step()
        return float(loss.detach())

    return step
