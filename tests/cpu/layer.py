"""One layer by itself: planned, run in poisoned memory, beside plain NumPy in double precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from netdsl.cpu.layout import Buffer, Call, Floats, Halo, aligned, fresh, image, pack, unpack
from netdsl.cpu.task import Needs, Params, Places, Task
from netdsl.cpu.views import link
from netdsl.graph import Node
from netdsl.graph.fused import Fused
from netdsl.ops import Activation, Conv, MaxPool, Op, Shape, Window

Doubles = NDArray[np.float64]
Plans = Callable[[Task, Places], list[Call]]

HALVES = MaxPool(Window((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)))


def conv(filters: int, kernel: int = 3, padding: int = 1) -> Conv:
    """A convolution of squares."""
    return Conv(filters, Window((kernel,) * 2, (1, 1), ((padding,) * 2,) * 2, (1, 1)))


@dataclass
class Layer:
    """An op with the shape of its input, weights and data drawn from a seed."""

    op: Op
    shape: Shape
    batch: int = 1
    residual: bool = False
    activation: Activation | None = None
    planar: bool = False
    exact: bool = False
    threads: int = 2
    spare: int = 0
    seed: int = 0
    pool: MaxPool | None = None

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        inputs: tuple[Shape, ...] = (self.shape,)
        self.made = self.op.output(inputs)
        self.output = self.pool.output((self.made,)) if self.pool else self.made
        inputs += (self.made,) if self.residual else ()
        whole = Fused(self.op, "layer", ("layer",), self.residual, self.activation, self.pool)
        names = ("x", "residual")[: len(inputs)]
        self.node = Node("layer", whole, names, self.output)
        self.task = Task(self.node, inputs, self.batch, self.threads, self.exact)
        self.weights = {
            p.name: random.normal(0, (p.fan_in or 4) ** -0.5, p.shape).astype(np.float32)
            for p in self.op.parameters((self.shape,))
        }
        self.arrays = [
            random.normal(0, 1, (self.batch, *shape)).astype(np.float32) for shape in inputs
        ]

    def run(self, plan: Plans, needs: Callable[[Task], Needs] | None = None) -> Floats:
        """The layer's output; fails where memory outside was touched or read."""
        asked = needs(self.task) if needs else Needs()
        halos = [*asked.halos, Halo(), Halo()]
        wider = Halo((0, self.spare, self.spare), (0, 0, self.spare))
        lanes = 1 if self.planar else 16
        places = [
            fresh(self.batch, self.shape, halos[0] | wider, lanes=lanes),
            fresh(self.batch, self.output, wider),
            fresh(self.batch, self.output, halos[1]),
        ]
        end = 64
        for i, buffer in enumerate(places):
            places[i] = buffer.at(end)
            end += buffer.floats + 64 - buffer.floats % 16
        params = Params()
        source, target, residual = places
        inputs = (source, residual) if self.residual else (source,)
        calls = plan(self.task, Places(inputs, target, end, self.weights, params, {}))
        arena = aligned(end + asked.scratch + 64)
        arena[:] = np.nan
        for buffer in places:
            image(arena, buffer, whole=True)[...] = 0
        for buffer, array in zip(inputs, self.arrays, strict=True):
            pack(arena, buffer, array)
        image(arena, target)[...] = np.nan
        before = arena.copy()
        self.packed = params.joined()
        for call in calls:
            kernel, d = link(call)
            kernel(arena, self.packed, d)
        self._check(arena, before, target, end, end + asked.scratch)
        return unpack(arena, target, self.output)

    def _check(self, arena: Floats, before: Floats, target: Buffer, end: int, past: int) -> None:
        """Only the target's image and the scratch changed; padding lanes are zero."""
        padded = image(arena, target)[:, -1, ..., (target.channels - 1) % 16 + 1 :]
        assert not padded.any(), "padding lanes are not zero"
        after = arena.copy()
        image(after, target)[...] = image(before, target)
        after[end:past] = before[end:past]
        np.testing.assert_array_equal(after, before, "memory outside the image was written")

    def finish(self, sums: Doubles) -> Doubles:
        """Residual and activation, as a fused layer applies them."""
        bias = self.weights.get("bias")
        if bias is not None:
            sums = sums + bias.astype(np.float64).reshape(1, -1, *[1] * (sums.ndim - 2))
        if self.residual:
            sums = sums + self.arrays[1]
        name = type(self.activation).__name__
        sums = {"Relu": np.maximum(sums, 0), "Relu6": np.clip(sums, 0, 6)}.get(name, sums)
        return _halved(sums) if self.pool else sums


