"""Counts what the compiled kernels of a net do, on the machine of ptx: a table of its launches.

    python counted.py NET [--batch N] [--precision P] [--train] [--blocks K] [--worst]

NET: a net's name, or its text. --train: a step of training in place of a run. --blocks: so many
blocks of each launch are run, spread over its grid; all, if 0. --worst: the accesses that take most
more than they could, with their lines.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ptx.card import Card, Launched, put_in_place
from ptx.counts import Access, Counts

HEAD = (
    f"{'kernel':22} {'grid':>15} {'instructions':>12} {'products':>8} "
    f"{'sectors':>8} {'least':>6} {'turns':>7} {'least':>6}"
)
MUCH = 1.25
"""Times the least that an access can take: what lies above is shown."""


def zeros(graph: Any) -> dict[str, Any]:
    return {n: np.zeros(p.shape, np.float32) for n, p in graph.all_parameters().items()}


def forward(graph: Any, batch: int, precision: str) -> None:
    from netdsl import cuda

    plan = cuda.compile(graph, zeros(graph), batch=batch, precision=precision)
    plan.run({n: np.zeros((batch, *graph[n].shape), np.float32) for n in graph.inputs})


def step(graph: Any, batch: int, precision: str) -> None:
    from netdsl.train import Settings, Stepper

    settings = Settings(batch=batch, device="cuda", precision=precision)
    stepper = Stepper(graph, zeros(graph), settings, steps=1)
    graph = stepper.graph  # which may end before the net's softmax
    inputs = {n: np.zeros((batch, *graph[n].shape), np.float32) for n in graph.inputs}
    ends = [*graph.outputs, *(aux.output for aux in graph.aux)]
    shapes = {n: (batch, *graph[n].shape[1:]) for n in ends}
    stepper.step(inputs, {n: np.zeros(shape, np.int64) for n, shape in shapes.items()})


def row(call: Launched, counts: Counts) -> str:
    kinds, threads = counts.instructions(), max(int(counts.threads[0]), 1)
    products = (kinds["fma"] + kinds["mma"]) / max(sum(kinds.values()), 1)
    name, grid = call.kernel.py_func.__name__, "x".join(map(str, call.grid))
    text = f"{name:22} {grid:>15} {sum(kinds.values()) / threads:12.0f} {products:8.0%}"
    for space in ("global", "shared"):
        total = counts.total(space)
        text += "  " + " ".join(each(total.requests, n) for n in (total.taken, total.least))
    return text


def each(requests: int, count: int) -> str:
    """So many a request."""
    return f"{count / requests:7.2f}" if requests else f"{'-':>7}"


def worst(call: Launched, counts: Counts) -> list[str]:
    found = []
    for space, unit in (("global", "sectors"), ("shared", "turns")):
        for instruction, access in counts.worst(space, MUCH)[:4]:
            found.append(f"    {said(access, unit)}: {' '.join(str(instruction).split())}")
    return [str(call), *found] if found else []


def said(access: Access, unit: str) -> str:
    taken, least = access.taken / access.requests, access.least / access.requests
    return f"{access.requests:6} requests of {taken:.2f} {unit}, {least:.2f} at least"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("net")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "tf32", "bf16"))
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--worst", action="store_true")
    given = parser.parse_args()
    sys.path.append(str(Path(__file__).parent.parent / "cpu"))

    from netdsl import Net

    card = Card(processors=132, count=Counts, sample=given.blocks or None, lines=given.worst)
    put_in_place(card)
    net = Net.load(text=given.net) if ";" in given.net else Net.load(given.net)
    (step if given.train else forward)(net.graph, given.batch, given.precision)
    print(HEAD)
    for call, counts in card.launched:
        print(row(call, counts))
    seen: set[Any] = set()
    for call, counts in card.launched if given.worst else ():
        if call.kernel not in seen:
            print(*worst(call, counts), sep="\n", end="\n")
        seen.add(call.kernel)


if __name__ == "__main__":
    main()
