"""What the planning of one node's way back knows, asks for, and is given.

As on the CPU (`netdsl.cpu.backward.task`), with names meaning the same. A training plan's memory:

- `params`: the learned vector from 0 on (every parameter in its own layout, beginning at a multiple
  of 16), then batch norms' running statistics, then what kernels read besides: constants, the decay
  of each block of 16 learned floats, and weights packed for the tiled kernels, which are gathered
  anew after every step.
- `arena`: the learned vector's gradient from 0 on, in the same order, zero between parameters; the
  optimiser's slots, each as long; the `NUMBERS` of a step; loss values; tensors of the way forward
  that are kept, as floats and packed; gradients, which take turns by their lifetimes, and before
  them in their place what the way back does not read; floats that a node keeps from its way forward
  to its way back; and last the scratch, `Task.scratch`, which nodes use in turn.
- `ints`: descriptors, and what the host writes before a step: its number, classes.

Kernels are those of `netdsl.cuda.launch.SIGNATURE`, and may write to params too. Tensors lie as
`netdsl.cuda.layout` says, samples `batch_stride` apart, gradients like what they belong to. A step
is one stream of launches in the order planned, so a kernel finds done whatever was before it. Sums
are in a fixed order: no atomics on floats, so that a seed gives the same bits again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from netdsl.cuda.layout import Buffer, Call, Floats
from netdsl.cuda.packing import NEVER, Packs
from netdsl.cuda.rounding import PER_WORD
from netdsl.cuda.task import Descriptors, Params, Task

RATE, UNBIAS, UNBIAS_SQUARES, SCALE, GO = range(5)
"""The numbers of a step, in the arena: the learning rate, Adam's 1 / (1 - keep^t) and that of its
squares, which the host writes; what the gradient is multiplied by (clipping), and 1 where every
loss is finite, else 0 and no weight may move, which kernels write."""
NUMBERS = 5

BLOCK = 16
"""Floats of the learned vector that have one weight decay."""

Calls = list[Call]
Result = TypeVar("Result")


@dataclass(frozen=True)
class BackPlaces:
    """Where things lie that `Task` does not say.

    gradient: of the node's output; its own kernels may write over it. gradients: of the inputs,
    None where nobody wants one. A kernel writes every float of a gradient; it adds to none (the
    plan adds where a tensor has several readers). A target may be the output's gradient itself
    where `Back.over` allows, or where the input is a branch of a concatenation or the output a
    flattened input; then there is nothing to move.

    kept: in the arena, as many floats as `Back.kept` asked for. weights: where params hold each
    parameter, in its own layout, statistics too. into: where in the arena each learned parameter's
    gradient goes; a kernel writes all of it. packed: where the output lies packed, if it does; then
    nobody but it need have the output. step: where in ints the number of the step stands, and
    after it the low and the high half of the run's seed.
    """

    inputs: tuple[Buffer, ...]
    output: Buffer
    gradient: Buffer
    gradients: tuple[Buffer | None, ...]
    kept: int
    weights: Mapping[str, int]
    into: Mapping[str, int]
    step: int
    packed: Buffer | None = None


def nothing(task: Task) -> int:
    """Of a node that keeps nothing."""
    return 0


class Back(NamedTuple):
    """How an op goes back.

    calls: the inputs' gradients and the parameters'. kept: floats that stay from the way forward
    to the way back. over: whether the first input's gradient may be written over the output's.
    forward: calls in place of those that `run` makes, for training and for trying (two lists); an
    op with parameters needs it unless its recipe only moves them (see `TrainedParams.record`).
    Places given to `forward` have no gradients. reads_input, reads_output: whether `calls` read
    the first input, or the output; where they do not, another op may write over it. packs: what its
    kernels do with packed tensors on the way forward. reads_packed: whether `calls` read the first
    input packed, and not its floats, where it lies so. relu_packed: whether they ask of the packed
    output what a relu in the layer took, where it lies so.
    """

    calls: Callable[[Task, BackPlaces], Calls]
    kept: Callable[[Task], int] = nothing
    over: bool = False
    forward: Callable[[Task, BackPlaces], tuple[Calls, Calls]] | None = None
    reads_input: bool = True
    reads_output: bool = True
    packs: Callable[[Task], Packs] = lambda task: NEVER
    reads_packed: Callable[[Task], bool] = lambda task: False
    relu_packed: Callable[[Task], bool] = lambda task: False


@dataclass(frozen=True)
class Learning:
    """How a net learns: what `LossTask` and `UpdateTask` are made of.

    takes_classes: whether the loss's targets are classes. shares: of each of the net's ends in the
    whole loss. slots: how many vectors the optimiser keeps. decay: of each block.
    """

    loss: str
    takes_classes: bool
    smoothing: float
    shares: Mapping[str, float]
    optimiser: str
    slots: int
    clip: float | None
    keep: float
    keep_squares: float
    eps: float
    decay: Floats


@dataclass(frozen=True)
class LossTask:
    """A loss to be planned for one output.

    name: as in `netdsl.train.losses`. scores: where the output lies. slope: where the loss's
    gradient in it goes, None where nobody wants it. targets: where they are, written by the host
    before the step: classes in ints, one a position, sample by sample; for the other losses floats
    in the arena, as the scores, samples next to each other. value: where in the arena the mean
    loss goes. share: what the gradient (and not the value) is multiplied by.
    """

    name: str
    scores: Buffer
    slope: Buffer | None
    targets: int
    value: int
    share: float
    smoothing: float
    scratch: Callable[[int], int]
    params: Params
    ints: Descriptors


@dataclass(frozen=True)
class UpdateTask:
    """An optimiser's step to be planned.

    name: as in `netdsl.train.optimisers`. length: of the learned vector, a multiple of `BLOCK`. In
    params: weights, and decay, one a block. In the arena: gradient, slots (in the optimiser's
    order), numbers, and the `losses` values from `values` on that decide `GO`. clip: the gradient's
    largest norm. keep, keep_squares, eps: the optimiser's own, where it has them.
    """

    name: str
    length: int
    weights: int
    decay: int
    gradient: int
    slots: tuple[int, ...]
    numbers: int
    values: int
    losses: int
    clip: float | None
    keep: float
    keep_squares: float
    eps: float
    scratch: Callable[[int], int]
    params: Params
    ints: Descriptors


class Moved(NamedTuple):
    """Weights that a packing moved, to `start` in params on: the place of each, -1 for what is none
    and stays. precision: what they are rounded to on the way; bfloat16 goes two to a float."""

    start: int
    places: NDArray[np.int32]
    precision: str = "fp32"


class Words(NamedTuple):
    """Values that were added to be rounded, from `start` on."""

    start: int
    values: Floats
    precision: str


DIGIT = 1 << 20
"""A place is told in two numbers that float32 holds exactly, the lower one of them below this."""


class TrainedParams(Params):
    """The params of a plan that trains: `reserved` floats of parameters first, then the rest.

    What a recipe packs from weights must be packed anew after each step. A packing moves numbers
    and fills with zeros, so it is recorded once, by packing the numbers' own places, and then
    repeated as a gather (`moved`).
    """

    def __init__(self, reserved: int) -> None:
        super().__init__()
        self.add(np.zeros(reserved, np.float32))
        self.moved: list[Moved] = []
        self._words: list[Words] = []

    def add_words(self, values: Floats, precision: str) -> int:
        """Where these will lie, rounded: there is nothing yet but zeros, see `record`."""
        start = self.add(np.zeros(values.size // PER_WORD[precision], np.float32))
        self._words.append(Words(start, values.reshape(-1), precision))
        return start

    def record(
        self, task: Task, starts: Mapping[str, int], plan: Callable[[Task], Result]
    ) -> Result:
        """What `plan(task)` gives, the task's weights standing for their own places in params.

        task: with these params, and with weights of the right shapes. starts: where in params each
        of them lies.
        """
        lower, upper = dict[str, Floats](), dict[str, Floats]()
        for name, array in task.weights.items():
            places = starts[name] + np.arange(array.size).reshape(array.shape)
            lower[name] = (places % DIGIT).astype(np.float32)
            upper[name] = (places // DIGIT + DIGIT).astype(np.float32)
        aside, start, first = TrainedParams(0), self.floats, len(self._pieces)
        skipped = len(aside._pieces)
        plan(replace(task, weights=upper, params=aside, ints=Descriptors()))
        result = plan(replace(task, weights=lower))
        for low, high in zip(self._pieces[first:], aside._pieces[skipped:], strict=True):
            self._note(start, low, high)
            start += low.size
        for one, other in zip(self._words, aside._words, strict=True):
            self._note(one.start, one.values, other.values, one.precision)
        self._words.clear()
        return result

    def _note(self, start: int, low: Floats, high: Floats, precision: str = "fp32") -> None:
        """Notes where values came from: the two numbers that stand for each one's place differ."""
        moves = low != high
        if moves.any():
            found = (high.astype(np.int64) - DIGIT) * DIGIT + low.astype(np.int64)
            places = np.where(moves, found, -1).astype(np.int32)
            self.moved.append(Moved(start, places, precision))
