"""Idioms as PyTorch's exporter writes them: each becomes the words that a person would write."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from netdsl.backend import run
from netdsl.formats.onnx import Imported, import_onnx

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

pytestmark = pytest.mark.filterwarnings("ignore")


class Layers(nn.Module):  # type: ignore[misc]
    """Named layers and a function of them and the input."""

    def __init__(self, forward: Callable[[Any, Any], Any], **layers: Any) -> None:
        super().__init__()
        self.how = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Any) -> Any:
        return self.how(self, x)


def shuffled(m: Any, x: Any) -> Any:
    x = m.conv(x)
    n, c, h, w = x.size()
    return m.last(x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w))


def squeezed(m: Any, x: Any) -> Any:
    """Squeeze and excite by fully connected layers."""
    x = m.conv(x)
    gate = F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1)
    gate = torch.sigmoid(m.b(F.relu(m.a(gate)))).view(x.size(0), -1, 1, 1)
    return x * gate.expand_as(x)


def by_mean(m: Any, x: Any) -> Any:
    x = m.conv(x)
    return x * torch.sigmoid(m.b(F.relu(m.a(x.mean((2, 3))))))[:, :, None, None]


def channels_last(m: Any, x: Any) -> Any:
    return m.b(F.relu(m.a(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)


def flattened_last(m: Any, x: Any) -> Any:
    x = m.conv(x).permute(0, 2, 3, 1)
    return m.fc(x.reshape(x.shape[0], -1))


def gates(m: Any, x: Any) -> Any:
    return F.silu(x) + F.hardswish(x) + F.hardsigmoid(x) + F.relu6(x) + x * F.relu6(x + 3) / 6


def enlarged(m: Any, x: Any) -> Any:
    size = (x.shape[2] * 2, x.shape[3] * 2)
    return F.interpolate(x, scale_factor=2, mode="bilinear") + F.interpolate(x, size=size)


def c(*arguments: Any, **settings: Any) -> Any:
    return nn.Conv2d(*arguments, **settings)


CASES: dict[str, tuple[Any, tuple[int, ...], str]] = {
    "shuffle": (
        lambda: Layers(shuffled, conv=c(3, 8, 3), last=c(8, 8, 1, groups=2)),
        (3, 9, 9),
        "conv3x3(8) -> shuffle(2) -> conv1x1g2(8)",
    ),
    "gelu": (lambda: Layers(lambda m, x: F.gelu(x)), (3, 9, 9), "gelu"),
    "gelu tanh": (
        lambda: Layers(lambda m, x: F.gelu(x, approximate="tanh")),
        (3, 9, 9),
        "gelu(tanh)",
    ),
    "gates": (
        lambda: Layers(gates),
        (3, 9, 9),
        "silu -> hswish -> add -> hsigmoid -> add -> relu6 -> add -> hswish -> add",
    ),
    "squeeze": (
        lambda: Layers(squeezed, conv=c(3, 8, 3), a=nn.Linear(8, 4), b=nn.Linear(4, 8)),
        (3, 9, 9),
        "conv3x3(8) -> gap -> conv1x1(4) -> relu -> conv1x1(8) -> sigmoid -> mul",
    ),
    "squeeze by mean": (
        lambda: Layers(by_mean, conv=c(3, 8, 3), a=nn.Linear(8, 4), b=nn.Linear(4, 8)),
        (3, 9, 9),
        "conv3x3(8) -> gap -> conv1x1(4) -> relu -> conv1x1(8) -> sigmoid -> mul",
    ),
    "group norm": (
        lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True)),
        (4, 9, 9),
        "gn2 -> in",
    ),
    "channels last": (
        lambda: Layers(channels_last, a=nn.Linear(3, 8), b=nn.Linear(8, 5)),
        (3, 9, 9),
        "conv1x1(8) -> relu -> conv1x1(5)",
    ),
    "flattened last": (
        lambda: Layers(flattened_last, conv=c(3, 8, 3, stride=2), fc=nn.Linear(128, 5)),
        (3, 9, 9),
        "conv3x3s2(8) -> fc(5)",
    ),
    "upsampling": (lambda: Layers(enlarged), (3, 5, 6), "up2(bilinear) -> up2 -> add"),
    "vectors": (
        lambda: nn.Sequential(
            nn.Linear(10, 6), nn.BatchNorm1d(6), nn.LayerNorm(6), nn.LogSoftmax(1)
        ),
        (10,),
        "fc(6) -> bn -> ln -> log_softmax",
    ),
    "signal": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 6, 3, dilation=2, padding=2),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose1d(6, 2, 4, stride=2, padding=1, output_padding=1),
            nn.PReLU(2),
            nn.AvgPool1d(3, 2, 1),
        ),
        (3, 20),
        "conv3p2d2(6) -> leaky(0.2) -> tconv4s2p1(2, out_pad=1) -> prelu"
        " -> avgpool3s2p1(count_pad=yes)",
    ),
    "one axis": (
        lambda: Layers(
            lambda m, x: m.conv(x.unsqueeze(1)).mean(3), conv=c(1, 6, (3, 5), padding=(1, 2))
        ),
        (12, 20),
        "conv3x5p1x2(6) -> avgpool1x20",
    ),
    "classifier": (
        lambda: nn.Sequential(
            c(3, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1, ceil_mode=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(8, 4),
            nn.Softmax(1),
        ),
        (3, 9, 9),
        "",
    ),
}


class Residual(nn.Module):  # type: ignore[misc]
    """A block of ResNet-18 that halves the size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = c(4, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = c(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.down = nn.Sequential(c(4, 8, 1, stride=2, bias=False), nn.BatchNorm2d(8))

    def forward(self, x: Any) -> Any:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.down(x))


CASES |= {
    "residual": (Residual, (4, 9, 9), ""),
    "one group and all": (
        lambda: nn.Sequential(nn.GroupNorm(1, 4), nn.ReLU(), nn.GroupNorm(4, 4)),
        (4, 5, 6),
        "ln -> relu -> gn4",
    ),
    "response": (
        lambda: nn.Sequential(c(3, 8, 1), nn.LocalResponseNorm(5, 1e-3, 0.7, 2.0)),
        (3, 5, 6),
        "conv1x1(8) -> lrn5(alpha=0.001, beta=0.7)",
    ),
    "response of a signal": (
        lambda: nn.Sequential(nn.LocalResponseNorm(3), nn.ReLU()),
        (6, 9),
        "lrn3(k=1) -> relu",
    ),
    "bounds": (
        lambda: Layers(lambda m, x: m.a(x).clamp(min=0) + x.clamp(max=0), a=c(3, 3, 1)),
        (3, 5, 5),
        "",
    ),
    "a signal's classes": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 8, 5, stride=2),
            nn.BatchNorm1d(8),
            nn.SiLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(8, 3),
        ),
        (2, 40),
        "",
    ),
    "a volume": (
        lambda: nn.Sequential(
            nn.Conv3d(2, 4, 3, padding=1), nn.MaxPool3d(2), nn.AdaptiveAvgPool3d(1), nn.Flatten()
        ),
        (2, 6, 6, 4),
        "conv3x3x3p1(4) -> maxpool2 -> gap -> flatten",
    ),
    "enlarging": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(3, 4, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 4, 3, 2, 1, output_padding=1, groups=2),
        ),
        (3, 5, 5),
        "tconv4x4s2p1(4) -> relu -> tconv3x3s2p1g2(4, out_pad=1)",
    ),
    "adaptive": (
        lambda: nn.Sequential(c(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)),
        (3, 10, 10),
        "",
    ),
    "ceil": (
        lambda: nn.Sequential(
            nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
            nn.MaxPool2d(2, 2, ceil_mode=True),
        ),
        (3, 13, 11),
        "",
    ),
    "weight norm": (
        lambda: torch.nn.utils.parametrizations.weight_norm(c(3, 4, 3)),
        (3, 6, 6),
        "conv3x3(4)",
    ),
}