def _halved(values: Doubles) -> Doubles:
    """The largest of every 2x2 values; a last row or column that is left over is dropped."""
    n, c, h, w = values.shape
    whole = values[:, :, : h // 2 * 2, : w // 2 * 2]
    return whole.reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))


def convolved(layer: Layer) -> Doubles:
    """A convolution's output."""
    op, x, w = layer.op, layer.arrays[0].astype(np.float64), layer.weights["weight"]
    window, groups = op.window, op.groups
    x = np.pad(x, ((0, 0), (0, 0), *window.padding))
    out = np.zeros((layer.batch, *layer.made))
    inside, each = w.shape[1], w.shape[0] // groups
    for k in product(*map(range, window.kernel)):
        cut = tuple(
            slice(i * d, i * d + (n - 1) * s + 1, s)
            for i, d, s, n in zip(k, window.dilation, window.stride, layer.made[1:], strict=True)
        )
        seen = x[(slice(None), slice(None), *cut)]
        for g in range(groups):
            part = seen[:, g * inside : (g + 1) * inside]
            filters = w[(slice(g * each, (g + 1) * each), slice(None), *k)].astype(np.float64)
            out[:, g * each : (g + 1) * each] += np.einsum("nc...,oc->no...", part, filters)
    return layer.finish(out)


def transposed(layer: Layer) -> Doubles:
    """A transposed convolution's output: each input adds its kernel, then the padding is cut."""
    op, x, w = layer.op, layer.arrays[0].astype(np.float64), layer.weights["weight"]
    window, groups = op.window, op.groups
    inside, each = w.shape[0] // groups, w.shape[1]
    full = [
        before + n + after + extent
        for n, (before, after), extent in zip(
            layer.output[1:], window.padding, window.extent, strict=True
        )
    ]
    out = np.zeros((layer.batch, layer.output[0], *full))
    for k in product(*map(range, window.kernel)):
        cut = tuple(
            slice(i * d, i * d + (n - 1) * s + 1, s)
            for i, d, s, n in zip(k, window.dilation, window.stride, layer.shape[1:], strict=True)
        )
        for g in range(groups):
            part = x[:, g * inside : (g + 1) * inside]
            filters = w[(slice(g * inside, (g + 1) * inside), slice(None), *k)].astype(np.float64)
            out[(slice(None), slice(g * each, (g + 1) * each), *cut)] += np.einsum(
                "nc...,co->no...", part, filters
            )
    image = tuple(
        slice(before, before + n)
        for n, (before, _) in zip(layer.output[1:], window.padding, strict=True)
    )
    return layer.finish(out[(slice(None), slice(None), *image)])


def connected(layer: Layer) -> Doubles:
    """A fully connected layer's output."""
    x = layer.arrays[0].reshape(layer.batch, -1).astype(np.float64)
    return layer.finish(x @ layer.weights["weight"].astype(np.float64).T)


def beside_a_long_sum(layer: Layer, found: NDArray[np.floating]) -> float:
    """How much a convolution errs, of stride 1 and without groups, as a part of what its terms err
    by that are added one after the other in float32; root of the mean square."""
    pads, (_, *size) = layer.op.window.padding, layer.made
    x = np.pad(layer.arrays[0], ((0, 0), (0, 0), *pads))
    weights, ones = layer.weights["weight"], (1,) * len(size)
    long = np.zeros((layer.batch, *layer.made), np.float32)
    for c, *tap in np.ndindex(weights.shape[1:]):
        cut = tuple(slice(i, i + n) for i, n in zip(tap, size, strict=True))
        filters = weights[(slice(None), c, *tap)].reshape(-1, *ones)
        long += filters * x[(slice(None), slice(c, c + 1), *cut)]
    long += layer.weights["bias"].reshape(-1, *ones)
    wanted = convolved(layer)

    def rms(apart: NDArray[np.floating]) -> float:
        return float(np.sqrt(np.mean(apart**2)))

    return rms(found - wanted) / rms(long - wanted)


def error(found: NDArray[np.floating], wanted: Doubles) -> float:
    """The largest difference; infinite where a number is not finite."""
    assert found.shape == wanted.shape
    apart = np.abs(found - wanted)
    return float(apart.max()) if np.isfinite(apart).all() else float("inf")
