"""Training steps side by side with PyTorch on the CPU.

    python benchmarks/train_step.py [lenet5:64 vgg_small:64 alexnet:8 googlenet:8] [--threads 2]

The same net, batch, first weights and optimiser (momentum 0.9, weight decay 5e-4) on both sides,
float32, random inputs. PyTorch runs with channels_last and without; the better counts. Each engine
has a process of its own, since two pools of waiting threads in one would take each other's cores;
they take turns. A step is forward, loss, backward and update. The first step's losses are printed:
they agree, but for nets with dropout.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from netdsl import find, lang
from netdsl.graph import Graph
from netdsl.graph.weights import initialise
from netdsl.train import Settings, Stepper

ENGINES = ("netdsl", "torch", "torch channels_last")
VGG_SMALL = """
input 3x32x32
every conv -> relu
conv3p1(64) x2 -> maxpool2 -> conv3p1(128) x2 -> maxpool2 -> conv3p1(256) x3 -> maxpool2
fc(256) -> relu -> fc(10)
"""


def ours(
    graph: Graph, weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, threads: int
) -> Callable[[], float]:
    """A step of ours."""
    settings = Settings(batch=len(x), rate=0.001, schedule="constant", threads=threads)
    stepper = Stepper(graph, weights, settings)
    return lambda: stepper.step(x, y).loss


def engine(connection: Any, name: str, net: str, batch: int, threads: int) -> None:
    """One engine in a process of its own: does as many steps as it is asked for."""
    graph = lang.load(VGG_SMALL) if net == "vgg_small" else find.graph_of(net)
    rng = np.random.default_rng(0)
    weights = initialise(graph, 0)
    x = rng.normal(size=(batch, *graph["input"].shape)).astype(np.float32)
    y = rng.integers(0, graph[graph.outputs[0]].shape[0], batch)
    if name == "netdsl":
        step = ours(graph, weights, x, y, threads)
    else:
        import torch
        from torch_net import torch_step

        torch.set_num_threads(threads)
        step = torch_step(graph, weights, x, y, last=name.endswith("last"))
    connection.send(step())
    step()
    while count := connection.recv():
        times = []
        for _ in range(count):
            start = time.perf_counter()
            step()
            times.append(1000 * (time.perf_counter() - start))
        connection.send(times)
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def compare(net: str, batch: int, threads: int, rounds: int) -> dict[str, Any]:
    """The times of one net, engine by engine in turns, each resting while another works."""
    spawn = multiprocessing.get_context("spawn")
    pipes, first = {}, {}
    for name in ENGINES:
        here, there = spawn.Pipe()
        made = spawn.Process(target=engine, args=(there, name, net, batch, threads), daemon=True)
        made.start()
        pipes[name], first[name] = here, here.recv()
    times: dict[str, list[float]] = {name: [] for name in ENGINES}
    for _ in range(rounds):
        for name, pipe in pipes.items():
            time.sleep(0.3)
            pipe.send(3)
            times[name] += pipe.recv()
    memory = {}
    for name, pipe in pipes.items():
        pipe.send(0)
        memory[name] = pipe.recv()
    least = {name: min(found) for name, found in times.items()}
    best = min(ms for name, ms in least.items() if name != "netdsl")
    return {
        "net": net,
        "batch": batch,
        "threads": threads,
        "min_ms": {name: round(ms, 2) for name, ms in least.items()},
        "median_ms": {name: round(median(found), 2) for name, found in times.items()},
        "ratio": round(best / least["netdsl"], 3),
        "images_per_second": round(1000 * batch / least["netdsl"]),
        "first_loss": {name: round(loss, 5) for name, loss in first.items()},
        "peak_mb": memory,
    }


def main() -> None:
    """Compares the nets that were asked for."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("nets", nargs="*")
    asked.add_argument("--threads", type=int, default=2)
    asked.add_argument("--rounds", type=int, default=10)
    given = asked.parse_args()
    for word in given.nets or ["lenet5:64", "vgg_small:64", "alexnet:8", "googlenet:8"]:
        name, _, batch = word.partition(":")
        print(json.dumps(compare(name, int(batch or 1), given.threads, given.rounds)), flush=True)


if __name__ == "__main__":
    main()
