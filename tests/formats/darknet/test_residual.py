"""The authors' residual nets, whose shortcuts change shape, against a Darknet of a few lines."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

import netdsl
from netdsl.cli.main import main

Section = tuple[str, dict[str, str]]


def sections(text: str) -> list[Section]:
    found: list[Section] = []
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("["):
            found.append((line.strip("[]"), {}))
        elif line:
            key, _, value = line.partition("=")
            found[-1][1][key.strip()] = value.strip()
    return found


def convolved(x: np.ndarray, weight: np.ndarray, stride: int, pad: int, groups: int) -> np.ndarray:
    """x (C, H, W), weight (F, C / groups, k, k)."""
    filters, each, k, _ = weight.shape
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    h, w = ((n - k) // stride + 1 for n in x.shape[1:])
    parts = weight.reshape(groups, filters // groups, each, k, k)
    out = np.zeros((groups, filters // groups, h, w))
    for i in range(k):
        for j in range(k):
            seen = x[:, i : i + stride * h : stride, j : j + stride * w : stride]
            out += np.einsum("gfc,gchw->gfhw", parts[..., i, j], seen.reshape(groups, each, h, w))
    return out.reshape(filters, h, w)


def added(x: np.ndarray, other: np.ndarray) -> np.ndarray:
    """shortcut_cpu: x with what fits of another layer's output."""
    stride = max(other.shape[1] // x.shape[1], 1)
    channels = min(x.shape[0], other.shape[0])
    x = x.copy()
    x[:channels] += other[:channels, ::stride, ::stride]
    return x


def outputs(net: list[Section], numbers: np.ndarray, x: np.ndarray) -> np.ndarray:
    """What Darknet gives for a picture, from a file's numbers."""
    made: list[np.ndarray] = []
    at = 0

    def take(*shape: int) -> np.ndarray:
        nonlocal at
        at += int(np.prod(shape))
        return numbers[at - int(np.prod(shape)) : at].reshape(shape).astype(np.float64)

    for kind, s in net[1:]:
        if kind == "convolutional":
            f, k, groups = int(s["filters"]), int(s["size"]), int(s.get("groups", 1))
            normed = s.get("batch_normalize") == "1"
            bias = take(f)
            scale, mean, var = (take(f) if normed else np.ones(f) for _ in range(3))
            weight = take(f, x.shape[0] // groups, k, k)
            x = convolved(x, weight, int(s["stride"]), k // 2 * int(s["pad"]), groups)
            if normed:
                x = (x - mean[:, None, None]) / (np.sqrt(var) + 1e-6)[:, None, None]
                x = x * scale[:, None, None]
            x = x + bias[:, None, None]
        elif kind == "maxpool":
            assert (s["size"], s["stride"]) == ("2", "2")
            c, h, w = x.shape
            x = x.reshape(c, h // 2, 2, w // 2, 2).max((2, 4))
        elif kind == "shortcut":
            x = added(x, made[int(s["from"])])
        elif kind == "avgpool":
            x = x.mean((1, 2), keepdims=True)
        else:
            assert kind == "softmax"
            x = np.exp(x - x.max()) / np.exp(x - x.max()).sum()
        if s.get("activation") == "leaky":
            x = np.where(x > 0, x, 0.1 * x)
        made.append(x)
    assert at == len(numbers)
    return x


def drawn(net: list[Section]) -> np.ndarray:
    """Numbers for all layers in a file's order: biases, scales, means, variances, weights."""
    random = np.random.default_rng(0)
    channels, found = int(net[0][1]["channels"]), []
    for kind, s in net[1:]:
        if kind == "convolutional":
            f, k, each = int(s["filters"]), int(s["size"]), channels // int(s.get("groups", 1))
            found.append(random.normal(0, 0.1, f))
            if "batch_normalize" in s:
                found += [random.uniform(0.3, 1, f), random.normal(0, 0.1, f)]
                found.append(random.uniform(0.5, 1.5, f))
            found.append(random.normal(0, (each * k * k) ** -0.5, f * each * k * k))
            channels = f
    return np.concatenate(found).astype(np.float32)


@pytest.mark.parametrize("name", ["resnet50", pytest.param("resnext50", marks=pytest.mark.slow)])
def test_raw_weights(name: str, shared: Path, tmp_path: Path) -> None:
    """The same results from the file that import writes, and from the raw one given to its text."""
    text = (shared / "data/netdefs/darknet" / f"{name}.cfg").read_text()
    text = text.replace("height=256", "height=32").replace("width=256", "width=32")
    described = sections(text)
    numbers = drawn(described)
    cfg, raw, out = (tmp_path / f"a.{ending}" for ending in ("cfg", "weights", "net"))
    cfg.write_text(text)
    raw.write_bytes(struct.pack("<3iq", 0, 2, 0, 7) + numbers.tobytes())
    assert main_ends_well("import", str(cfg), "--weights", str(raw), "-o", str(out))
    x = np.random.default_rng(1).random((3, 32, 32))
    right = outputs(described, numbers, x)[:, 0, 0]
    net, again = netdsl.load(out), netdsl.load(out, weights=raw)
    ours = net.run(x[None].astype(np.float32), device="reference")
    np.testing.assert_allclose(np.ravel(np.asarray(ours)), right, rtol=1e-4)
    assert net.weights.keys() == again.weights.keys()
    for key, values in net.weights.items():
        np.testing.assert_array_equal(values, again.weights[key])
    assert right.max() > 2 * right.mean()


def main_ends_well(*words: str) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["netdsl", *words])
        try:
            main()
        except SystemExit as end:
            return not end.code
    return True
