"""How an ONNX tensor looks at the tensor of a step.

Exporters spell one idea by several reshapes and transposes: a channel shuffle splits the channels,
swaps the parts and joins them again. So reshapes and transposes are not steps. They change a view:
the groups of *atoms* that the tensor's axes are made of, an atom being a factor of one axis of the
step's own array (N, C, *spatial). What a view means is decided where an op reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netdsl.formats.onnx.faults import Unsupported
from netdsl.ops import Shape

BATCH = 16_777_213
"""What stands for the size of the batch in sums of shapes: a prime that float32 holds exactly."""


class Atom(NamedTuple):
    """A factor of an axis of (N, C, *spatial): `size` indices, `stride` apart in that axis."""

    axis: int
    stride: int
    size: int


N = Atom(0, 1, BATCH)

Group = tuple[Atom, ...]


@dataclass(frozen=True)
class View:
    """For each axis of the tensor the atoms it joins, the last fastest; none for a size of 1.

    `batch` is the size that the model fixes for the batch axis, None if it leaves it open.
    """

    groups: tuple[Group, ...]
    batch: int | None = None

    @classmethod
    def of(cls, shape: Shape, batch: int | None) -> View:
        """The step's own array (N, *shape)."""
        return cls(((N,), *(_whole(i, size) for i, size in enumerate(shape, 1))), batch)

    @property
    def sizes(self) -> Shape:
        return tuple(prod(a.size for a in group) for group in self.groups)

    @property
    def stated(self) -> Shape:
        """The sizes as the model's own sums have them: a fixed batch is its number."""
        if self.batch is None:
            return self.sizes
        return tuple(
            size // BATCH * self.batch if N in group else size
            for size, group in zip(self.sizes, self.groups, strict=True)
        )

    @property
    def atoms(self) -> Group:
        return tuple(atom for group in self.groups for atom in group)

    def transposed(self, order: tuple[int, ...]) -> View:
        if sorted(order) != list(range(len(self.groups))):
            raise Unsupported(f"its order {list(order)} does not fit {len(self.groups)} axes")
        return View(tuple(self.groups[i] for i in order), self.batch)

    def squeezed(self, axes: tuple[int, ...]) -> View:
        """Without axes of size 1; a batch of 1 is one too where the model fixes it."""
        rank = len(self.groups)
        drop = {a % rank for a in axes}
        for axis in drop:
            fixed = self.groups[axis] == (N,) and self.batch == 1
            if self.groups[axis] and not fixed:
                raise Unsupported(f"it drops axis {axis}, whose size is not 1")
        return View(tuple(g for i, g in enumerate(self.groups) if i not in drop), self.batch)

    def unsqueezed(self, axes: tuple[int, ...]) -> View:
        rank = len(self.groups) + len(axes)
        new = {a % rank for a in axes}
        rest = iter(self.groups)
        return View(tuple(() if i in new else next(rest) for i in range(rank)), self.batch)

    def reshaped(self, target: list[int]) -> View:
        """By sizes as in ONNX's Reshape: 0 keeps an axis, -1 is what is left."""
        sizes = self._resolved(target)
        rest = list(reversed(self.atoms))
        if N in self.atoms and BATCH not in sizes and not any(s % BATCH == 0 for s in sizes):
            rest.remove(N)
        groups = []
        for size in sizes:
            group: list[Atom] = []
            while size > 1:
                atom = rest.pop() if rest else None
                if atom is None:
                    raise Unsupported("it changes the number of elements")
                size = _take(atom, size, group, rest)
            groups.append(_joined(group))
        return View(tuple(groups), self.batch)

    def _resolved(self, target: list[int]) -> list[int]:
        sizes = [
            self.sizes[i] if t == 0 and i < len(self.groups) else t for i, t in enumerate(target)
        ]
        leads = bool(self.groups) and self.groups[0] == (N,)
        # A fixed batch is written out; and exporters leave a 1 even where the batch is open.
        open_one = self.batch is None and sizes[:1] == [1] and -1 in sizes
        if leads and (sizes[:1] == [self.batch] or open_one):
            sizes[0] = BATCH
        total = prod(a.size for a in self.atoms)
        known = prod(s for s in sizes if s != -1)
        if -1 in sizes:
            left = total // known if known and total % known == 0 else 0
            if left == 0 and known and self.batch == 1 and (total // BATCH) % known == 0:
                left = total // BATCH // known
            sizes[sizes.index(-1)] = left
        alone = self.batch == 1 and prod(sizes) * BATCH == total
        if any(s < 1 for s in sizes) or (prod(sizes) != total and not alone):
            raise Unsupported(f"it reshapes {shown(self.sizes)} to {shown(target)}")
        return sizes

    def own_order(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """An array (N, *shape) of the step as the tensor that this view is."""
        count = len(values)
        if N not in self.atoms and count != 1:
            raise Unsupported("a tensor without a batch axis holds one sample")
        atoms = sorted(self.atoms, key=lambda a: (a.axis, -a.stride))
        place = {atom: i for i, atom in enumerate(atoms)}
        split = values.reshape([count if a == N else a.size for a in atoms])
        swapped = split.transpose([place[a] for a in self.atoms])
        return swapped.reshape([count if g == (N,) else _size(g, count) for g in self.groups])


def _size(group: Group, count: int) -> int:
    return prod(count if a == N else a.size for a in group)


def _whole(axis: int, size: int) -> Group:
    return () if size == 1 else (Atom(axis, 1, size),)


def _take(atom: Atom, size: int, group: list[Atom], rest: list[Atom]) -> int:
    """Moves an atom, or its slower part, into a group of this size; what is still missing."""
    if size % atom.size == 0:
        group.append(atom)
        return size // atom.size
    if atom == N or atom.size % size:
        raise Unsupported("it joins parts of axes that the language keeps apart")
    inner = atom.size // size
    group.append(Atom(atom.axis, atom.stride * inner, size))
    rest.append(Atom(atom.axis, atom.stride, inner))
    return 1


def _joined(group: list[Atom]) -> Group:
    """Neighbouring parts of one axis that lie next to each other become one again."""
    found: list[Atom] = []
    for atom in group:
        last = found[-1] if found else None
        if last and last.axis == atom.axis and last.stride == atom.stride * atom.size:
            found[-1] = Atom(atom.axis, atom.stride, last.size * atom.size)
        else:
            found.append(atom)
    return tuple(found)


def shown(sizes: tuple[int, ...] | list[int]) -> str:
    """Sizes as a person reads them, the batch as N."""
    words = [
        "N" if s == BATCH else f"{s // BATCH}N" if s and s % BATCH == 0 else str(s) for s in sizes
    ]
    return "x".join(words) or "a single number"


def constant(sizes: Shape) -> npt.NDArray[np.int64]:
    """Sizes as ONNX's Shape gives them."""
    return np.array(sizes, np.int64)
