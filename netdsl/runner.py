"""A plan made ready for any number of samples: checked, cut into batches, put together again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import NetError, error
from netdsl.graph import Graph
from netdsl.graph.timing import Timing
from netdsl.ops import Shape, show

Array = NDArray[Any]
Arrays = dict[str, Array]
Progress = Callable[[int, int, str], None]
"""Called while a plan is made: steps done, steps in all, what the next one is."""

DEVICES = ("cpu", "cuda", "reference")

PRECISIONS = ("fp32", "tf32", "bf16")
"""What factors are rounded to before they are multiplied; sums are float32 always."""

COMPUTES = {"cpu": ("fp32", "bf16"), "cuda": PRECISIONS, "reference": ("fp32",)}
"""The precisions of each device. The reference computes in float64, whatever is asked."""

FC_WEIGHTS = ("fp32", "bf16", "int8")
"""What the CPU may be asked to keep the weights of fully connected layers in."""

AUTO = "auto"
"""The card where there is one, else the CPU."""

ROOM = 256 << 20
"""Bytes of the largest activations, in and out of one layer, that a batch is chosen to fill."""

LARGEST_BATCH = 64


class Plan(Protocol):
    """What a device makes of a graph, weights and a batch."""

    def run(self, inputs: Mapping[str, Array]) -> Arrays: ...


@runtime_checkable
class Pipelined(Protocol):
    """A plan that runs many batches faster than one after the other."""

    def run_many(self, batches: Iterable[Mapping[str, Array]]) -> Iterator[Arrays]: ...


@runtime_checkable
class Profiled(Protocol):
    """A plan that can say how long its steps take."""

    @property
    def batch(self) -> int: ...

    def profile(self, inputs: Mapping[str, Array], repeats: int = 5) -> list[Timing]: ...


class Reference:
    """The plain interpreter as a plan: float64, any batch, slow, and right."""

    def __init__(self, graph: Graph, weights: Mapping[str, Array], aux: bool) -> None:
        self._graph, self._weights, self._aux = graph, weights, aux

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        from netdsl.reference import interpret

        return dict(interpret(self._graph, self._weights, inputs, aux=self._aux))


class Runner:
    """A graph with its weights on a device, for any number of samples.

    `batch` samples are computed at once; a last batch that is not full is filled up with zeros
    and those results are dropped. A batch of 0 computes none, has no plan, and gives empty results.
    """

    def __init__(
        self, graph: Graph, plan: Plan | None, batch: int, outputs: tuple[str, ...]
    ) -> None:
        self.graph, self.plan, self.batch, self.outputs = graph, plan, batch, outputs

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        """Outputs by name, each (N, *shape), for inputs by name, each (N, *shape).

        Raises NetError: an input missing or unknown, a shape that does not fit.
        """
        checked, count = check_inputs(self.graph, inputs)
        if count == 0 or self.plan is None:
            return {o: np.zeros((0, *self.graph[o].shape), np.float32) for o in self.outputs}
        starts = range(0, count, self.batch)
        pieces = ({n: x[i : i + self.batch] for n, x in checked.items()} for i in starts)
        parts: dict[str, list[Array]] = {output: [] for output in self.outputs}
        batches = (filled(piece, self.batch) for piece in pieces)
        for start, found in zip(starts, self._found(batches, len(starts)), strict=True):
            for output in self.outputs:
                parts[output].append(found[output][: count - start])
        return {o: p[0] if len(p) == 1 else np.concatenate(p) for o, p in parts.items()}

    def _found(self, batches: Iterable[Arrays], count: int) -> Iterable[Arrays]:
        """The outputs of each batch."""
        assert self.plan is not None
        if count > 1 and isinstance(self.plan, Pipelined):
            return self.plan.run_many(batches)
        return map(self.plan.run, batches)


def filled(inputs: Arrays, batch: int) -> Arrays:
    """Inputs, each (N, *shape), with zeros up to a full batch."""
    return {name: _filled(x, batch) for name, x in inputs.items()}


def _filled(x: Array, batch: int) -> Array:
    if len(x) == batch:
        return x
    return np.concatenate([x, np.zeros((batch - len(x), *x.shape[1:]), x.dtype)])


def roomy_batch(graph: Graph, count: int) -> int:
    """How many samples to compute at once where nobody says: at most `count`, and a power of 2
    whose activations stay small against the memory of any machine."""
    largest = max(prod(node.shape) for node in graph)
    room = max(1, min(LARGEST_BATCH, ROOM // (8 * largest)))
    return min(count, 1 << (room.bit_length() - 1))


def check_inputs(graph: Graph, inputs: Mapping[str, Array]) -> tuple[Arrays, int]:
    """The inputs as contiguous float32, and how many samples they hold. Raises NetError."""
    for name in inputs:
        if name not in graph.inputs:
            raise error(
                "unknown-input",
                f"{graph.name} has no input called {name}",
                help=f"its inputs: {', '.join(graph.inputs)}",
            )
    missing = [name for name in graph.inputs if name not in inputs]
    if missing:
        raise error("missing-input", f"{graph.name} also needs an array for {', '.join(missing)}")
    checked = {n: _checked(n, np.asarray(x), graph[n].shape) for n, x in inputs.items()}
    counts = {name: len(x) for name, x in checked.items()}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise error("wrong-shape", f"the inputs have different numbers of samples: {said}")
    return checked, next(iter(counts.values()), 0)


def _checked(name: str, x: Array, shape: Shape) -> Array:
    if x.dtype.kind not in "biuf":
        raise error("not-numbers", f"{name} is an array of {x.dtype}, not of numbers")
    if x.shape[1:] != shape:
        raise wrong_shape(name, x.shape, shape)
    return np.ascontiguousarray(x, np.float32)


def check_precision(precision: str, device: str, exact: bool) -> None:
    """That a device computes in a precision. Raises NetError where it does not, or where `exact`
    asks for all of float32's digits at once."""
    if precision not in PRECISIONS:
        raise error(
            "unknown-precision",
            f"there is no precision {precision}",
            help=f"precisions are {', '.join(PRECISIONS)}",
        )
    if precision not in COMPUTES[device]:
        raise error(
            "no-precision",
            f"the device {device} does not compute in {precision}",
            help=f"it computes in {' or '.join(COMPUTES[device])}; "
            f"{precision} is for {' or '.join(d for d in COMPUTES if precision in COMPUTES[d])}",
        )
    if exact and precision != "fp32":
        raise error(
            "two-precisions", f"exact keeps all of float32's digits, {precision} fewer of them"
        )


