"""Max pools give the numbers they read, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from agree import poison

from netdsl import cpu
from netdsl.cpu.views import striped_place
from netdsl.cpu.windows import STRIPES, even
from netdsl.graph.taps import axis_windows
from netdsl.lang import load
from netdsl.reference import interpret

WORDS = (
    *("maxpool3s1p1", "maxpool3s1", "maxpool3s2", "maxpool3s2ceil", "maxpool3s2p1"),
    *("maxpool3s2p1ceil", "maxpool2", "maxpool2ceil", "maxpool2s1", "maxpool2s2p1", "maxpool3"),
    *("maxpool3s1p2", "maxpool3s2p2", "maxpool2d2", "maxpool5s2p2", "maxpool1s2"),
)


def spoiled(shape, batch, seed):
    """Numbers with every kind of float among them."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((batch, *shape)).astype(np.float32)
    for value in (np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-41):
        x[random.random(x.shape) < 0.02] = value
    return x


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("word", WORDS)
def test_max_pools_are_exact(word, threads):
    for seed, (height, width) in enumerate([(3, 3), (4, 7), (14, 14), (13, 8), (28, 9), (5, 30)]):
        channels, batch = (16, 35, 200)[seed % 3], 1 + seed % 2
        graph = load(f"input {channels}x{height}x{width}; {word}")
        x = spoiled((channels, height, width), batch, seed)
        plan = cpu.compile(graph, {}, batch=batch, threads=threads)
        poison(plan)
        (found,) = plan.run({"input": x}).values()
        (wanted,) = interpret(graph, {}, {"input": x}).values()
        np.testing.assert_array_equal(found, wanted.astype(np.float32), f"{height}x{width}")


def test_max_pools_over_planes_are_exact():
    for seed, word in enumerate(("maxpool3s2p1", "maxpool3s1p1", "maxpool2", "maxpool3s2ceil")):
        graph = load(f"input 20x5x6x7; {word}")
        x = spoiled((20, 5, 6, 7), 2, seed)
        (found,) = cpu.compile(graph, {}, batch=2).run({"input": x}).values()
        (wanted,) = interpret(graph, {}, {"input": x}).values()
        np.testing.assert_array_equal(found, wanted.astype(np.float32), word)


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("maxpool3s1p1", (3, 1, 1, 1)),
        ("maxpool3s1", (3, 1, 0, 0)),
        ("maxpool3s2", (3, 2, 0, 0)),
        ("maxpool3s2ceil", (3, 2, 0, 1)),
        ("maxpool3s2p1", (3, 2, 1, 0)),
        ("maxpool2", (2, 2, 0, 0)),
        ("maxpool2ceil", (2, 2, 0, 0)),
        ("maxpool2s1", (0, 0, 0, 0)),
        ("maxpool3s1p2", (0, 0, 0, 0)),
        ("maxpool3s3", (0, 0, 0, 0)),
        ("maxpool3d2s1", (0, 0, 0, 0)),
    ],
)
def test_which_rows_have_windows_that_are_alike(word, wanted):
    (node,) = [n for n in load(f"input 16x8x8; {word}") if n.name == "maxpool1"]
    window, outputs = node.op.window, node.shape[2]
    assert even(axis_windows(window, 1, 8, outputs, False), window.dilation[1]) == wanted


def test_threads_share_rows_as_the_layers_around_do():
    """Each of two takes its own half of an image, of all channels, and both take all rows."""
    graph = load("input 64x28x28; maxpool3s1p1")
    plan = cpu.compile(graph, {}, batch=3, threads=2)
    d = next(call.d for step in plan.steps for call in step.calls)
    blocks, rows, work = 4, 28, 3 * 4 * 28
    places = [striped_place.made.py_func(d, item, d[STRIPES]) for item in range(work)]
    assert set(places) == {(n, b, 0, y) for n in range(3) for b in range(blocks) for y in range(28)}
    halves = [{(n, y < rows // 2) for n, _, _, y in places[i : i + 56]} for i in range(0, work, 56)]
    assert halves == [{(n, upper)} for n in range(3) for upper in (True, False)]
