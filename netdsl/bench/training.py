"""Training steps side by side with PyTorch: the same net, first weights, batch and optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from netdsl.bench.card import check_torch, rounding
from netdsl.bench.compare import Comparison, Row, Tell, check_device, figures
from netdsl.bench.engine import Engine, Unfit
from netdsl.bench.peers import OURS, Torch
from netdsl.bench.quiet import Watch
from netdsl.bench.rounds import ROUNDS, rounds
from netdsl.bench.truth import TOLERANCE
from netdsl.faults import error
from netdsl.graph import Graph
from netdsl.graph.passes import without_dropout
from netdsl.net import Net
from netdsl.ops import Dropout
from netdsl.scores import is_classifier
from netdsl.train import Settings, Stepper
from netdsl.train.engine import on_card

Step = Callable[[], float]
"""Forward, loss, backward, update; gives the loss."""

AGAINST = "A training step each. The error is how far the first loss is from ours."

RATE, MOMENTUM, DECAY = 1e-3, 0.9, 5e-4


class Task:
    """One net to train on noise: inputs, labels, and how."""

    def __init__(
        self, net: Net, batch: int, threads: int, device: str = "cpu", precision: str = "fp32"
    ) -> None:
        self.net, self.threads, self.device, self.precision = net, threads, device, precision
        self.settings = Settings(
            batch=batch,
            optimiser="momentum",
            rate=RATE,
            momentum=MOMENTUM,
            decay=DECAY,
            schedule="constant",
            threads=threads if device == "cpu" else None,
            device=device,
            precision=precision,
        )
        graph = net.graph
        if any(not is_classifier(graph[name].shape) for name in net.outputs(aux=True)):
            raise error(
                "not-a-classifier",
                f"{net.name} gives no score a class; training is timed with cross entropy",
            )
        random = np.random.default_rng(0)
        self.inputs = {
            name: random.standard_normal((batch, *shape), np.float32)
            for name, shape in net.inputs.items()
        }
        classes = min(graph[name].shape[0] for name in net.outputs(aux=True))
        self.labels = random.integers(0, classes, batch)

    def ours(self, graph: Graph) -> tuple[Step, Graph]:
        """Our step, and the graph that it trains: without a softmax at its end."""
        stepper = Stepper(graph, self.net.weights, self.settings)
        return (lambda: stepper.step(self.inputs, self.labels).loss), stepper.graph

    def torch(self, graph: Graph, engine: type[Torch]) -> Step:
        """PyTorch's step of a graph that ends in scores. Raises Unfit."""
        import torch
        from torch.nn import functional

        if self.device == "cuda":
            check_torch()
        torch.set_num_threads(self.threads)
        module, layout = engine.module(graph, self.net.weights)
        module.moved(self.device, torch.float32).train()
        given = {name: torch.from_numpy(x) for name, x in self.inputs.items()}
        told = torch.from_numpy(self.labels)
        named = list(module.named_parameters())
        decayed = [p for name, p in named if name.endswith("/weight")]
        plain = [p for name, p in named if not name.endswith("/weight")]
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": DECAY},
            {"params": plain},
        ]
        optimiser = torch.optim.SGD([g for g in groups if g["params"]], RATE, MOMENTUM)
        shares = [1.0] * len(graph.outputs) + [aux.weight for aux in graph.aux]
        forward = engine.prepared(module)
        less = torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")

        def step() -> float:
            # As ours, a step begins with a batch on this side.
            inputs = {
                name: x.to(self.device).contiguous(memory_format=layout)
                for name, x in given.items()
            }
            labels = told.to(self.device)
            optimiser.zero_grad()
            with less:
                losses = [functional.cross_entropy(y.flatten(1), labels) for y in forward(inputs)]
            loss = sum(share * one for share, one in zip(shares, losses, strict=True))
            assert isinstance(loss, torch.Tensor)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            return float(loss.detach())

        return step if self.device == "cpu" else rounding(self.precision == "tf32")(step)


def trainers(engines: Sequence[type[Engine]]) -> list[type[Torch]]:
    """Those that can train. Raises NetError where one was asked for that cannot."""
    found = [engine for engine in engines if issubclass(engine, Torch)]
    others = [engine.name for engine in engines if not issubclass(engine, Torch)]
    if others:
        raise error(
            "no-training", f"{others[0]} does not train here", help="bench --train --against torch"
        )
    return found


def compare_training(
    net: Net,
    engines: Sequence[type[Torch]],
    *,
    batch: int = 1,
    threads: int | None = None,
    count: int = ROUNDS,
    patience: float = 0.0,
    device: str = "cpu",
    precision: str = "fp32",
    tell: Tell = lambda what: None,
) -> Comparison:
    """Times training steps; `max_error` is how far the first step's loss is from our own,
    relative to it, with dropout, which is random, left out. precision: what factors are rounded to,
    by us and, with TF32 allowed or bfloat16 by autocast, by PyTorch.

    Raises NetError: losses that differ, no classifier, what training itself raises.
    """
    from netdsl.cpu.plan import thread_count

    check_device(device, threads, cpu_time=False)
    on_card(device, precision)
    task = Task(net, batch, thread_count(threads), device, precision)
    tell("comparing first losses")
    errors, left_out = _errors(task, engines)
    ours, scores = task.ours(net.graph)
    steps: dict[str, Step] = {OURS.name: ours}
    steps |= {e.name: task.torch(scores, e) for e in engines if e.name in errors}
    watch = Watch(patience)
    done = iter(range(1, count + 1))
    times = rounds(steps, count, watch, advance=lambda: tell(f"round {next(done)} of {count} done"))
    least = times[OURS.name].least
    rows = tuple(
        Row(
            net.name,
            batch,
            task.threads,
            name,
            figures(found.least),
            figures(found.middle),
            figures(found.least / least),
            figures(errors.get(name, 0.0)),
            precision,
            device,
        )
        for name, found in times.items()
    )
    return Comparison(rows, left_out, against=AGAINST, busy=watch.busy)


def _errors(task: Task, engines: Sequence[type[Torch]]) -> tuple[dict[str, float], dict[str, str]]:
    """How far each engine's first loss is from ours, and why engines are left out."""
    graph = task.net.graph
    if any(isinstance(node.op, Dropout) for node in graph):
        graph = without_dropout(graph)
    step, scores = task.ours(graph)
    ours = step()
    del step
    errors: dict[str, float] = {}
    left_out: dict[str, str] = {}
    for engine in engines:
        try:
            theirs = task.torch(scores, engine)()
        except Unfit as reason:
            left_out[engine.name] = str(reason)
            continue
        errors[engine.name] = abs(theirs - ours) / max(abs(theirs), 1e-30)
        if errors[engine.name] > TOLERANCE[task.precision]:
            raise error(
                "wrong-loss",
                f"{task.net.name}: the first step's loss is {ours:.6g} here and {theirs:.6g} in "
                f"{engine.name}; nothing was timed",
            )
    return errors, left_out
