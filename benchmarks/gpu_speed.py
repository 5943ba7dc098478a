"""How fast the card is: nets and training beside PyTorch, passes beside a copy."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from netdsl import cuda
from netdsl.bench.card import OursOnCard, TorchChannelsLastOnCard, TorchOnCard
from netdsl.bench.case import Case
from netdsl.bench.quiet import Watch
from netdsl.bench.rounds import rounds
from netdsl.bench.truth import TOLERANCE, error_of
from netdsl.graph.timing import Timing
from netdsl.graph.weights import initialise
from netdsl.lang import load
from netdsl.net import Net

ROUNDS = 3
"""Turns of each engine."""

REPEATS = 5
"""Rounds of what is timed alone."""


class Now(Watch):
    """Waits for nobody: a card's turns leave no threads behind that spin."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def pause(self) -> None:
        """Does not."""


class Speed(NamedTuple):
    """What was measured: of what, our ms, the other's ms, a remark, and whether the outputs are
    right."""

    what: str
    ours: float
    theirs: float | None
    against: str
    remark: str = ""
    right: bool = True

    def __str__(self) -> str:
        beside = f"{'':>10}   {self.against}"
        if self.theirs is not None:
            beside = f"{self.theirs:10.3f}   {self.theirs / self.ours:5.2f}x {self.against}"
        return f"{self.what:48} {self.ours:10.3f} {beside}  {self.remark}".rstrip()


HEAD = f"{'':48} {'ours, ms':>10} {'other, ms':>10}   other / ours"


def net(net: Net, batch: int, precision: str) -> Speed:
    """A whole net, inputs on the card, outputs brought back, beside PyTorch's faster layout."""
    tidy()
    with TemporaryDirectory() as folder:
        case = Case(net, batch, 1, Path(folder), precision, "cuda")
        runs, remarks = {"netdsl": OursOnCard.ready(case)}, []
        for engine in (TorchOnCard, TorchChannelsLastOnCard) if TorchOnCard.installed() else ():
            try:
                runs[engine.name] = engine.ready(case)
            except Exception as why:  # its own; ours is timed all the same
                remarks.append(f"{engine.name}: {' '.join(str(why).split())[:80]}")
    outputs, right = {name: run() for name, run in runs.items()}, True
    if len(runs) > 1:
        apart = error_of(outputs["netdsl"], next(o for n, o in outputs.items() if n != "netdsl"))
        right = apart < TOLERANCE[precision]
        remarks.append(f"{'apart' if right else 'WRONG'} {apart:.0e}")
    times = rounds(runs, ROUNDS, Now())
    plan: Any = case.runner().plan
    others = {name: found.least for name, found in times.items() if name != "netdsl"}
    best = min(others, key=lambda name: others[name], default="no PyTorch on the card")
    what, said = f"{net.name}, batch {batch}, {precision}", "; ".join([*remarks, plan.note])
    return Speed(what, times["netdsl"].least, others.get(best), best, said.strip("; "), right)


def chunked(net: Net, batch: int, scratch: int) -> Speed:
    """A whole net by Winograd's algorithm with so many bytes of scratch; 0 goes without it."""
    from netdsl.cuda import winograd

    tidy()
    random = np.random.default_rng(0)
    x = {n: random.standard_normal((batch, *s), np.float32) for n, s in net.inputs.items()}
    usual, winograd.SCRATCH = winograd.SCRATCH, scratch
    try:
        plan = cuda.compile(net.graph, net.weights, batch=batch, exact=not scratch)
    finally:
        winograd.SCRATCH = usual
    plan.run(x)
    ms, said = 1e3 * seconds(plan.start, plan.wait), f"{scratch >> 20} MiB of scratch"
    return Speed(f"{net.name}, batch {batch}, {said if scratch else 'exact'}", ms, None, "")


