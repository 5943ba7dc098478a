"""Training steps side by side with PyTorch on the CPU.

    python benchmarks/train_step.py [lenet5:64 vgg_small:64 alexnet:8 googlenet:8] [--threads 2]

The same net, batch, first weights and optimiser (momentum 0.9, weight decay 5e-4) on both sides,
float32, random inputs. PyTorch runs with channels_last and without; the better counts. Rounds are
interleaved; a step is forward, loss, backward and update. The losses of the first step are compared
before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from netdsl import find, lang
from netdsl.graph import Graph
from netdsl.graph.weights import initialise
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
from netdsl.train import Settings, Stepper

VGG_SMALL = """
input 3x32x32
every conv -> relu
conv3p1(64) x2 -> maxpool2 -> conv3p1(128) x2 -> maxpool2 -> conv3p1(256) x3 -> maxpool2
fc(256) -> relu -> fc(10)
"""


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


def ours(
    graph: Graph, weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, threads: int
) -> tuple[Callable[[], float], Stepper]:
    """A step of ours."""
    settings = Settings(batch=len(x), rate=0.001, schedule="constant", threads=threads)
    stepper = Stepper(graph, weights, settings)
    return (lambda: stepper.step(x, y).loss), stepper


def compare(name: str, batch: int, threads: int, rounds: int) -> dict[str, Any]:
    """The times of one net."""
    graph = lang.load(VGG_SMALL) if name == "vgg_small" else find.graph_of(name)
    rng = np.random.default_rng(0)
    weights = initialise(graph, 0)
    x = rng.normal(size=(batch, *graph["input"].shape)).astype(np.float32)
    y = rng.integers(0, graph[graph.outputs[0]].shape[0], batch)
    step, _ = ours(graph, weights, x, y, threads)
    steps = {
        "netdsl": step,
        "torch": torch_step(graph, weights, x, y, last=False),
        "torch channels_last": torch_step(graph, weights, x, y, last=True),
    }
    first = {engine: step() for engine, step in steps.items()}
    times: dict[str, list[float]] = {engine: [] for engine in steps}
    for _ in range(rounds):
        for engine, step in steps.items():
            step()
            start = time.perf_counter()
            step()
            times[engine].append(1000 * (time.perf_counter() - start))
    least = {engine: min(found) for engine, found in times.items()}
    best = min(least["torch"], least["torch channels_last"])
    return {
        "net": name,
        "batch": batch,
        "threads": threads,
        "min_ms": {engine: round(ms, 2) for engine, ms in least.items()},
        "ratio": round(best / least["netdsl"], 3),
        "images_per_second": round(1000 * batch / least["netdsl"]),
        "first_loss": {engine: round(loss, 5) for engine, loss in first.items()},
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    """Compares the nets that were asked for."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("nets", nargs="*")
    asked.add_argument("--threads", type=int, default=2)
    asked.add_argument("--rounds", type=int, default=10)
    given = asked.parse_args()
    torch.set_num_threads(given.threads)
    for word in given.nets or ["lenet5:64", "vgg_small:64", "alexnet:8", "googlenet:8"]:
        name, _, batch = word.partition(":")
        print(json.dumps(compare(name, int(batch or 1), given.threads, given.rounds)), flush=True)


if __name__ == "__main__":
    main()