def check_fc_weights(fc_weights: str | None, device: str, exact: bool) -> None:
    """That weights of fully connected layers can be kept so on a device. Raises NetError where
    they cannot, or where `exact` asks for all of float32's digits at once."""
    if fc_weights is None:
        return
    if fc_weights not in FC_WEIGHTS:
        raise error(
            "unknown-precision",
            f"weights of fully connected layers are not kept in {fc_weights}",
            help=f"they are in {', '.join(FC_WEIGHTS)}",
        )
    if device != "cpu":
        raise error(
            "no-precision",
            f"the device {device} keeps weights of fully connected layers as its precision says",
            help="fc-weights is for the cpu",
        )
    if exact and fc_weights != "fp32":
        raise error(
            "two-precisions", f"exact keeps all of float32's digits, {fc_weights} fewer of them"
        )


def computed_in(precision: str, fc_weights: str | None) -> str:
    """What a net is computed in, in words."""
    return precision if fc_weights is None else f"{precision}, fc weights in {fc_weights}"


def wrong_shape(name: str, found: Shape, wanted: Shape) -> NetError:
    """The error for an array that does not fit an input, with both shapes."""
    hint = "one sample needs a batch axis too: x[None]" if found == wanted else None
    return error(
        "wrong-shape",
        f"{name} has shape {show(found) or 'of a single number'}, the net takes Nx{show(wanted)}",
        help=hint,
    )
