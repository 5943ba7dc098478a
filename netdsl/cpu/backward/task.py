"""What the planning of one node's way back knows, asks for, and is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from netdsl.cpu.layout import LANES, Buffer, Call, Halo, Ints, Kernel
from netdsl.cpu.task import Params, Task


@dataclass(frozen=True)
class BackNeeds:
    """What the way back of a node asks of memory, beyond what its way forward does.

    inputs: a halo around each input; gradient: the halo around the output's gradient; scratch,
    and floats that stay from the way forward to the way back (`kept`).
    """

    inputs: tuple[Halo, ...] = ()
    gradient: Halo = Halo()  # noqa: RUF009 - a Halo never changes
    scratch: int = 0
    kept: int = 0


@dataclass(frozen=True)
class BackPlaces:
    """Where things lie: numbers of places in the arena, but for `weights`, which are in params.

    gradients: of the inputs, None where nobody wants one. into: where each parameter's gradient
    goes. weights: where params hold each parameter, in its own layout.
    """

    inputs: tuple[Buffer, ...]
    output: Buffer
    gradient: Buffer
    gradients: tuple[Buffer | None, ...]
    scratch: int
    kept: int
    weights: Mapping[str, int]
    into: Mapping[str, int]
    params: TrainedParams


Calls = list[Call]
Result = TypeVar("Result")


class Transform(NamedTuple):
    """Packed weights to be transformed whenever they have changed: where both lie in params."""

    kernel: Kernel
    d: Ints
    packed: int
    packed_floats: int
    transformed: int
    transformed_floats: int


def nothing(task: Task) -> BackNeeds:
    """The needs of a way back that reads inside images alone."""
    return BackNeeds()


class Back(NamedTuple):
    """How an op goes back.

    calls: the input's gradients and the parameters'. needs: what it asks of memory. over: whether
    the first input's gradient may be written over the output's. forward: calls in place of the
    ones that `run` makes, for training and for trying (two lists).
    """

    calls: Callable[[Task, BackPlaces], Calls]
    needs: Callable[[Task], BackNeeds] = nothing
    over: bool = False
    forward: Callable[[Task, BackPlaces], tuple[Calls, Calls]] | None = None


class Moved(NamedTuple):
    """Weights that a packing only moved, to `start` in params.

    stride: None where `places` has the place of each (-1 for a zero); else each block of 16 is
    `counts` numbers from `places` on, `stride` apart, and zeros.
    """

    start: int
    places: NDArray[np.int32]
    counts: NDArray[np.int8]
    stride: int | None


def moved(start: int, places: NDArray[np.int64]) -> Moved:
    """The shortest way to say where packed numbers come from."""
    whole = Moved(start, places.astype(np.int32), np.zeros(0, np.int8), None)
    if len(places) % LANES:
        return whole
    blocks = places.reshape(-1, LANES)
    there = blocks >= 0
    counts = there.sum(1)
    full = blocks[counts > 1]
    stride = int(full[0, 1] - full[0, 0]) if len(full) else 1
    expected = np.where(
        np.arange(LANES) < counts[:, None], blocks[:, :1] + stride * np.arange(LANES), -1
    )
    if not np.array_equal(expected, blocks):
        return whole
    bases = np.where(counts > 0, blocks[:, 0], 0)
    return Moved(start, bases.astype(np.int32), counts.astype(np.int8), stride)


class TrainedParams(Params):
    """The params of a plan that trains: the learned vector first, then what kernels read.

    What a recipe packs from weights must be packed anew after each step. A packing moves numbers
    and fills with zeros, so it is recorded once, by packing the numbers' own places, and then
    repeated as a gather: `moved` holds for each packed place the weight's place, -1 for none.
    """

    def __init__(self, learned: int) -> None:
        super().__init__()
        self.learned = learned
        self.floats = learned
        self.moved: list[Moved] = []
        self.transforms: list[Transform] = []

    def record(
        self,
        weights: Mapping[str, np.ndarray],
        plan: Callable[[Mapping[str, np.ndarray], Params], Result],
    ) -> Result:
        """What `plan(weights, params)` gives, the weights standing for themselves.

        weights: for each parameter the places in the learned vector of its numbers, in the shape
        that the recipe packs.
        """
        names, own, start = list(weights), {}, 1
        for name in names:
            size = weights[name].size
            counting = np.arange(start, start + size).reshape(weights[name].shape)
            own[name] = counting.astype(np.float32)
            start += size
        if start > 1 << 24:
            raise ValueError("a layer of over 16 million weights cannot be packed so")
        places = np.concatenate([[-1], *(weights[name].reshape(-1) for name in names)])
        first = len(self._pieces)
        blank = Params()
        blank.floats = self.floats
        plan({name: np.zeros_like(array) for name, array in own.items()}, blank)
        result = plan(own, self)
        for (at, values), (_, without) in zip(self._pieces[first:], blank._pieces, strict=True):
            if not np.array_equal(values, without):
                self.moved.append(moved(at, places[values.astype(np.int64)]))
        return result
