"""Every op's gradient on the CPU kernels against central differences in float64."""

from __future__ import annotations

import numpy as np
import pytest

from netdsl import lang
from netdsl.graph import Graph
from netdsl.graph.weights import initialise
from netdsl.train.central import ends, outputs, slope
from netdsl.train.gradients import TrainingPlan

# Each net begins with something learned, so that the op in its middle sends a gradient back.
NETS = {
    "conv": "input 3x6x7; conv3x3p1(18) -> conv3x2s2x1(5)",
    "winograd": "input 3x9x10; conv3p1(18) -> conv3p1(33) -> relu -> conv3(17) -> conv5p2(16)",
    "winograd by filters": "input 9x16x16; conv1(40) -> conv3p1(50)",
    "winograd 5x5": "input 9x13x14; conv1(20) -> conv5p2(40)",
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
    _check(lang.load(NETS[name]), batch=3, threads=2)
