"""From a classifier's outputs to probabilities, and to the classes they speak for."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netdsl import resources
from netdsl.faults import NetError, error
from netdsl.frozen import dataclass
from netdsl.graph import Graph
from netdsl.ops import (
    Dropout,
    Flatten,
    HardSigmoid,
    LogSoftmax,
    Op,
    Shape,
    Sigmoid,
    Softmax,
)
from netdsl.ops.base import nearest

Numbers = NDArray[np.floating]


@dataclass(frozen=True)
class Guess:
    """A class and the score a net gives it; `label` is None where the net names no classes."""

    index: int
    label: str | None
    score: float


def is_classifier(shape: Shape) -> bool:
    """Whether an output of this shape is a score a class: no spatial axis but of size 1."""
    return prod(shape[1:]) == 1


def probabilities(graph: Graph, output: str, values: Numbers) -> Numbers:
    """A classifier's outputs (N, classes) as probabilities.

    Softmax, unless the net ends in one (or in a sigmoid: each class for itself) already.
    """
    last = _last_op(graph, output)
    if isinstance(last, (Softmax, Sigmoid, HardSigmoid)):
        return values
    if isinstance(last, LogSoftmax):
        return np.exp(values)
    powers = np.exp(values - values.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _last_op(graph: Graph, output: str) -> Op:
    """The op that made an output, looking past those that only pass numbers on."""
    node = graph[output]
    while isinstance(node.op, (Flatten, Dropout)):
        node = graph[node.inputs[0]]
    return node.op


def top(scores: Numbers, k: int, labels: tuple[str, ...] | None) -> list[list[Guess]]:
    """The k highest of each row of (N, classes), best first; of equals the lower index."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return [
        [Guess(int(i), labels[i] if labels else None, float(row[i])) for i in order]
        for row, order in zip(scores, best, strict=True)
    ]


def labels_of(graph: Graph) -> tuple[str, ...] | None:
    """The class names that a net's `labels` line gives, None without one.

    Raises NetError: no such list or file, not text, or not as many as the first output has
    classes.
    """
    if graph.labels is None:
        return None
    path = _label_file(graph)
    try:
        names = resources.read_labels(path)
    except UnicodeDecodeError:
        raise error("not-text", f"the label file {path} is not UTF-8 text") from None
    except OSError as problem:
        raise error(
            "unreadable", f"the label file {path} cannot be read: {problem.strerror}"
        ) from None
    classes = graph[graph.outputs[0]].shape[0]
    if len(names) != classes:
        raise error(
            "wrong-labels",
            f"{graph.labels.name} names {len(names)} classes, {graph.name} has {classes} outputs",
        )
    return names


def _label_file(graph: Graph) -> Path:
    assert graph.labels is not None
    name = graph.labels.name
    if graph.labels.is_file:
        return (Path(graph.file).parent if graph.file else Path()) / name
    known = resources.label_lists()
    if name not in known:
        raise _unknown_list(name, known)
    return known[name]


def _unknown_list(name: str, known: dict[str, Path]) -> NetError:
    guess = nearest(name, known)
    return error(
        "no-such-labels",
        f"there is no list of class names called {name}",
        help=f"did you mean `{guess}`?" if guess else f"there are {', '.join(known)}",
    )
