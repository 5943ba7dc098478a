"""Every op's gradient on the CPU kernels against central differences in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netdsl import lang
from netdsl.cpu.backward import winograd
from netdsl.faults import NetError
from netdsl.graph import Graph
from netdsl.graph.weights import initialise
from netdsl.train.central import ends, outputs, slope
from netdsl.train.gradients import TrainingPlan
from netdsl.train.losses import CrossEntropy

# Each net begins with something learned, so that the op in its middle sends a gradient back.
NETS = {
    "conv": "input 3x6x7; conv3x3p1(18) -> conv3x2s2x1(5)",
    "winograd": "input 3x9x10; conv3p1(18) -> conv3p1(33) -> relu -> conv3(17) -> conv5p2(16)",
    "winograd by filters": "input 9x16x16; conv1(40) -> conv3p1(50)",
    "winograd 5x5": "input 9x13x14; conv1(20) -> conv5p2(40)",
    "phases": "input 3x63x67; conv11s4p2(33) -> relu -> conv1(3)",
    "winograd strided": "input 9x29x31; conv1(20) -> conv2(33) -> conv3s2p1(24) -> conv5s2p2(18)",
    "conv 1D": "input 2x20; conv5p2(17) -> conv3s2(4)",
    "conv 3D": "input 2x4x5x6; conv3p1(4) -> conv2x3x2s1x2x1(3)",
    "wide 1x1": "input 20x5x5; conv1x1(40) -> conv1x1s2(33)",
    "dilated": "input 2x9x9; conv3d2p2(4) -> conv3d2x3p1(3)",
    "more padding than kernel": "input 9x5x5; conv3p1(4) -> conv2p2(3)",
    "uneven padding": "input 2x6x7; conv1(3) -> conv3x3p1(4, pad_end=2) -> conv4same(3)",
    "groups": "input 4x6x6; conv1(8) -> conv3p1g2(6) -> conv3s2p1g3(9)",
    "groups of whole blocks": "input 2x4x4; conv1(32) -> conv3p1g2(32)",
    "depthwise": "input 3x6x6; conv1(20) -> dwconv3p1 -> dwconv3s2p1 -> conv1(2)",
    "depthwise by two": "input 3x6x6; conv1(4) -> dwconv3p1(8) -> conv1(2)",
    "rows left over": "input 9x8x9; conv3s3(4) -> conv2s2(3)",
    "transposed": "input 9x4x5; conv1(3) -> tconv3s2p1(4) -> tconv2s2(2)",
    "transposed, more": "input 9x4x5; conv1(4) -> tconv3s2p1g2(4, out_pad=1) -> tconv3d2(3)",
    "transposed 1D, 3D": "input 9x3x2x2; conv1(3) -> tconv2s2(2) -> tconv1x3x2s1x2x1(2)",
    "fc": "input 50; fc(40) -> relu -> fc(11) -> fc(3)",
    "fc of many samples": "input 70; fc(21) -> fc(9)",
    "fc of a picture": "input 9x3x5; conv1(5) -> fc(7)",
    "bare layers": "input 9x4x4; conv3p1(4, bias=no) -> flatten -> fc(3, bias=no)",
    "max pool": "input 9x7x8; conv1(5) -> maxpool3s2p1 -> maxpool2",
    "ceil pools": "input 9x8x8; conv1(5) -> maxpool3s2ceil -> avgpool2s3ceil",
    "dilated pool": "input 9x8x8; conv1(5) -> maxpool2s1d2",
    "pools 1D": "input 9x13; conv1(5) -> maxpool3s2 -> avgpool2p1",
    "pools 3D": "input 9x4x4x5; conv1(3) -> maxpool2s1 -> avgpool2x1x3s1p0x0x1",
    "average pool": "input 9x7x8; conv1(5) -> avgpool3s2p1 -> avgpool2s1p1(count_pad=yes)",
    "adaptive": "input 9x7x8; conv1(5) -> avgpool(to=3x5)",
    "global": "input 9x3x4; conv1(5) -> [gap | gmp]",
    "bn": "input 9x4x5; conv1(20) -> bn -> conv1(3)",
    "bn of a vector": "input 9; fc(6) -> bn(affine=no) -> fc(3)",
    "ln": "input 9x4x5; conv1(20) -> ln -> conv1(3)",
    "ln of a vector": "input 9; fc(20) -> ln -> fc(3)",
    "in": "input 9x4x5; conv1(20) -> in -> conv1(3)",
    "gn": "input 9x4x5; conv1(20) -> gn4 -> gn2(affine=no) -> conv1(3)",
    "norms 1D, 3D": "input 9x3x2x2; conv1(4) -> bn -> gn2 -> in -> ln -> conv1(2)",
    "lrn": "input 9x2x3; conv1(20) -> lrn -> conv1(3)",
    "lrn of an even size": "input 9x2x3; conv1(7) -> lrn4(alpha=0.3, beta=0.6, k=1) -> conv1(3)",
    "relu": "input 9x4x4; conv1(5) -> relu -> conv1(3) -> relu",
    "straight": "input 9x5x5; conv1(20) -> relu6 -> conv1(5) -> leaky(0.2) -> prelu -> conv1(4)",
    "hard": "input 9x5x5; conv1(20) -> hsigmoid -> conv1(5) -> hswish -> conv1(4)",
    "curved": "input 9x3x3; conv1(6) -> elu(0.7) -> gelu -> gelu(tanh) -> silu",
    "from their output": "input 9x3x3; conv1(6) -> sigmoid -> conv1(4) -> tanh",
    "softmax": "input 9x3x3; conv1(20) -> softmax -> conv1(3) -> log_softmax",
    "concat": "input 9x4x4; conv1(3) -> [conv1(16) | conv3p1(5) | id | maxpool3s1p1] -> conv1(4)",
    "concat of blocks": "input 9x4x4; conv1(16) -> [conv1(16) -> relu | conv3p1(32)] -> conv1(4)",
    "add": "input 9x4x4; conv1(5) -> [id + conv3p1 -> relu + conv1] -> relu -> conv1(2)",
    "same twice": "input 9x4x4; conv1(5) -> [id + id] -> [id * id] -> conv1(2)",
    "gate": "input 9x4x4; conv1(6) -> [id * gap -> conv1x1(6) -> sigmoid] -> conv1(2)",
    "mask": "input 9x4x4; conv1(20) -> [id * conv1(1) -> sigmoid * id] -> conv1(2)",
    "nearest": "input 9x3x4; conv1(5) -> up2 -> conv1(3)",
    "bilinear": "input 9x3x4; conv1(5) -> up2x3(bilinear) -> conv1(3)",
    "bilinear 1D, 3D": "input 9x2x2x3; conv1(3) -> up2(bilinear) -> conv1(2)",
    "pad": "input 9x4x5; conv1(3) -> pad(1, value=2) -> pad(2, mode=reflect) -> pad(1, mode=edge)",
    "crop": "input 9x6x7; conv1(3) -> pad(-1) -> conv1(2)",
    "shuffle": "input 9x3x3; conv1(18) -> shuffle(3) -> conv1(4)",
    "heads": "input 9x4x4; conv3p1(5) as a -> aux(weight=0.3) { gap -> fc(3) } -> conv1(4) "
    "-> [id + a -> conv1(4)]",
    "outputs": "input 9x4x4; conv1(5) as a -> relu as b -> conv1(3) as c; output a, b, c",
}


def _pointed(graph: Graph, seed: int) -> dict[str, np.ndarray]:
    """Weights with nothing at zero or one, so that no term can hide."""
    rng = np.random.default_rng(seed)
    weights = initialise(graph, seed)
    return {
        name: (value + rng.uniform(0.1, 0.3, value.shape)).astype(np.float32)
        for name, value in weights.items()
    }


def _check(graph: Graph, batch: int, threads: int, seed: int = 0) -> None:
    weights = _pointed(graph, seed)
    rng = np.random.default_rng(seed + 1)
    x = {
        name: rng.normal(size=(batch, *graph[name].shape)).astype(np.float32)
        for name in graph.inputs
    }
    plan = TrainingPlan(graph, weights, batch=batch, threads=threads)
    found = plan.forward(x, step=0)
    expected = outputs(graph, weights, x)
    for end in ends(graph):
        scale = max(1.0, float(np.abs(expected[end]).max()))
        np.testing.assert_allclose(found[end], expected[end], rtol=0, atol=2e-5 * scale)
    pulls = {end: rng.normal(size=v.shape).astype(np.float32) for end, v in expected.items()}
    plan.backward(pulls)
    gradients = plan.gradients()
    for name, gradient in gradients.items():
        ways = [rng.normal(size=gradient.shape)]
        for index in rng.integers(0, gradient.size, 3):
            way = np.zeros(gradient.size)
            way[index] = 1.0
            ways.append(way.reshape(gradient.shape))
        scale = 1.0 + float(np.abs(gradient).max())
        for way in ways:
            wanted = slope(graph, weights, x, pulls, name, way)
            got = float((gradient.astype(np.float64) * way).sum())
            size = scale * float(np.sqrt((way**2).sum()))
            assert abs(got - wanted) < 3e-5 * size, (name, got, wanted)
    first = {name: value.copy() for name, value in gradients.items()}
    plan.forward(x, step=0)
    plan.backward(pulls)
    for name, value in plan.gradients().items():
        np.testing.assert_array_equal(value, first[name], err_msg="a second pass differs")


@pytest.mark.parametrize("name", NETS)
def test_gradient_is_the_slope(name: str) -> None:
    _check(lang.load(NETS[name]), batch=33 if "many" in name else 3, threads=2)


WORDS = (
    "conv{k}p1(5)",
    "conv{k}s2(18)",
    "conv{k}p1g2(4) -> conv1(6)",
    "tconv{k}s2p1(3)",
    "dwconv{k}p1",
    "maxpool{k}s1",
    "maxpool2s2ceil",
    "avgpool{k}s2p1",
    "bn",
    "ln",
    "gn2",
    "relu",
    "leaky",
    "silu",
    "tanh",
    "[id + conv1]",
    "[conv1(3) | id | maxpool3s1p1]",
    "[id * gap -> sigmoid]",
    "up2(bilinear)",
    "pad(1, mode=reflect)",
    "lrn3(alpha=0.2)",
)


@given(
    st.lists(st.integers(5, 7), min_size=1, max_size=3),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=4),
    st.integers(1, 3),
    st.integers(2, 4),
    st.integers(0, 99),
)
@settings(max_examples=12)
def test_random_nets(
    sizes: list[int], words: list[str], kernel: int, batch: int, seed: int
) -> None:
    spatial = "x".join(map(str, sizes if len(sizes) < 3 else [s - 2 for s in sizes]))
    chain = " -> ".join(word.format(k=kernel) for word in words)
    try:
        graph = lang.load(f"input 2x{spatial}; conv1(4) -> {chain} -> fc(3)")
    except NetError:
        return  # the words do not fit these sizes
    _check(graph, batch, threads=1 + seed % 2, seed=seed)


def test_winograd_in_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a layer of many tiles is done: 50 tiles at a time, the last chunk smaller."""
    monkeypatch.setattr(winograd, "MOST", 0)
    graph = lang.load("input 2x28x27; conv1(17) -> conv3p1(33)")
    found = winograd.planned(graph["conv2"].op, (17, 28, 27), (33, 28, 27), 3)
    assert found is not None
    assert 2 * found.chunk < found.tiles < 4 * found.chunk
    _check(graph, batch=3, threads=2)


