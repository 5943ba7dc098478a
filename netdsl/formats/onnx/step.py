"""The model while it is read: steps, which become nodes, and tensors, which are views of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import field, replace
from itertools import count
from math import prod
from typing import Any, ClassVar

import numpy.typing as npt

from netdsl.faults import OpFault
from netdsl.formats.onnx.faults import Unsupported
from netdsl.formats.onnx.view import BATCH, Atom, Group, N, View
from netdsl.frozen import dataclass
from netdsl.ops import (
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dropout,
    Flatten,
    Input,
    Linear,
    Multiply,
    Op,
    Shape,
    Shuffle,
    Window,
)
from netdsl.ops.base import Bound

MOST = 1 << 31
"""Elements of one sample's tensor."""

Array = npt.NDArray[Any]
Params = Mapping[str, Array]


@dataclasses.dataclass(eq=False)
class Step:
    """A node to be: its op, what it reads, its parameters, the name of the ONNX node it is from.

    eq=False: two steps are the same only if they are one object.
    """

    op: Op
    inputs: tuple[Step, ...]
    shape: Shape
    params: Params = field(default_factory=dict)
    origin: str = ""
    made: dict[object, Step] = field(default_factory=dict, repr=False)
    """Steps that rearrange this one's result, made when first asked for."""
    number: int = field(default_factory=count(1).__next__)
    """Its place in the order in which steps were made, and so a topological order."""


@dataclass(frozen=True)
class Formula(Op):
    """Arithmetic that is no op of the language, only a part of one: see `patterns`."""

    text: str = ""

    heads: ClassVar = ("formula",)

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Op:
        raise AssertionError("no word means a formula")

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        return inputs[0]


AFFINE = Formula("x scale + shift")
"""Parameters scale and shift, one number or one a channel, float64."""
ERF = Formula("erf(x)")
SQUARE = Formula("x^2")
CUBE = Formula("x^3")
MEAN = Formula("mean over a sample")
"""The mean of each sample's elements, stretched to their shape; so is what follows from it."""
CENTRED = Formula("x - mean")
ROOT = Formula("square root")


@dataclass(frozen=True)
class Stretched(Formula):
    """A tensor whose axes of size 1 are repeated to a shape, as a product does by itself."""

    text: str = "stretching to another shape"
    shape: Shape = ()

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        return self.shape


@dataclass(frozen=True)
class Relaid(Op):
    """An input of the model in another layout: the view of its array that the net reads."""

    view: View

    heads: ClassVar = ("relaid",)

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Op:
        raise AssertionError("no word means a relaid input")

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        return self.view.sizes[1:]


@dataclass(frozen=True)
class Tensor:
    """A tensor of the ONNX graph."""

    step: Step
    view: View

    @property
    def shape(self) -> Shape:
        """Its sizes, the batch as BATCH."""
        return self.view.sizes


def make(op: Op, *inputs: Step, params: Params | None = None, origin: str = "") -> Step:
    """A new step. Raises Unsupported where the op does not fit its inputs."""
    try:
        shape = op.output(tuple(s.shape for s in inputs))
    except OpFault as fault:
        raise Unsupported(fault.message) from None
    if prod(shape) > MOST:
        raise Unsupported(f"its result has more than {MOST:,} elements")
    return Step(op, inputs, shape, params or {}, origin)


def tensor(step: Step, batch: int | None) -> Tensor:
    """A step's result as it is."""
    return Tensor(step, View.of(step.shape, batch))


def elementwise(op: Op, x: Tensor, origin: str, params: Params | None = None) -> Tensor:
    """An op that looks at each element alone may be applied to the step itself."""
    return Tensor(make(op, x.step, params=params, origin=origin), x.view)


def plain(x: Tensor) -> Step:
    """A step whose result is this tensor: (N, C, *spatial) with the batch first.

    Raises Unsupported where that would take an op that the language lacks.
    """
    groups, step = x.view.groups, x.step
    if x.view == View.of(step.shape, x.view.batch):
        return step
    if groups and groups[0] == (N,) and len(groups) > 1:
        if is_flat(x):
            return _once(step, Flatten())
        shuffled = shuffle_groups(x)
        if shuffled:
            return _once(step, Shuffle(shuffled))
        if isinstance(step.op, Input) and sorted(x.view.atoms) == sorted(_own(step)):
            return _once(step, Relaid(replace(x.view, batch=None)))
        if groups[1] == _own(step)[1:] and not any(groups[2:]) and len(step.shape) == 1:
            return spread(step, len(groups) - 1)
    raise Unsupported(f"its input is {_described(x)}")


def is_flat(x: Tensor) -> bool:
    """Whether this is (N, features), in the order of the step's own elements."""
    groups = x.view.groups
    return len(groups) == 2 and groups[0] == (N,) and groups[1] == _own(x.step)[1:]


def features(x: Tensor) -> tuple[Step, Group]:
    """A step and the order in which a matrix (N, features) takes its elements."""
    groups = x.view.groups
    matrix = len(groups) == 2 and groups[0] == (N,)
    if matrix and sorted(_merged(groups[1])) == sorted(_own(x.step)[1:]):
        return x.step, groups[1]
    raise Unsupported(f"its input is {_described(x)}, not a vector a sample")


def axes(x: Tensor) -> tuple[int, ...] | None:
    """Which axis of the step each axis of the tensor is, if each is one whole axis.

    Axes of size 1, which cannot be told apart, are given in order.
    """
    own = View.of(x.step.shape, None).groups
    free = [i for i, group in enumerate(own) if not group]
    if len(own) - len(x.view.groups) != (N not in x.view.atoms):
        return None
    found = []
    for group in x.view.groups:
        if not group:
            if not free:
                return None
            found.append(free.pop(0))
        elif group in own:
            found.append(own.index(group))
        else:
            return None
    return tuple(found)


