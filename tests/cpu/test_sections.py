"""Layers that do some samples of a batch before the next, beside the reference."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pytest
from agree import drawn_inputs, drawn_weights, worst

from netdsl import Net, cpu
from netdsl.cpu import chains, place, plan, sections, tune, tuned
from netdsl.cpu.plan import Making
from netdsl.cpu.sections import Section
from netdsl.cpu.table import takes
from netdsl.graph.fused import fuse
from netdsl.graph.passes import lowered
from netdsl.lang import load
from netdsl.ops import Linear

TOLERANCE = 5e-5
"""Of some layers one after the other, by direct sums in single precision."""

BLOCK = "conv1x1(16) -> relu -> conv3x3p1(16) -> relu -> conv1x1(32)"
NETS = {
    "a row": "input 16x18x15; conv3x3p1(32) -> relu -> maxpool2 -> conv3x3p1(32) -> relu",
    "from planes": "input 3x40x31; conv3x3s2p1(32) -> relu -> maxpool3s2p1 -> conv1x1(32) -> gap",
    "phases": "input 3x48x48; conv7x7s2p3(64) -> relu -> maxpool3s2p1 -> conv1x1(32)",
    "residuals": f"input 32x13x20; [id + {BLOCK}] -> relu -> [id + {BLOCK}] -> relu -> gap",
    "joined": "input 16x13x13; [conv1x1(16) | conv3x3p1(32) | id] -> [id | conv1x1(5)] -> maxpool2",
    "stripes": "input 16x90x21; conv1x1(64) -> dwconv3x3p1 -> conv1x1(16) -> conv3x3p1(32)",
    "bends": "input 16x14x9; conv3x3p1(24) -> gelu -> lrn5 -> bn -> prelu -> conv3x3(8) -> softmax",
    "a volume": "input 4x8x12x12; conv3x3x3p1(32) -> relu -> maxpool2 -> conv3x3x3p1(16)",
    "back up": "input 16x9x9; conv3x3p1(32) -> tconv2x2s2(16) -> up2 -> conv3x3p1(8)",
    "to vectors": "input 16x9x9; conv3x3p1(8) -> maxpool3 -> flatten -> fc(30) -> relu -> fc(7)",
    "shown": "input 8x9x9; conv3x3p1(16) as a -> relu as b -> conv3x3p1(8) as c; output a, b, c",
}


@pytest.fixture
def drawn(monkeypatch):
    """Sections that are drawn, of units that are drawn: a function that starts with a seed."""

    def start(seed):
        random = np.random.default_rng(seed)

        def sections_of(graph, tasks, striped):
            units = [[t.node.name for t in u] for u in sections._units(graph, tasks, striped)]
            inside = random.random(len(units) - 1) < 0.4
            edges = [0, *np.flatnonzero(inside) + 1, len(units)]
            parts = [chain.from_iterable(units[a:b]) for a, b in pairwise(edges)]
            threads = next(iter(tasks.values())).threads
            return [Section(tuple(names), threads) for names in parts if random.random() < 0.8]

        monkeypatch.setattr(sections, "sections", sections_of)
        monkeypatch.setattr(chains, "ROOM", 6000)

    return start


@pytest.fixture
def small(monkeypatch):
    """A cache that keeps two samples of a test and not a batch, and calls without waiting."""
    known = sections.rates()._replace(kept=400_000)
    monkeypatch.setattr(sections, "rates", lambda: known)
    monkeypatch.setattr(sections, "WAIT", 0.0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NETS)
def test_drawn_sections_give_what_layers_give(drawn, name, seed):
    batch, threads = [(6, 2), (3, 1), (4, 2)][seed]
    drawn(100 * len(name) + seed)
    assert worst(NETS[name], batch=batch, threads=threads, exact=seed < 2) < TOLERANCE


ROW = "input 16x20x20; conv1x1(32) as a -> maxpool3s1p1 as b -> maxpool3s1p1 as c -> gap -> fc(9)"


def made(batch, threads, **how):
    """What a plan of ROW is made from."""
    graph = load(ROW)
    low, packed = lowered(graph, drawn_weights(graph), lambda g: fuse(g, takes))
    return Making(low, packed, batch, threads, **{"exact": False, **how})


def placed(batch, threads):
    """Where ROW's tensors lie."""
    making = made(batch, threads)
    return making.place(frozenset(making.graph.outputs))


def found(*args, **how):
    """The names of ROW's layers that do some samples at a time, and how many these are."""
    return [(section.names, section.samples) for section in made(*args, **how).sections]


