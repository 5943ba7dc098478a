"""The arithmetic of sliding windows, shared by convolutions and pools.

Output size of a window K (dilated to D(K-1)+1), stride S and padding P on both sides:
(W - K + 2P) / S + 1 (lecture 7). A ceil pool rounds up, but a window never starts in the end
padding (PyTorch's rule).
"""

from __future__ import annotations

from typing import NamedTuple

from netdsl.faults import OpFault
from netdsl.ops.base import Bound, Pair, Shape, Value, show

LARGEST = 2**31 - 1


class Window(NamedTuple):
    """Kernel, stride, padding and dilation per spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[Pair, ...]
    dilation: tuple[int, ...]
    ceil: bool = False

    @property
    def extent(self) -> tuple[int, ...]:
        """The kernel's reach with its dilation: D(K-1)+1."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def output(self, spatial: Shape) -> Shape:
        """Output positions per axis. Raises OpFault where the kernel does not fit."""
        return tuple(self._axis(i, size) for i, size in enumerate(spatial))

    def _axis(self, i: int, size: int) -> int:
        extent, stride, (lo, hi) = self.extent[i], self.stride[i], self.padding[i]
        room = size + lo + hi - extent
        if room < 0:
            padded = f", {size + lo + hi} with its padding" if lo or hi else ""
            dilated = f" (dilated to {extent})" if extent != self.kernel[i] else ""
            raise OpFault(
                "kernel-too-large",
                f"a kernel of {self.kernel[i]}{dilated} does not fit an input of {size}{padded}",
                help="a smaller kernel, more padding, or fewer strides before it",
                part="kernel",
            )
        steps = -(-room // stride) if self.ceil else room // stride
        if self.ceil and steps * stride >= size + lo:
            steps -= 1
        return steps + 1


def window(bound: Bound, inputs: tuple[Shape, ...], *, stride_is_kernel: bool) -> Window:
    """The window of an op word for this input. Raises OpFault."""
    spatial = spatial_axes(bound.head, inputs[0])
    rank = len(spatial)
    kernel = kernel_axes(bound, rank)
    dilation = positive(bound.axes("d", rank, 1), "dilation", "d")
    if stride_is_kernel and "s" not in bound.options:
        stride = kernel
    else:
        stride = positive(bound.axes("s", rank, 1), "stride", "s")
    plain = Window(kernel, stride, ((0, 0),) * rank, dilation)
    padding = same_padding(plain, spatial) if "same" in bound.options else pads(bound, rank)
    return Window(kernel, stride, padding, dilation, "ceil" in bound.options)


def spatial_axes(head: str, shape: Shape) -> Shape:
    """The spatial part of a shape; a vector has none, which is a fault for a window."""
    if len(shape) < 2:
        raise OpFault(
            "needs-axes",
            f"{head} slides over spatial axes, but its input is a vector of {show(shape)}",
            help="fc takes a vector",
            part="head",
        )
    return shape[1:]


def kernel_axes(bound: Bound, rank: int) -> tuple[int, ...]:
    """The kernel spread over the data's axes."""
    assert bound.kernel is not None
    if len(bound.kernel) not in (1, rank):
        raise OpFault(
            "wrong-rank",
            f"a kernel of {show(bound.kernel)} has {len(bound.kernel)} axes, the data has {rank}",
            help="one number serves every axis of the data",
            part="kernel",
        )
    kernel = bound.kernel * rank if len(bound.kernel) == 1 else bound.kernel
    return positive(kernel, "kernel", "kernel")


def positive(values: tuple[int, ...], what: str, part: str) -> tuple[int, ...]:
    """The same numbers, or a fault where one is below 1 or absurd."""
    for value in values:
        if not 1 <= value <= LARGEST:
            raise OpFault("out-of-range", f"{what} must be 1 or more, not {value}", part=part)
    return values


def same_padding(plain: Window, spatial: Shape) -> tuple[Pair, ...]:
    """Padding for an output of ceil(input / stride), the odd cell at the end."""
    pairs = []
    for size, extent, stride in zip(spatial, plain.extent, plain.stride, strict=True):
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        pairs.append((total // 2, total - total // 2))
    return tuple(pairs)


def pads(bound: Bound, rank: int) -> tuple[Pair, ...]:
    """pN on both sides; `pad_end=` says another amount for the end of each axis."""
    before = bound.axes("p", rank, 0)
    after = bound.size("pad_end", rank) if "pad_end" in bound.settings else None
    for value in (*before, *(after or ())):
        if not 0 <= value <= LARGEST:
            raise OpFault("out-of-range", f"padding must be 0 or more, not {value}", part="p")
    return tuple(zip(before, after or before, strict=True))


def window_options(w: Window, *, stride: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The options of a word that spell this window; `stride` is what leaving s out means."""
    options = {}
    if w.stride != stride:
        options["s"] = w.stride
    if any(lo for lo, _ in w.padding):
        options["p"] = tuple(lo for lo, _ in w.padding)
    if any(d != 1 for d in w.dilation):
        options["d"] = w.dilation
    return options


def pad_end(w: Window) -> dict[str, Value]:
    """The setting that spells padding of unequal sides."""
    if all(lo == hi for lo, hi in w.padding):
        return {}
    after = tuple(hi for _, hi in w.padding)
    return {"pad_end": after if len(set(after)) > 1 else after[0]}