def aligned(xs: list[Tensor]) -> tuple[list[Step], tuple[int, ...] | None]:
    """Steps that an op of several inputs may read: the tensors themselves, or, where all are
    transposed alike, their steps and the order of the axes."""
    orders = {axes(x) for x in xs}
    order = next(iter(orders))
    if len(orders) == 1 and order is not None:
        return [x.step for x in xs], order
    return [plain(x) for x in xs], None


def ordered(step: Step, order: tuple[int, ...] | None, batch: int | None) -> Tensor:
    """A step's result with its axes in the order that `aligned` gave."""
    view = View.of(step.shape, batch)
    return Tensor(step, View(tuple(view.groups[i] for i in order), batch) if order else view)


def channel_axis(x: Tensor) -> int | None:
    """The axis of the tensor that is the step's channels, whole; None where there is none."""
    own = View.of(x.step.shape, None).groups[1]
    if not own:
        order = axes(x)
        return order.index(1) if order else None
    return x.view.groups.index(own) if own in x.view.groups else None


def spread(step: Step, rank: int) -> Step:
    """A step of the vector's values as (C, 1, …), the spatial axes that were dropped given back.

    A fully connected layer becomes the convolution that it is on one position.
    Raises Unsupported where the vector's origin does not allow it.
    """
    todo, done = [step], dict[Step, Step]()
    while todo:
        last = todo[-1]
        if last in done:
            todo.pop()
            continue
        found = _spread_source(last, rank)
        if found is None:
            waiting = [s for s in last.inputs if s not in done]
            if waiting:
                todo += waiting
                continue
            found = _respread(last, tuple(done[s] for s in last.inputs), rank)
        done[last] = found
        todo.pop()
    return done[step]


def _spread_source(step: Step, rank: int) -> Step | None:
    if rank in step.made:
        return step.made[rank]
    op, source = step.op, step.inputs[0] if step.inputs else None
    if isinstance(op, Flatten) and source and source.shape == (*step.shape, *(1,) * (rank - 1)):
        return source
    if isinstance(op, Linear) and source and isinstance(source.op, Flatten):
        return _as_conv(step, source.inputs[0], rank)
    if isinstance(op, Linear) and source and len(source.shape) == rank:
        return _as_conv(step, source, rank)
    if isinstance(op, Input):
        groups = ((N,), *View.of(step.shape, None).groups[1:], *((),) * (rank - 1))
        return _once(step, Relaid(View(groups)))
    if not step.inputs or not _is_pointwise(op):
        raise Unsupported("its input is a vector stretched to spatial axes")
    return None


def _is_pointwise(op: Op) -> bool:
    kinds = (Activation, Dropout, Add, Multiply, Concat, Linear, BatchNorm, Formula)
    return isinstance(op, kinds)


def _respread(step: Step, inputs: tuple[Step, ...], rank: int) -> Step:
    if isinstance(step.op, Linear):
        return _as_conv(step, inputs[0], rank)
    step.made[rank] = make(step.op, *inputs, params=step.params, origin=step.origin)
    return step.made[rank]


def _as_conv(step: Step, source: Step, rank: int) -> Step:
    """fc as a convolution with a kernel as large as its input."""
    assert isinstance(step.op, Linear)
    if len(source.shape) != rank:
        raise Unsupported("its input is a vector stretched to more spatial axes than it came from")
    kernel = source.shape[1:]
    ones, none = (1,) * len(kernel), ((0, 0),) * len(kernel)
    op = Conv(step.op.filters, Window(kernel, ones, none, ones), 1, step.op.bias)
    weight = step.params["weight"].reshape(op.filters, *source.shape)
    params = {**step.params, "weight": weight}
    step.made[rank] = make(op, source, params=params, origin=step.origin)
    return step.made[rank]


def _once(step: Step, op: Op) -> Step:
    if op not in step.made:
        step.made[op] = make(op, step)
    return step.made[op]


def _own(step: Step) -> Group:
    """The atoms of (N, C, *spatial)."""
    return View.of(step.shape, None).atoms


def _merged(group: Group) -> list[Atom]:
    """The whole axes that a group's atoms make up, in any order."""
    found: dict[int, int] = {}
    for atom in group:
        found[atom.axis] = found.get(atom.axis, 1) * atom.size
    return [Atom(axis, 1, size) for axis, size in found.items()]


def shuffle_groups(x: Tensor) -> int | None:
    """The groups of the channel shuffle that this view is."""
    own = View.of(x.step.shape, None).groups
    groups = x.view.groups
    if len(groups) != len(own) or groups[2:] != own[2:] or len(groups[1]) != 2:
        return None
    inner, outer = groups[1]
    swapped = inner.axis == outer.axis == 1 and inner.stride == 1 and outer.stride == inner.size
    return outer.size if swapped and inner.size * outer.size == x.step.shape[0] else None


def _described(x: Tensor) -> str:
    names = ["N", "C", "D", "H", "W"] if len(x.step.shape) == 4 else ["N", "C", "H", "W"]
    if len(x.step.shape) <= 2:
        names = ["N", "C", "L"]
    whole = dict(enumerate(x.step.shape, 1))

    def said(atom: Atom) -> str:
        if atom.size in (whole.get(atom.axis), BATCH) and atom.axis < len(names):
            return names[atom.axis]
        return str(atom.size)

    parts = ["·".join(map(said, group)) or "1" for group in x.view.groups]
    return f"({', '.join(parts)}), rearranged as the language cannot say"