def test_what_is_too_much_of_a_batch_is_done_by_samples(small):
    """ROW passes 51 kB of a sample from layer to layer, so two samples fit and 16 do not."""
    whole = ("a", "b", "c", "gap1")
    assert found(16, 2) == [(whole, 2)]
    assert found(15, 1) == [(whole, 1)]
    assert found(15, 2) == []  # threads would share a sample
    assert found(2, 1) == []  # fits as it is
    assert found(16, 16) == []
    assert found(64, 16) == []  # nor does a sample for each thread
    assert worst(ROW, batch=16, threads=2, exact=True) < TOLERANCE


def test_only_layers_in_single_precision_go_by_samples(small, monkeypatch):
    """As where pairs of bfloat16 are slow, and the last layer's weights alone are rounded."""
    halves = made(16, 2, precision="bf16")
    inside = [name for section in halves.sections for name in section.names]
    assert all(halves.tasks[name].precision == "fp32" for name in inside)

    def but_the_last(task):
        return task if isinstance(task.whole.base, Linear) else replace(task, precision="fp32")

    monkeypatch.setattr(plan, "settled", but_the_last)
    ((names, samples),) = found(16, 2, precision="bf16")
    assert (names[:4], samples) == (("a", "b", "c", "gap1"), 2)
    together = worst(ROW, batch=16, threads=2, precision="bf16")
    monkeypatch.setattr(sections, "sections", lambda *_: [])
    assert together == worst(ROW, batch=16, threads=2, precision="bf16") > TOLERANCE


def test_memory_is_for_the_samples_of_a_turn(small, monkeypatch):
    some = placed(16, 2)
    assert some.buffers["b"].batch == 2
    monkeypatch.setattr(sections, "sections", lambda *_: [])
    assert some.floats < 0.6 * placed(16, 2).floats


def test_weights_are_kept_once_for_all_turns(small, monkeypatch):
    graph = load(ROW)
    how = {"batch": 16, "threads": 2, "exact": True}
    some = cpu.compile(graph, drawn_weights(graph), **how)
    monkeypatch.setattr(sections, "sections", lambda *_: [])
    whole = cpu.compile(graph, drawn_weights(graph), **how)
    assert len(some.turns) > len(whole.turns)
    assert some.params_bytes == whole.params_bytes


def test_samples_of_threads_lie_apart(small):
    """All that a thread writes of a section's tensors lies before all that the other does."""
    buffers = [placed(16, 2).buffers[name] for name in ("a", "b", "c")]
    one, other = ([buffer.samples(n, 1) for buffer in buffers] for n in (0, 1))
    assert max(b.offset + b.floats for b in one) <= min(b.offset for b in other)


def test_a_turn_costs_what_weights_and_calls_cost(small, monkeypatch):
    monkeypatch.setattr(sections, "WAIT", 1e9)
    assert found(16, 2) == []


def test_what_was_tuned_is_for_whole_batches(small):
    """It neither ends a section nor is taken within one, nor are its layers measured."""
    key = tuned.layer(made(16, 2).tasks["a"])
    making = made(16, 2, choices={key: "direct 7x3"})
    assert making.tasks["a"].choice is None
    assert [section.names for section in making.sections] == [("a", "b", "c", "gap1")]
    graph = load(ROW)
    assert tune.tune(graph, drawn_weights(graph), 16, 2).layers == ()


def test_profile_tells_of_each_layer_once(small):
    graph = load(ROW)
    made = cpu.compile(graph, drawn_weights(graph), batch=16, threads=2)
    assert [step.name for step in made.steps if "at a time" in step.way] == ["a", "b", "c", "gap1"]
    inputs = drawn_inputs(graph, 16)
    (before,) = made.run(inputs).values()
    timings = made.profile(inputs, 2)
    assert [t.name for t in timings] == ["a", "b", "c", "gap1", "fc1"]
    assert all(t.least_ms > 0 for t in timings)
    (after,) = made.run(inputs).values()
    np.testing.assert_array_equal(before, after)


def test_resnet_takes_less_memory_and_gives_the_same(no_thirds, monkeypatch):
    """Than where each large tensor has memory of its own."""
    monkeypatch.setattr(place, "SHARED", 1 << 40)
    net = Net.load("resnet18")
    net.initialise()
    graph, weights = net.graph, net.weights
    inputs = drawn_inputs(graph, 8, scale=1.0)
    some = cpu.compile(graph, weights, batch=8, threads=2)
    assert "conv1" in [step.name for step in some.steps if "at a time" in step.way]
    (together,) = some.run(inputs).values()
    monkeypatch.setattr(sections, "sections", lambda *_: [])
    whole = cpu.compile(graph, weights, batch=8, threads=2)
    assert some.arena_bytes < 0.75 * whole.arena_bytes
    (wanted,) = whole.run(inputs).values()
    np.testing.assert_allclose(together, wanted, rtol=1e-4, atol=1e-5)
