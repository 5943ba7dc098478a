"""Proof on real input: GoogLeNet's published weights see what other engines see.

Expected numbers were made by onnxruntime in float32 from the same weights (see the shared data's
README).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import netdsl
from netdsl import Net
from netdsl.cli import app

PHOTOS = ("chelsea.png", "coffee.png", "rocket.jpg", "orange.png")
WEIGHTS = "data/weights/bvlc_googlenet_fp16.safetensors"
MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")

BLOBS = {
    "conv1_7x7_s2": "conv1",
    "pool1_3x3_s2": "maxpool1",
    "pool1_norm1": "norm1.lrn1",
    "conv2_3x3_reduce": "conv2",
    "conv2_3x3": "conv3",
    "conv2_norm2": "norm2.lrn1",
    "pool2_3x3_s2": "maxpool2",
    "pool3_3x3_s2": "maxpool3",
    "pool4_3x3_s2": "maxpool4",
    "pool5_7x7_s1": "gap1",
    "loss3_classifier": "fc1",
}
"""Caffe's blobs outside the modules, and our nodes."""

INSIDE = {
    "1x1": "conv1",
    "3x3_reduce": "conv2",
    "3x3": "conv3",
    "5x5_reduce": "conv4",
    "5x5": "conv5",
    "pool": "maxpool1",
    "pool_proj": "conv6",
    "output": "concat1",
}
"""Caffe's blobs of a module, and our nodes."""


@pytest.fixture(scope="module")
def net(shared: Path) -> Net:
    return netdsl.load("googlenet", weights=shared / WEIGHTS)


def test_weights_match_by_caffes_names(net: Net) -> None:
    assert sum(array.size for array in net.weights.values()) == 6_998_552


def test_the_four_photos(net: Net, shared: Path) -> None:
    expected = json.loads((shared / "data/expected/googlenet_top5.json").read_text())
    x = np.stack([net.read(shared / "data/photos" / name) for name in PHOTOS])
    logits = net.run(x)
    assert isinstance(logits, np.ndarray)
    for name, guesses in zip(PHOTOS, net.top(logits), strict=True):
        # Further down than 0.001 the order is no longer told by the figures that are given.
        sure = [entry for entry in expected[name] if entry[2] > 1e-3]
        assert [g.index for g in guesses[: len(sure)]] == [index for _, index, _ in sure]
        assert [g.label for g in guesses[: len(sure)]] == [label for label, _, _ in sure]
        scores = {g.index: g.score for g in guesses}
        for _, index, score in expected[name]:
            assert scores.get(index, 0.0) == pytest.approx(score, abs=1e-3)


def test_all_thousand_of_chelsea(net: Net, shared: Path) -> None:
    expected = np.load(shared / "data/expected/googlenet_chelsea.npz")
    logits = net.run(expected["input"])
    assert isinstance(logits, np.ndarray)
    found = {g.index: g.score for g in net.top(logits, 1000)[0]}
    np.testing.assert_allclose([found[i] for i in range(1000)], expected["prob"], atol=1e-4)


def test_83_blobs_of_an_orange(net: Net, shared: Path) -> None:
    expected = json.loads((shared / "data/expected/orange_layer_stats.json").read_text())
    nodes = BLOBS | {
        f"inception_{module}_{blob}": f"inception{module}.{node}"
        for module in MODULES
        for blob, node in INSIDE.items()
    }
    assert set(expected) == set(nodes)
    assert len(expected) == 83
    watched = Net(replace(net.graph.without_aux(), outputs=tuple(nodes[b] for b in expected)))
    watched.weights = net.weights
    found = watched.run(net.read(shared / "data/photos/orange.png")[None], device="reference")
    assert isinstance(found, dict)
    for blob, figures in expected.items():
        _check(blob, found[nodes[blob]][0], figures)


def _check(blob: str, values: Any, figures: dict[str, Any]) -> None:
    """Within 1%; a mean, where positive and negative cancel, within 1% of the spread."""
    assert list(values.shape) == figures["shape"], blob
    assert np.abs(values).max() == pytest.approx(figures["absmax"], rel=0.01), blob
    norm = np.sqrt((values.astype(np.float64) ** 2).sum())
    assert norm == pytest.approx(figures["l2"], rel=0.01), blob
    spread = figures["l2"] / np.sqrt(values.size)
    assert values.mean() == pytest.approx(figures["mean"], rel=0.01, abs=0.001 * spread), blob


def test_an_egyptian_cat_from_the_command_line(shared: Path) -> None:
    photo = shared / "data/photos/chelsea.png"
    words = ["run", "googlenet", str(photo), "--weights", str(shared / WEIGHTS)]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[1].split()[:3] == ["Egyptian", "cat", "49.5%"]
    assert found.stderr == ""
