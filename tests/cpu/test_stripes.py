"""Layers in a chain that are done a stripe of rows at a time, beside the reference."""

from __future__ import annotations

import numpy as np
import pytest
from agree import drawn_inputs, drawn_weights, worst

from netdsl import Net, cpu
from netdsl.cpu import chains, place
from netdsl.lang import load
from netdsl.reference import interpret

TOLERANCE = 5e-5
"""Of three layers one after the other, in single precision."""


@pytest.fixture
def small(monkeypatch):
    """A cache so small that images of a test do not fit."""
    monkeypatch.setattr(chains, "ROOM", 6000)


def stripes(text, **how):
    """The names of the steps of a plan that are done in stripes."""
    graph = load(text)
    plan = cpu.compile(graph, drawn_weights(graph), **{"batch": 1, "threads": 2, **how})
    return [step.name for step in plan.steps if step.way.startswith("stripes")]


WIDENED = "conv1x1(32) -> relu6 -> dwconv3x3p1 -> relu6 -> conv1x1(12)"
NETS = {
    "widened": f"input 12x120x9; {WIDENED}",
    "widened, by two": f"input 12x121x10; {WIDENED.replace('3p1', '3s2p1')}",
    "with a residual": f"input 12x120x9; [id + {WIDENED}] -> [id + {WIDENED}]",
    "with a residual within": "input 32x120x9; [id + dwconv3p1 -> conv1(32)] -> relu -> conv1(16)",
    "from planes": "input 3x240x18; conv3x3s2p1(32) -> relu -> dwconv3x3p1 -> conv1x1(16)",
    "wide kernels": "input 16x120x9; conv1x1(32) -> dwconv5x5p2 -> dwconv5x5s2p2 -> conv1x1(8)",
    "padded below alone": "input 16x120x10; conv1x1(32) -> dwconv3x3s2same -> conv1x1(8)",
    "gaps": "input 16x150x9; conv1x1(32) -> conv1x1s2(32) -> conv1x1s3(16)",
    "dilated": "input 16x120x12; conv1x1(32) -> dwconv3x3p2d2 -> conv1x1(8)",
    "padded with more than the kernel": "input 16x120x9; conv1x1(32) -> dwconv3x3p4 -> conv1x1(8)",
    "a pool and a norm behind": "input 3x240x18; conv3x3s2p1(32) -> relu -> maxpool3s2ceil -> lrn5",
    "a norm between": "input 16x120x9; conv1x1(32) -> lrn5 -> maxpool3s2ceil -> conv3x3p1(16)",
    "a pool before": "input 32x240x9; maxpool3s1p1 -> conv1x1(16) -> lrn4 -> maxpool2s2",
    "means": "input 32x121x9; conv1x1(32) -> avgpool3s2p1(count_pad=yes) -> avgpool2ceil",
    "wide pools": "input 16x120x12; conv1x1(32) -> maxpool5s3p2 -> dwconv3x3p1 -> maxpool3s2d2p1",
    "as a branch": f"input 16x120x9; [conv1x1(16) | {WIDENED}] -> conv1x1(3)",
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", NETS)
def test_stripes_give_what_layers_give(small, name, threads, batch):
    assert stripes(NETS[name], threads=threads, batch=batch)
    assert worst(NETS[name], batch=batch, threads=threads, exact=True) < TOLERANCE


@pytest.mark.parametrize("seed", range(12))
def test_drawn_chains(monkeypatch, seed):
    monkeypatch.setattr(chains, "ROOM", 20000)
    random = np.random.default_rng(seed)
    layers = []
    for _ in range(random.integers(2, 5)):
        if random.random() < 0.4:
            words = ["maxpool3s2ceil", "maxpool3s1p1", "maxpool2", "avgpool3s1p1", "lrn5", "lrn6"]
            layers.append(str(random.choice(words)))
            continue
        head = str(random.choice(["dwconv", "conv"]))
        kernel, stride, padding = (int(n) for n in random.integers((1, 1, 0), (5, 3, 3)))
        filters = "(32)" if head == "conv" else ""
        layers.append(f"{head}{kernel}x{kernel}s{stride}p{padding}{filters} -> relu")
    size = int(random.integers(100, 150)), int(random.integers(30, 40))
    text = f"input 24x{size[0]}x{size[1]}; conv1x1(32) -> {' -> '.join(layers)}"
    batch, threads = (int(n) for n in random.integers(1, 3, 2))
    assert worst(text, batch=batch, threads=threads, exact=True) < TOLERANCE


@pytest.mark.parametrize("threads", [1, 2])
def test_pools_in_stripes_are_exact(small, threads):
    """NaN, infinities and all, above and below a stripe's edge too."""
    text = "input 24x150x9; maxpool3s1p1 -> maxpool3s2ceil -> maxpool2s1p1 -> maxpool3s2p1"
    graph = load(text)
    random = np.random.default_rng(threads)
    x = random.standard_normal((2, 24, 150, 9)).astype(np.float32)
    for value in (np.nan, np.inf, -np.inf):
        x[random.random(x.shape) < 0.003] = value
    assert stripes(text, threads=threads, batch=2) == ["maxpool1 to maxpool4"]
    (found,) = cpu.compile(graph, {}, batch=2, threads=threads).run({"input": x}).values()
    (wanted,) = interpret(graph, {}, {"input": x}).values()
    np.testing.assert_array_equal(found, wanted.astype(np.float32))


def test_the_input_is_alive_until_the_last_stripe(small):
    """What goes in is not written over by what comes out, though its last reader is done first."""
    text = NETS["widened"] + " -> gelu -> conv1x1(12)"
    assert stripes(text) == ["conv1 to conv2"]
    assert worst(text, batch=1, threads=1) < TOLERANCE


@pytest.mark.parametrize(
    "text",
    [
        "input 12x120x9; conv1x1(32) as a -> dwconv3x3p1 as b -> conv1x1(12) as c; output a, b, c",
        "input 12x120x9; conv1x1(32) -> [id | dwconv3x3p1] -> gap",
        "input 12x120x9; conv1x1(32) -> gelu -> dwconv3x3p1 -> gelu -> conv1x1(12)",
        "input 12x4000; conv1(32) -> dwconv3p1 -> conv1(12)",
    ],
)
def test_what_others_read_is_made_whole(small, text):
    assert stripes(text) == []
    assert worst(text) < TOLERANCE


def test_mobilenet_takes_a_third_of_the_memory(monkeypatch):
    """Of what it takes where each large tensor has memory of its own."""
    monkeypatch.setattr(place, "SHARED", 1 << 40)
    net = Net.load("mobilenet_v2")
    net.initialise()
    plan = cpu.compile(net.graph, net.weights, batch=1, threads=2)
    found = [step.name for step in plan.steps if step.way.startswith("stripes")]
    assert "deep1.conv1 to deep1.conv2" in found
    inputs = drawn_inputs(net.graph, 1, scale=1.0)
    (together,) = plan.run(inputs).values()
    monkeypatch.setattr(chains, "ROOM", 1 << 40)
    apart = cpu.compile(net.graph, net.weights, batch=1, threads=2)
    assert not any(step.way.startswith("stripes") for step in apart.steps)
    assert 3 * plan.arena_bytes < 1.5 * apart.arena_bytes
    (alone,) = apart.run(inputs).values()
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
