"""What factors are rounded to where bfloat16 is asked for, by what it costs a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from layer import Layer

from netdsl import find
from netdsl.cpu import choices, costs, factors, plan, table, thirds
from netdsl.cpu.costs import FAST, NARROW, WIDE, Rates
from netdsl.cpu.factors import cheapest, settled
from netdsl.cpu.micro import Kind, Shape, twice
from netdsl.cpu.plan import Making
from netdsl.cpu.rounding import Rounded
from netdsl.cpu.table import takes
from netdsl.cpu.task import Task
from netdsl.cpu.tiling import by_cost
from netdsl.graph.fused import fuse
from netdsl.graph.passes import lowered
from netdsl.ops import Conv, Linear, MaxPool, Op, Window

CPUS = {"zen4": (WIDE, True), "skylake": (WIDE, False), "zen3": (NARROW, False)}
CPUS |= {"emerald rapids": (FAST, True), "the same without pairs": (FAST, False)}


@pytest.fixture
def patch(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """What was chosen by other costs is forgotten."""
    choices.choice.cache_clear()
    yield monkeypatch
    choices.choice.cache_clear()


def like(patch: pytest.MonkeyPatch, rates: Rates, dots: bool) -> None:
    """Plans as for a CPU of these costs, with products of pairs or without, and no matrices."""
    for module in (costs, factors):
        patch.setattr(module, "rates", lambda: rates)
    for module in (factors, table):
        patch.setattr(module, "dots", lambda: dots)
    for module in (choices, factors, plan, table, thirds):
        patch.setattr(module, "matrices", lambda: False)


def task(op: Op, shape: tuple[int, ...], batch: int = 1) -> Task:
    return replace(Layer(op, shape, batch).task, precision="bf16")


def window(kernel: int, stride: int = 1) -> Window:
    pad = (kernel // 2, kernel // 2)
    return Window((kernel, kernel), (stride, stride), (pad, pad), (1, 1))


POINT = task(Conv(256, window(1)), (512, 14, 14))
STRIDED = task(Conv(64, window(7, 2)), (3, 64, 64))
FEW, MANY = (task(Linear(4096), (9216,), batch) for batch in (8, 64))
ONE = task(Linear(1000), (1024,))


@pytest.mark.parametrize("cpu", CPUS)
def test_the_cheapest_of_three(cpu: str, patch: pytest.MonkeyPatch) -> None:
    """Where pairs take half the time they are always best, where weights alone take none more they
    are next, and where floats are fastest it hangs on how many places read the weights."""
    like(patch, *CPUS[cpu])
    found = [cheapest(one) for one in (POINT, STRIDED, FEW, MANY, ONE)]
    always = {"zen4": Kind.PAIRED, "skylake": Kind.HALVED, "zen3": Kind.HALVED}.get(cpu)
    floats, weights = Kind.BLOCKED, Kind.HALVED
    assert found == ([always] * 5 if always else [floats, floats, weights, floats, weights])


@pytest.mark.parametrize("cpu", CPUS)
def test_layers_are_in_single_precision_where_floats_pay(
    cpu: str, patch: pytest.MonkeyPatch
) -> None:
    like(patch, *CPUS[cpu])
    pool = task(MaxPool(window(3, 2)), (64, 56, 56))
    rounded = "fp32" if CPUS[cpu][0] is FAST else "bf16"
    assert [settled(one).precision for one in (POINT, pool, MANY)] == [rounded] * 3
    assert [settled(one).precision for one in (FEW, ONE)] == ["bf16"] * 2
    plain = replace(POINT, precision="fp32")
    assert settled(plain) is plain


def making(net: str, batch: int, precision: str) -> Making:
    """How a net of the zoo would be done, with a zero for each weight."""
    graph = find.graph_of(net).without_aux()
    zeros = {n: np.broadcast_to(np.float32(0), p.shape) for n, p in graph.all_parameters().items()}
    low, weights = lowered(graph, zeros, lambda graph: fuse(graph, takes))
    return Making(low, weights, batch, 2, False, precision)


@pytest.mark.parametrize("batch", [1, 8])
def test_a_net_goes_as_in_single_precision_where_floats_pay(
    batch: int, patch: pytest.MonkeyPatch
) -> None:
    """The same algorithms and chains, with weights alone rounded where few places read them."""
    like(patch, FAST, True)
    plain, less = (making("googlenet", batch, precision) for precision in ("fp32", "bf16"))
    assert [task.node for task in less.tasks.values()] == [
        task.node for task in plain.tasks.values()
    ]
    assert [chain.names for chain in less.striped] == [chain.names for chain in plain.striped]
    assert {n for n, t in less.tasks.items() if t.precision == "bf16"} == {"fc1"}
    convolutions = [n for n, t in less.tasks.items() if isinstance(t.whole.base, Conv)]
    for name in convolutions:
        assert choices.choice(less.tasks[name]) == choices.choice(plain.tasks[name])


def test_a_net_goes_by_pairs_where_these_take_half_the_time(patch: pytest.MonkeyPatch) -> None:
    like(patch, WIDE, True)
    tasks = making("googlenet", 8, "bf16").tasks.values()
    assert any(isinstance(task.node.op, Rounded) for task in tasks)
    assert {task.precision for task in tasks} == {"bf16"}


def test_eight_samples_are_one_tile_where_pairs_are_slow() -> None:
    shape = by_cost(Kind.HALVED, 8, 1, [256], 2)[0].shape
    assert (shape == Shape(8, 3)) is twice()