def test_exact_takes_no_shortcut() -> None:
    """Winograd's gradients differ from the direct sums', but by no more than rounding."""
    graph = lang.load("input 3x12x12; conv3p1(24) -> conv3p1(32)")
    weights = initialise(graph, 0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 3, 12, 12)).astype(np.float32)
    pull = rng.normal(size=(4, 32, 12, 12)).astype(np.float32)
    found = []
    for exact in (True, False):
        plan = TrainingPlan(graph, weights, batch=4, threads=1, exact=exact)
        plan.forward({"input": x}, step=0)
        plan.backward({graph.outputs[0]: pull})
        found.append(plan.gradient.copy())
    direct, quick = found
    assert not np.array_equal(direct, quick)
    np.testing.assert_allclose(quick, direct, rtol=0, atol=3e-5 * np.abs(direct).max())


def test_agrees_with_torch() -> None:
    """A net of the usual layers, with a loss, against another's automatic gradients."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    graph = lang.load(
        "input 3x12x13; conv3p1g3(12) -> bn -> relu -> maxpool3s2ceil -> lrn -> "
        "conv3s2(20) -> gelu -> flatten -> fc(7)"
    )
    weights = _pointed(graph, 0)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 3, 12, 13)).astype(np.float32)
    labels = np.array([0, 6, 2, 3])
    plan = TrainingPlan(graph, weights, batch=4, threads=1)
    scores = plan.forward({"input": x}, step=0)["fc1"]
    loss, slopes = CrossEntropy()(scores, labels)
    plan.backward({"fc1": slopes})
    w = {name: torch.tensor(value, requires_grad=True) for name, value in weights.items()}
    y = functional.conv2d(torch.tensor(x), w["conv1.weight"], w["conv1.bias"], padding=1, groups=3)
    mean, var = torch.zeros(12), torch.ones(12)
    y = functional.batch_norm(y, mean, var, w["bn1.weight"], w["bn1.bias"], training=True)
    y = functional.max_pool2d(functional.relu(y), 3, 2, ceil_mode=True)
    y = functional.local_response_norm(y, 5, 1e-4, 0.75, 2.0)
    y = functional.gelu(functional.conv2d(y, w["conv2.weight"], w["conv2.bias"], stride=2))
    y = functional.linear(y.flatten(1), w["fc1.weight"], w["fc1.bias"])
    theirs = functional.cross_entropy(y, torch.tensor(labels))
    theirs.backward()
    assert loss == pytest.approx(theirs.item(), rel=1e-5)
    for name, gradient in plan.gradients().items():
        wanted = w[name].grad.numpy()
        scale = max(float(np.abs(wanted).max()), 0.1)  # a bias before a norm has no slope
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=2e-5 * scale, err_msg=name)
    moved = plan.parameters()
    start = weights["bn1.mean"]
    np.testing.assert_allclose(moved["bn1.mean"], 0.9 * start + mean.numpy(), rtol=0, atol=1e-6)
