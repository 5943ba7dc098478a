"""The loop: it learns, goes on bit for bit, stops when it should, and says what is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from netdsl import lang
from netdsl.faults import NetError, error
from netdsl.graph.weights import initialise
from netdsl.train import Callback, EpochReport, Examples, Settings, Stepper, StepReport, Trainer
from netdsl.train.checkpoint import read_checkpoint
from train.made import NET, examples, spots

GRAPH = lang.load(NET)
SETTINGS = Settings(epochs=4, batch=10, rate=0.02, augment="crop=1", threads=1, seed=3)


class Record(Callback):
    """Keeps every report; stops the trainer after so many steps."""

    def __init__(self, trainer: Trainer | None = None, stop_after: int = 0) -> None:
        self.steps: list[StepReport] = []
        self.epochs: list[EpochReport] = []
        self._trainer, self._stop_after = trainer, stop_after

    def on_step(self, report: StepReport) -> None:
        self.steps.append(report)
        if self._trainer is not None and len(self.steps) == self._stop_after:
            self._trainer.stop()

    def on_epoch(self, report: EpochReport) -> None:
        self.epochs.append(report)


def _vectors(trainer: Trainer) -> dict[str, np.ndarray]:
    return {**trainer.stepper.weights(), **trainer.stepper.state()}


def _same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_it_learns() -> None:
    trainer = Trainer(GRAPH, replace(SETTINGS, epochs=8), examples(), examples(30, seed=9))
    record = Record()
    result = trainer.run([record])
    assert result.reason == "done"
    assert len(record.steps) == 8 * 6
    assert record.epochs == result.history
    assert record.epochs[0].loss > record.epochs[-1].loss
    last = result.history[-1].validation_accuracy
    assert last is not None
    assert last > 0.9


@pytest.mark.parametrize("optimiser", ["momentum", "adamw"])
@pytest.mark.parametrize("stop_after", [4, 6, 14])
def test_goes_on_bit_for_bit(tmp_path: Path, optimiser: str, stop_after: int) -> None:
    """Stopped within an epoch or at its end, with dropout, batch norm and augmentation."""
    settings = replace(SETTINGS, optimiser=optimiser, validation=0.2)
    kept, held = examples().split(0.2, 0)
    through = Trainer(GRAPH, settings, kept, held)
    through.run()
    out = tmp_path / "w.safetensors"
    first = Trainer(GRAPH, settings, kept, held, out=out)
    result = first.run([Record(first, stop_after)])
    assert result.reason == "interrupted"
    second = Trainer(GRAPH, settings, kept, held, out=out)
    second.resume()
    assert second.stepper.count == stop_after
    assert second.run().reason == "done"
    _same(_vectors(through), _vectors(second))
    plain = [replace(report, seconds=0.0) for report in through.history]
    assert [replace(report, seconds=0.0) for report in second.history] == plain


def test_same_seed_same_bits() -> None:
    one, other = (Trainer(GRAPH, SETTINGS, examples()) for _ in range(2))
    one.run()
    other.run()
    _same(_vectors(one), _vectors(other))
    third = Trainer(GRAPH, replace(SETTINGS, seed=4), examples())
    third.run()
    assert not np.array_equal(one.stepper.plan.weights, third.stepper.plan.weights)


def test_two_threads_give_the_same_bits_each_time() -> None:
    settings = replace(SETTINGS, threads=2, epochs=1)
    one, other = (Trainer(GRAPH, settings, examples()) for _ in range(2))
    one.run()
    other.run()
    _same(_vectors(one), _vectors(other))


def test_stops_early_and_keeps_the_best(tmp_path: Path) -> None:
    """With a rate of zero nothing gets better, so patience runs out."""
    settings = replace(SETTINGS, rate=0.0, patience=2, epochs=9)
    graph = lang.load("input 1x8x8; fc(3)")
    trainer = Trainer(graph, settings, examples(), examples(30), out=tmp_path / "w.safetensors")
    result = trainer.run()
    assert result.reason == "stopped early"
    assert [report.best for report in result.history] == [True, False, False]


def test_nan_stops_with_the_layer_named(tmp_path: Path) -> None:
    settings = replace(SETTINGS, rate=1e30, schedule="constant")
    trainer = Trainer(GRAPH, settings, examples(), out=tmp_path / "w.safetensors")
    with pytest.raises(NetError, match=r"the loss is \w+ at step \d+: \w+ is the first layer"):
        trainer.run()


def test_a_card_that_fails_leaves_a_checkpoint_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(GRAPH, SETTINGS, examples(), out=tmp_path / "net.safetensors")
    step = trainer.stepper.step

    def failing(*given: object) -> object:
        if trainer.stepper.count == 8:  # in the second epoch of 6 steps
            raise error("card-lost", "the card failed", help="run anew")
        return step(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer.stepper, "step", failing)
    with pytest.raises(NetError, match="the card failed") as caught:
        trainer.run()
    (fault,) = caught.value.faults
    assert str(trainer.checkpoint_path) in (fault.help or "")
    assert "after epoch 1:" in (fault.help or "")
    again = Trainer(GRAPH, SETTINGS, examples(), out=tmp_path / "net.safetensors")
    again.resume()
    again.run()
    whole = Trainer(GRAPH, SETTINGS, examples())
    whole.run()
    _same(_vectors(again), _vectors(whole))


def test_before_the_first_checkpoint_an_error_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(GRAPH, SETTINGS, examples(), out=tmp_path / "net.safetensors")
    fault = error("card-lost", "the card failed", help="run anew")

    def failing(*given: object) -> object:
        raise fault

    monkeypatch.setattr(trainer.stepper, "step", failing)
    with pytest.raises(NetError) as caught:
        trainer.run()
    assert caught.value is fault


def test_interrupt_saves(tmp_path: Path) -> None:
    trainer = Trainer(GRAPH, SETTINGS, examples(), out=tmp_path / "w.safetensors")

    class Interrupt(Callback):
        def on_step(self, report: StepReport) -> None:
            if report.step == 2:
                os.kill(os.getpid(), signal.SIGINT)

    assert trainer.run([Interrupt()]).reason == "interrupted"
    found = read_checkpoint(tmp_path / "w.checkpoint", GRAPH)
    assert found.facts["count"] in (2, 3)


def test_killed_while_saving_loses_nothing(tmp_path: Path) -> None:
    """kill -9 at any moment, saving after every step: the checkpoint is whole, and goes on."""
    program = f"""
