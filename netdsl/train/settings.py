"""How a net is trained: everything but the net and the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from netdsl.faults import NetError, error
from netdsl.train.data.augment import Augment
from netdsl.train.losses import LOSSES, CrossEntropy, Loss
from netdsl.train.optimisers import OPTIMISERS, Adam, Momentum, Optimiser
from netdsl.train.schedules import SCHEDULES, Schedule

INITS = ("he", "xavier", "normal")
DEVICES = ("cpu", "cuda", "auto")
PRECISIONS = ("fp32", "tf32", "bf16")

PLACE = ("device", "precision")
"""The settings that say where and how steps are computed, and not what they are."""


@dataclass(frozen=True)
class Settings:
    """What decides a training run, together with the net, its first weights and the data.

    rate: the learning rate, the optimiser's own where None. decay: weight decay, of weights alone
    unless decay_all. clip: the largest norm of the gradient. warmup: steps in which the rate
    climbs. validation: the share of the training data held back. patience: epochs without a
    better validation accuracy (or loss) before stopping. augment: as `Augment.parse` takes it.
    device: "cpu", "cuda" for an NVIDIA card, "auto" for the card where there is one. precision:
    what the card may round factors to, "fp32", "tf32" or "bf16"; weights, sums and what the
    optimiser remembers are float32 always. A run may go on on another device and in another
    precision, so checkpoints have neither.
    """

    epochs: int = 10
    batch: int = 64
    optimiser: str = "momentum"
    rate: float | None = None
    momentum: float = 0.9
    decay: float = 5e-4
    decay_all: bool = False
    clip: float | None = None
    schedule: str = "cosine"
    warmup: int = 0
    loss: str = "cross_entropy"
    smoothing: float = 0.0
    augment: str = ""
    validation: float = 0.0
    patience: int | None = None
    init: str = "he"
    seed: int = 0
    threads: int | None = None
    device: str = "cpu"
    precision: str = "fp32"

    def check(self) -> None:
        """Raises NetError for a setting that is unknown or out of its range."""
        for what, value, known in (
            ("optimiser", self.optimiser, OPTIMISERS),
            ("schedule", self.schedule, SCHEDULES),
            ("loss", self.loss, LOSSES),
            ("init", self.init, INITS),
            ("device", self.device, DEVICES),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise error(
                    f"unknown-{what}",
                    f"there is no {what} {value!r}",
                    help="one of " + ", ".join(known),
                )
        for what, number, low, high in (
            ("epochs", self.epochs, 1, None),
            ("batch", self.batch, 1, None),
            ("rate", self.rate, 0, None),
            ("momentum", self.momentum, 0, 1),
            ("decay", self.decay, 0, None),
            ("warmup", self.warmup, 0, None),
            ("smoothing", self.smoothing, 0, 1),
            ("validation", self.validation, 0, 1),
            ("patience", self.patience, 1, None),
            ("seed", self.seed, 0, 2**31 - 1),
            ("threads", self.threads, 1, None),
        ):
            if number is not None and (
                number < low or (high is not None and number > high) or number != number
            ):
                raise _outside(what, number, low, high)
        if self.clip is not None and not self.clip > 0:
            raise error("out-of-range", f"clip is {self.clip}, it must be above 0")
        if self.smoothing and self.loss != "cross_entropy":
            raise error("out-of-range", f"smoothing is of cross_entropy, not of {self.loss}")
        Augment.parse(self.augment)

    def make_loss(self) -> Loss:
        """The loss that these settings name."""
        if self.loss == "cross_entropy":
            return CrossEntropy(self.smoothing)
        return LOSSES[self.loss]()

    def make_optimiser(self) -> Optimiser:
        """The optimiser that these settings name."""
        kind = OPTIMISERS[self.optimiser]
        if issubclass(kind, Momentum | Adam):
            return kind(keep=self.momentum)
        return kind()

    def make_schedule(self, steps: int) -> Schedule:
        """The schedule over a run of so many steps."""
        return Schedule(self.schedule, steps, self.warmup)

    @property
    def first_rate(self) -> float:
        """The learning rate before the schedule."""
        return OPTIMISERS[self.optimiser].rate if self.rate is None else self.rate

    def as_dict(self) -> dict[str, Any]:
        """The settings by name, for a checkpoint: all but those of `PLACE`."""
        return {name: value for name, value in asdict(self).items() if name not in PLACE}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **place: Any) -> Settings:
        """The settings that `as_dict` gave, with those of `PLACE` where they are given. Raises
        NetError where names do not match."""
        known = {field.name for field in fields(cls)} - set(PLACE)
        if set(values) != known:
            raise error("wrong-checkpoint", "the checkpoint's settings are of another version")
        return cls(**values, **place)


def _outside(what: str, number: float, low: float, high: float | None) -> NetError:
    bounds = f"at least {low}" if high is None else f"from {low} to {high}"
    return error("out-of-range", f"{what} is {number}, it must be {bounds}")
