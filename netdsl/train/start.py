"""From what Python code gives to a trainer: `Net.train` stands on this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error
from netdsl.graph import Graph
from netdsl.ops.base import nearest
from netdsl.train.data import Data, Examples, open_data
from netdsl.train.loop import Trainer
from netdsl.train.settings import Settings

TrainingData = str | Path | Examples | tuple[NDArray[Any], NDArray[Any]]
"""A set's name, a path, examples, or arrays (inputs, targets)."""


def as_data(given: TrainingData) -> Data:
    """Data of any form. Raises NetError."""
    if isinstance(given, Examples):
        return Data(given)
    if isinstance(given, str | Path):
        return open_data(given)
    inputs, targets = (np.asarray(array) for array in given)
    if inputs.dtype != np.uint8:
        inputs = inputs.astype(np.float32)
    if targets.dtype.kind in "biu":
        targets = targets.astype(np.int64)
    return Data(Examples("the arrays", inputs, targets))


def settings_of(given: Mapping[str, Any]) -> Settings:
    """Settings by name. Raises NetError for a name that is none, with the nearest."""
    known = [field.name for field in fields(Settings)]
    for name in given:
        if name not in known:
            guess = nearest(name, known)
            raise error(
                "unknown-setting",
                f"training has no setting {name!r}",
                help=f"did you mean {guess}?" if guess else "one of " + ", ".join(known),
            )
    return Settings(**given)


def make_trainer(
    graph: Graph,
    data: TrainingData,
    validation: TrainingData | None,
    given: Mapping[str, Any],
    weights: Mapping[str, NDArray[np.float32]] | None,
    out: str | Path | None,
) -> Trainer:
    """A trainer of a graph. Raises NetError."""
    settings = settings_of(given)
    settings.check()
    found = as_data(data)
    train, tried = found.train, found.test
    if validation is not None:
        tried = as_data(validation).train
    elif settings.validation:
        train, tried = train.split(settings.validation, settings.seed)
    return Trainer(
        graph,
        settings,
        train,
        tried,
        weights=weights,
        out=None if out is None else Path(out),
        keep_best=bool(settings.validation),
    )