import numpy as np
from pathlib import Path
from netdsl import lang
from netdsl.train import Examples, Settings, Trainer
rng = np.random.default_rng(0)
data = Examples("noise", rng.normal(size=(40, 1, 8, 8)).astype(np.float32), np.arange(40) % 3)
graph = lang.load({NET!r})
settings = Settings(epochs=100000, batch=10, threads=1)
Trainer(graph, settings, data, out=Path("w.safetensors"), save_every=1).run()
"""
    child = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path)
    checkpoint = tmp_path / "w.checkpoint"
    try:
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        assert child.poll() is None, "it ended by itself"
    finally:
        child.kill()
        child.wait()
    found = read_checkpoint(checkpoint, GRAPH)
    assert found.facts["count"] >= 1
    settings = Settings.from_dict(found.facts["settings"])
    rng = np.random.default_rng(0)
    data = Examples("noise", rng.normal(size=(40, 1, 8, 8)).astype(np.float32), np.arange(40) % 3)
    again = Trainer(GRAPH, settings, data, out=tmp_path / "w.safetensors")
    again.resume()
    straight = Trainer(GRAPH, settings, data)
    count = again.stepper.count
    straight.run([Record(straight, count)])
    _same(_vectors(again), _vectors(straight))


def test_a_resume_from_another_nets_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    trainer = Trainer(GRAPH, replace(SETTINGS, epochs=1), examples(), out=out)
    trainer.run()
    other = lang.load("net other; " + NET)
    with pytest.raises(NetError, match=r"is a checkpoint of the net .*, not of other"):
        read_checkpoint(tmp_path / "w.checkpoint", other)
    changed = lang.load(NET.replace("fc(16)", "fc(17)"))
    with pytest.raises(NetError, match=r"as it was: fc1\.weight is 17x64 now, the checkpoint has"):
        read_checkpoint(tmp_path / "w.checkpoint", changed)
    with pytest.raises(NetError, match="no checkpoint: it holds weights alone"):
        read_checkpoint(out, GRAPH)
    with pytest.raises(NetError, match="no weights file"):
        read_checkpoint(tmp_path / "none.checkpoint", GRAPH)
    with pytest.raises(NetError, match="was training on 60 examples"):
        Trainer(GRAPH, SETTINGS, examples(30), out=out).resume()
    whole = (tmp_path / "w.checkpoint").read_bytes()
    (tmp_path / "w.checkpoint").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(NetError, match="broken off"):
        read_checkpoint(tmp_path / "w.checkpoint", GRAPH)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"rate": -1.0}, "rate is -1"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"clip": 0.0}, "clip is 0"),
        ({"optimiser": "adom"}, "no optimiser 'adom'"),
        ({"schedule": "cosin"}, "no schedule 'cosin'"),
        ({"loss": "mae"}, "no loss 'mae'"),
        ({"init": "zero"}, "no init 'zero'"),
        ({"smoothing": 0.1, "loss": "hinge"}, "smoothing is of cross_entropy"),
        ({"threads": 0}, "threads is 0"),
        ({"patience": 0}, "patience is 0"),
        ({"batch": 64}, "larger than the data"),
    ],
)
def test_settings_out_of_range(changes: dict[str, object], says: str) -> None:
    with pytest.raises(NetError, match=says):
        Trainer(GRAPH, replace(SETTINGS, **changes), examples())  # type: ignore[arg-type]


def test_classes_that_do_not_match() -> None:
    graph = lang.load("input 1x8x8; fc(4)")
    with pytest.raises(NetError, match=r"spots has 3 classes, .* has 4 outputs"):
        Trainer(graph, SETTINGS, examples())
    pictures, labels = spots(20)
    unnamed = Examples("unnamed", pictures, labels)
    Trainer(graph, SETTINGS, unnamed)
    with pytest.raises(NetError, match=r"unnamed has label 2, .* has 2 outputs"):
        Trainer(lang.load("input 1x8x8; fc(2)"), SETTINGS, unnamed)


def test_batch_norm_with_one_value_a_channel() -> None:
    graph = lang.load("input 1x8x8; fc(4) -> bn -> fc(3)")
    with pytest.raises(NetError, match="bn1 normalises over the batch, and a batch of 1"):
        Trainer(graph, replace(SETTINGS, batch=1, augment=""), examples())


def test_several_inputs_are_for_the_stepper() -> None:
    graph = lang.load("input 4 as a; input 4 as b; [a + b] -> fc(3)")
    with pytest.raises(NetError, match="has 2 inputs"):
        Trainer(graph, SETTINGS, examples())
    stepper = Stepper(graph, initialise(graph), Settings(batch=2, threads=1))
    x = np.ones((2, 4), np.float32)
    losses = [stepper.step({"a": x, "b": x}, np.array([0, 1])).loss for _ in range(5)]
    assert losses == sorted(losses, reverse=True)


def test_a_stepper_for_floats() -> None:
    """A line is learned by mean squares, with the gradient clipped."""
    graph = lang.load("input 1; fc(1)")
    settings = Settings(
        batch=16, rate=0.1, loss="mse", decay=0.0, clip=5.0, schedule="constant", threads=1
    )
    stepper = Stepper(graph, initialise(graph), settings)
    x = np.linspace(-1, 1, 16, dtype=np.float32)[:, None]
    for _ in range(200):
        stepper.step(x, 3 * x - 1)
    found = stepper.weights()
    assert found["fc1.weight"].item() == pytest.approx(3, abs=1e-3)
    assert found["fc1.bias"].item() == pytest.approx(-1, abs=1e-3)


def test_auxiliary_heads_add_their_weighted_loss() -> None:
    graph = lang.load("input 6; fc(5) -> relu -> aux(weight=0.3) { fc(3) } -> fc(3)")
    stepper = Stepper(graph, initialise(graph), Settings(batch=4, threads=1))
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    labels = np.array([0, 1, 2, 0])
    outcome = stepper.step(x, labels)
    parts = {name: stepper.loss(score, labels)[0] for name, score in outcome.scores.items()}
    main, head = graph.outputs[0], graph.aux[0].output
    assert outcome.loss == pytest.approx(parts[main] + 0.3 * parts[head])


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    graph = lang.load("input 4000; dropout(0.3) as a -> fc(1) as b; output a, b")
    stepper = Stepper(graph, initialise(graph), Settings(batch=2, threads=1))
    x = np.ones((2, 4000), np.float32)
    drawn = [stepper.plan.forward({"input": x}, step=step)["a"] for step in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[0][0], drawn[0][1])
    share = float((drawn[0] == 0).mean())
    assert abs(share - 0.3) < 0.03  # four deviations of 8000 draws
    np.testing.assert_allclose(drawn[0][drawn[0] != 0], 1 / 0.7, rtol=1e-6)
    np.testing.assert_array_equal(stepper.plan.forward({"input": x})["a"], x)
