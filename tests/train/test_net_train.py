"""Training from Python: `net.train` and what it takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import netdsl
from netdsl import NetError
from netdsl.train import Callback, EpochReport
from train.made import examples, spots

TEXT = "input 1x8x8; conv3p1(4) -> relu -> maxpool2 -> fc(3)"


class Seen(Callback):
    """Keeps what each epoch came to."""

    def __init__(self) -> None:
        self.epochs: list[EpochReport] = []

    def on_epoch(self, report: EpochReport) -> None:
        self.epochs.append(report)


def test_a_net_learns_from_arrays_and_then_knows(tmp_path: Path) -> None:
    net = netdsl.load(text=TEXT)
    pictures, labels = spots(60)
    seen = Seen()
    result = net.train(
        (pictures, labels),
        validation=spots(30, seed=1),
        callbacks=[seen],
        out=tmp_path / "w.safetensors",
        epochs=6,
        batch=10,
        rate=0.03,
        threads=1,
    )
    assert result.reason == "done"
    assert seen.epochs == result.history
    assert net.trained
    others, wanted = spots(30, seed=2)
    scores = net.run(others.astype(np.float32) / 255, threads=1)
    assert isinstance(scores, np.ndarray)
    assert (scores.argmax(1) == wanted).mean() > 0.9
    again = netdsl.load(text=TEXT, weights=tmp_path / "w.safetensors")
    np.testing.assert_array_equal(again.weights["fc1.weight"], net.weights["fc1.weight"])


def test_training_goes_on_from_the_nets_own_weights() -> None:
    net = netdsl.load(text=TEXT)
    settings = {"epochs": 2, "batch": 10, "rate": 0.03, "threads": 1}
    first = net.train(examples(), **settings).history[-1].loss
    second = net.train(examples(), **settings).history[0].loss
    assert second < first * 1.5
    fresh = net.train(examples(), fresh=True, **settings).history[0].loss
    assert fresh > second


def test_what_is_wrong_is_said() -> None:
    net = netdsl.load(text=TEXT)
    with pytest.raises(NetError, match="no setting 'epoch'") as raised:
        net.train(examples(), epoch=3)
    assert "did you mean epochs" in str(raised.value)
    with pytest.raises(NetError, match="the arrays holds 1x9x9"):
        net.train((np.zeros((4, 1, 9, 9), np.float32), np.zeros(4)), batch=2)
    with pytest.raises(NetError, match="4 inputs and 3 targets"):
        net.train((np.zeros((4, 1, 8, 8), np.float32), np.zeros(3)))
    with pytest.raises(NetError, match="there is no data"):
        net.train("nowhere")
