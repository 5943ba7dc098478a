"""Training: losses, optimisers, schedules, data, gradients on CPU and card, checkpoints."""

from netdsl.train.data import Augment, Batches, Data, Examples, open_data
from netdsl.train.evaluate import Verdict, evaluate
from netdsl.train.loop import Callback, EpochReport, Result, StepReport, Trainer
from netdsl.train.settings import Settings
from netdsl.train.stepper import Outcome, Stepper

__all__ = [
    "Augment",
    "Batches",
    "Callback",
    "Data",
    "EpochReport",
    "Examples",
    "Outcome",
    "Result",
    "Settings",
    "StepReport",
    "Stepper",
    "Trainer",
    "Verdict",
    "evaluate",
    "open_data",
]