def exported(module: Any, x: Any, opset: int, open_batch: bool) -> onnx.ModelProto:
    """By way of TorchScript."""
    file = io.BytesIO()
    axes = {"x": {0: "N"}} if open_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (x,), file, input_names=["x"], opset_version=opset,
            dynamic_axes=axes, dynamo=False,
        )  # fmt: skip
    return onnx.load_model_from_string(file.getvalue())


def traced(module: Any, x: Any, opset: int, open_batch: bool) -> onnx.ModelProto:
    """By way of torch.export, PyTorch's exporter since 2.6."""
    pytest.importorskip("onnxscript")
    sizes = ({0: torch.export.Dim("N", min=1, max=64)},) if open_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, (x,), input_names=["x"], opset_version=opset,
            dynamic_shapes=sizes, dynamo=True, verbose=False,
        )  # fmt: skip
    model: onnx.ModelProto = program.model_proto
    return model


def words(found: Imported) -> str:
    return " -> ".join(node.op.word() for node in found.graph.nodes[1:])


WAYS: list[Any] = [
    (exported, 17, True),
    (exported, 11, False),
    (exported, 20, True),
    pytest.param(traced, 18, True, marks=pytest.mark.slow),
    pytest.param(traced, 23, False, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("export", "opset", "open_batch"), WAYS)
@pytest.mark.parametrize("name", CASES)
def test_as_exported(name: str, export: Any, opset: int, open_batch: bool) -> None:
    make, shape, expected = CASES[name]
    torch.manual_seed(0)
    module = make()
    for values in (*module.parameters(), *module.buffers()):
        if values.is_floating_point():
            values.data = values.data + 0.2 * torch.rand_like(values)
    module.eval()
    x = torch.randn(2, *shape)
    found = import_onnx(export(module, x, opset, open_batch))
    folded = export is traced and "bn" in expected
    if expected and not folded:
        assert words(found).replace("ln(affine=no)", "ln") == expected
    count = 3 if open_batch else 2
    x = torch.randn(count, *shape)
    (ours,) = run(found, {"x": x.numpy()}, "reference")
    theirs = module(x).detach().numpy()
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
