"""The reference against PyTorch, where it is installed, both in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import netdsl
from netdsl.graph import Graph
from netdsl.reference import initialise, interpret

torch = pytest.importorskip("torch")
F = torch.nn.functional
Tensors = dict[str, Any]

CASES: list[tuple[str, str, Callable[[Any, Tensors], Any]]] = [
    ("4x17", "conv3s2p2d2g2(6)", lambda x, w: F.conv1d(x, *w.values(), 2, 2, 2, 2)),
    (
        "4x9x8",
        "conv3x2s2x1p1x0(6, bias=no)",
        lambda x, w: F.conv2d(x, w["weight"], None, (2, 1), (1, 0)),
    ),
    ("4x5x6x7", "dwconv3p1", lambda x, w: F.conv3d(x, *w.values(), 1, 1, 1, 4)),
    (
        "4x5x6",
        "tconv3s2p1g2(6, out_pad=1)",
        lambda x, w: F.conv_transpose2d(x, *w.values(), 2, 1, 1, 2),
    ),
    (
        "4x5x4x3",
        "tconv3x2x1s1x2x2d2x1x1(2)",
        lambda x, w: F.conv_transpose3d(x, *w.values(), (1, 2, 2), dilation=(2, 1, 1)),
    ),
    ("3x10x9", "maxpool3s2p1ceil", lambda x, w: F.max_pool2d(x, 3, 2, 1, ceil_mode=True)),
    ("3x10x9", "maxpool2x3s2x1d2x1", lambda x, w: F.max_pool2d(x, (2, 3), (2, 1), 0, (2, 1))),
    (
        "3x10x9",
        "avgpool3s2p1ceil(count_pad=yes)",
        lambda x, w: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    ),
    (
        "3x7x8x9",
        "avgpool3s3p1ceil",
        lambda x, w: F.avg_pool3d(x, 3, 3, 1, ceil_mode=True, count_include_pad=False),
    ),
    ("3x10x7", "avgpool(to=4x3)", lambda x, w: F.adaptive_avg_pool2d(x, (4, 3))),
    ("3x10x7", "gmp", lambda x, w: F.adaptive_max_pool2d(x, 1)),
    ("7x4", "lrn5", lambda x, w: F.local_response_norm(x, 5, 1e-4, 0.75, 2.0)),
    (
        "6x4x4",
        "bn(eps=0.01)",
        lambda x, w: F.batch_norm(x, w["mean"], w["var"], w["weight"], w["bias"], eps=0.01),
    ),
    ("6x4x4", "gn3", lambda x, w: F.group_norm(x, 3, w["weight"], w["bias"])),
    ("6x4x4", "ln(affine=no)", lambda x, w: F.layer_norm(x, x.shape[1:])),
    ("6x4x4", "in", lambda x, w: F.instance_norm(x, weight=w["weight"], bias=w["bias"])),
    ("6x4x4", "prelu", lambda x, w: F.prelu(x, w["weight"])),
    ("9", "gelu(tanh)", lambda x, w: F.gelu(x, approximate="tanh")),
    ("9", "hswish", lambda x, w: F.hardswish(x)),
    ("3x4x5", "up2x3", lambda x, w: F.interpolate(x, scale_factor=(2, 3))),
    (
        "3x4x5",
        "up3(bilinear)",
        lambda x, w: F.interpolate(x, scale_factor=3, mode="bilinear", align_corners=False),
    ),
    (
        "3x3x4x5",
        "up2(bilinear)",
        lambda x, w: F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False),
    ),
    ("3x6x5", "pad(2x3, end=1x0, mode=reflect)", lambda x, w: F.pad(x, (3, 0, 2, 1), "reflect")),
    ("6x4x4", "shuffle(3)", lambda x, w: F.channel_shuffle(x, 3)),
]


@pytest.mark.parametrize(("shape", "text", "peer"), CASES, ids=[case[1] for case in CASES])
def test_equals(shape: str, text: str, peer: Callable[[Any, Tensors], Any]) -> None:
    graph: Graph = netdsl.load(text=f"input {shape}; {text}").graph
    numbers = np.random.default_rng(0)
    weights = {n: v + numbers.uniform(0.1, 1, v.shape) for n, v in initialise(graph).items()}
    x = numbers.standard_normal((2, *graph["input"].shape))
    ours = interpret(graph, weights, {"input": x})[graph.outputs[0]]
    tensors = {n.rpartition(".")[2]: torch.from_numpy(v) for n, v in weights.items()}
    theirs = peer(torch.from_numpy(x), tensors).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