def tidy() -> None:
    """Gives back memory that nobody uses."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def layers(net: Net, batch: int, precision: str) -> tuple[float, float, list[Timing]]:
    """The card's peak in GFLOP/s, the share of it that a net's layers with products reach together,
    and the times of all."""
    from netdsl.cuda.peak import peak

    top = peak(precision)
    random = np.random.default_rng(0)
    x = {n: random.standard_normal((batch, *s), np.float32) for n, s in net.inputs.items()}
    plan: Any = net.runner(batch, device="cuda", precision=precision).plan
    timings = plan.profile(x, REPEATS)
    having = [t for t in timings if t.macs]
    flops, ms = 2 * sum(t.macs for t in having), sum(t.least_ms for t in having)
    return top, flops / ms / 1e6 / top, timings


def passed(text: str, batch: int) -> Speed:
    """An op that reads and writes once, beside a copy of as many bytes on the device."""
    from netdsl.cuda import launch

    graph = load(text)
    plan = cuda.compile(graph, initialise(graph, 0), batch=batch)
    random = np.random.default_rng(0)
    plan.run({p.name: random.standard_normal((batch, *p.shape), np.float32) for p in plan.inputs})
    moved = sum(port.buffer.floats for port in (*plan.inputs, *plan.outputs))
    one, two = launch.room(moved // 2), launch.room(moved // 2)

    def copy() -> None:
        two.copy_to_device(one, stream=plan.stream)

    copied, taken = seconds(copy, plan.wait), seconds(plan.start, plan.wait)
    remark = f"{copied / taken:.0%} of the copy's {8 * (moved // 2) / copied / 1e9:,.0f} GB/s"
    return Speed(f"{text}, batch {batch}", 1e3 * taken, 1e3 * copied, "copy", remark)


def trained(net: Net, batch: int, precision: str) -> Speed:
    """A training step from a batch on this side to the loss, beside PyTorch's in its faster layout.

    Raises NetError where the losses differ.
    """
    from netdsl.bench.training import compare_training

    tidy()
    there = (TorchOnCard, TorchChannelsLastOnCard) if TorchOnCard.installed() else ()
    found = compare_training(
        net, there, batch=batch, count=ROUNDS, device="cuda", precision=precision
    )
    ours, *others = found.rows
    best = min(others, key=lambda row: row.min_ms, default=None)
    against = best.engine if best else "no PyTorch on the card"
    remark = f"loss apart {best.max_error:.0e}" if best else ""
    what = f"{net.name}, training step, batch {batch}, {precision}"
    return Speed(what, ours.min_ms, best and best.min_ms, against, remark)


def copies(net: Net, batch: int, batches: int) -> Speed:
    """Many batches from this side and back: copies beside the computation, and in turn."""
    (name,) = net.graph.inputs
    runner = net.runner(batch, device="cuda")
    x = np.random.default_rng(0).standard_normal((batch * batches, *net.inputs[name]), np.float32)
    pieces = np.split(x, batches)
    plan: Any = runner.plan

    def one_by_one() -> None:
        for piece in pieces:
            plan.run({name: piece})

    def beside() -> None:
        for _ in plan.run_many({name: piece} for piece in pieces):
            pass

    apart, together = (seconds(run, plan.wait, least=0.0) for run in (one_by_one, beside))
    what = f"{net.name}, {batches} batches of {batch}, fp32"
    return Speed(what, 1e3 * together, 1e3 * apart, "the same without overlap")


def seconds(start: Callable[[], Any], wait: Callable[[], Any], least: float = 0.2) -> float:
    """Seconds of a call, the least of some rounds, each some calls long."""
    # The first time loads the kernels, the second records the graph.
    for _ in range(2 if REPEATS > 1 else 1):
        start()
    wait()
    began = time.perf_counter()
    start()
    wait()
    once = max(time.perf_counter() - began, 1e-6)
    calls = max(1, min(200, int(least / REPEATS / once)))
    rounds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(calls):
            start()
        wait()
        rounds.append((time.perf_counter() - began) / calls)
    return min(rounds)
