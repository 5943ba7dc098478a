"""How tensors lie in memory: channels in blocks of 16, a zeroed halo around every image.

A plan holds two flat float32 arrays: the *arena* with every activation (and scratch), and the
*params* with every packed weight. Both start on a 64-byte boundary. A kernel is a module-level
njit function `kernel(arena, params, d)`; `d` is a flat int64 descriptor that a `describe_...`
function beside the kernel fills, so a plan is a list of `Call`s and types never multiply.

A `Buffer` says where a tensor lies:

    [batch][block of 16 channels][depth + halo][height + halo][width + halo][16 channels]

Three rules, which every kernel relies on and keeps:

1. *Halos are zero.* Whoever makes the plan zeroes the arena once; a kernel writes only inside an
   image, never into its halo. So memory may be reused only by buffers of equal geometry
   (`Buffer.geometry`), or the plan must zero it again (`clear`). A kernel that needs a halo says
   how wide (`Halo`, from its `halo_of_...`); a buffer may have a wider one than its reader needs.
   A kernel never reads outside a buffer's halo.
2. *Padding lanes are zero.* Channels are padded to whole blocks; lanes past `channels` hold zeros
   in the last block. Convolutions keep this since their padding weights and biases are zero; an
   op with f(0) != 0 must restore it.
3. *Strides are explicit.* A buffer may be some blocks of a larger one (`Buffer.part`), as when a
   concatenation is written in place.

`lanes` is 16, or 1 for a planar tensor [batch][channel][...]: the first layer of a net reads its
three channels so. A vector (F,) is F channels over (1, 1, 1): contiguous, padded to 16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netdsl.frozen import dataclass

LANES = 16
"""Channels in a block, on every CPU; LLVM splits the vectors where registers are narrower."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Triple = tuple[int, int, int]
Kernel = Callable[[Floats, Floats, Ints], None]

# Where `Buffer.fields` puts what in a descriptor, counted from where the buffer starts there.
ORIGIN, BATCH, CHANNELS, BLOCKS, DEPTH, HEIGHT, WIDTH = range(7)
BATCH_STRIDE, BLOCK_STRIDE, PLANE_STRIDE, ROW_STRIDE, LANE_COUNT = range(7, 12)
FIELDS = 12


WORKER, PARTS, BODY = 0, 1, 2
"""Where a descriptor holds its worker's address and the parts of its work; the rest is the
worker's own."""


class Call(NamedTuple):
    """One step of a plan: `kernel(arena, params, d)`."""

    kernel: Kernel
    d: Ints


class Halo(NamedTuple):
    """Zeroed cells around an image: before and after each of depth, height, width."""

    lo: Triple = (0, 0, 0)
    hi: Triple = (0, 0, 0)

    def __or__(self, other: object) -> Halo:
        """The halo wide enough for both. Raises TypeError for anything but a Halo."""
        if not isinstance(other, Halo):
            return NotImplemented
        return Halo(_widest(self.lo, other.lo), _widest(self.hi, other.hi))


@dataclass(frozen=True)
class Buffer:
    """A tensor's place in an arena; numbers are float32 elements, not bytes.

    `offset` is where its first sample's first block starts, halo included. Where `pairs`, a number
    is two neighbouring channels in bfloat16 (rounding.py), and channels and lanes count pairs;
    `shift` is how many stand before the first in its block, where a part starts within one.
    """

    offset: int
    batch: int
    channels: int
    size: Triple
    halo: Halo
    batch_stride: int
    block_stride: int
    lanes: int = LANES
    pairs: bool = False
    shift: int = 0

    @property
    def blocks(self) -> int:
        return -(-(self.shift + self.channels) // self.lanes)

    @cached_property
    def outer(self) -> Triple:
        """Depth, height and width with the halo."""
        d, h, w = (
            lo + n + hi for lo, n, hi in zip(self.halo.lo, self.size, self.halo.hi, strict=True)
        )
        return d, h, w

    @cached_property
    def row_stride(self) -> int:
        return self.outer[2] * self.lanes

    @cached_property
    def plane_stride(self) -> int:
        return self.outer[1] * self.row_stride

    @property
    def origin(self) -> int:
        """Where the image of the first sample's first block starts, past its halo."""
        d, h, w = self.halo.lo
        return self.offset + d * self.plane_stride + h * self.row_stride + w * self.lanes

    @property
    def floats(self) -> int:
        """How far the buffer reaches from its offset; a fresh one's whole size."""
        image = self.outer[0] * self.plane_stride
        return (self.batch - 1) * self.batch_stride + (self.blocks - 1) * self.block_stride + image

    @property
    def geometry(self) -> tuple[Any, ...]:
        """Buffers of equal geometry may take turns in one place: their halos coincide.

        The last block's padding lanes are part of it.
        """
        return self.batch, self.channels, self.size, self.halo, self.lanes, self.pairs

    @property
    def contiguous(self) -> bool:
        """Whether a sample is one run of floats with no halo, so may be read as a vector."""
        return self.outer == self.size and self.block_stride == self.plane_stride * self.size[0]

    def at(self, offset: int) -> Buffer:
        """The same buffer in another place."""
        return replace(self, offset=offset)

    def part(self, first: int, channels: int, last: bool = False) -> Buffer:
        """`channels` channels from channel `first`, which must start a block, or half of one where
        `pairs`. last: nothing comes after; of pairs it has those that only pad the block too.

        Raises ValueError where it does not, or where they reach past the end.
        """
        by, start, count = self.lanes, first, channels
        if self.pairs:
            by, start, count = LANES // 2, first // 2, -(-channels // 2)
        if start % by or start + count > self.channels:
            raise ValueError(f"channels {first}+{channels} are no blocks of {self.channels}")
        if last and self.pairs:
            count = self.channels - start
        block, shift = divmod(self.shift + start, self.lanes)
        offset = self.offset + block * self.block_stride
        return replace(self, offset=offset, channels=count, shift=shift)

    def samples(self, first: int, count: int) -> Buffer:
        """Samples evenly apart from a first on, as a buffer of so many."""
        offset = self.offset + first * self.batch_stride
        step = self.batch // count * self.batch_stride
        return replace(self, offset=offset, batch=count, batch_stride=step)

    def rows(self, sample: int, first: int, count: int) -> Buffer:
        """Some rows of a sample, from a row of its image on, as a buffer of one plane."""
        offset = self.offset + sample * self.batch_stride + first * self.row_stride
        return replace(self, offset=offset, batch=1, size=(1, count, self.size[2]))

    def fields(self) -> tuple[int, ...]:
        """The FIELDS numbers by which a descriptor knows this buffer."""
        return (
            self.origin,
            self.batch,
            self.channels,
            self.blocks,
            *self.size,
            self.batch_stride,
            self.block_stride,
            self.plane_stride,
            self.row_stride,
            self.lanes,
        )


def fresh(
    batch: int,
    shape: tuple[int, ...],
    halo: Halo | None = None,
    *,
    lanes: int = LANES,
    offset: int = 0,
) -> Buffer:
    """A buffer of its own for `batch` samples of (C, *spatial)."""
    size, halo = axes3(shape[1:]), halo or Halo()
    outer = [lo + n + hi for lo, n, hi in zip(halo.lo, size, halo.hi, strict=True)]
    block = outer[0] * outer[1] * outer[2] * lanes
    if lanes == LANES and block % 256 == 0 and shape[0] > LANES:
        # Else the blocks that a sum reads side by side would meet in a few sets of the first cache.
        block += 3 * LANES
    # Planar rows may be any length; samples start on a cache line all the same.
    sample = -(-block * -(-shape[0] // lanes) // LANES) * LANES
    return Buffer(offset, batch, shape[0], size, halo, sample, block, lanes)


def axes3(spatial: tuple[int, ...], fill: int = 1) -> Triple:
    """Up to three spatial numbers as (depth, height, width), `fill` for the axes not there."""
    d, h, w = (fill,) * (3 - len(spatial)) + tuple(spatial)
    return d, h, w


def aligned(count: int) -> Floats:
    """`count` zeros that start on a 64-byte boundary."""
    raw = np.zeros(count + 15, np.float32)
    start = -(raw.ctypes.data // 4) % 16
    return raw[start : start + count]


def image(arena: Floats, buffer: Buffer, *, whole: bool = False) -> Floats:
    """A view (N, blocks, D, H, W, lanes) of the arena; `whole` includes the halo."""
    size = buffer.outer if whole else buffer.size
    start = buffer.offset if whole else buffer.origin
    strides = (
        buffer.batch_stride,
        buffer.block_stride,
        buffer.plane_stride,
        buffer.row_stride,
        buffer.lanes,
        1,
    )
    return np.lib.stride_tricks.as_strided(
        arena[start:],
        (buffer.batch, buffer.blocks, *size, buffer.lanes),
        tuple(4 * s for s in strides),
    )


def pack(arena: Floats, buffer: Buffer, array: Floats) -> None:
    """Writes (N, C, *spatial) into a buffer, with zeros in the padding lanes."""
    view = image(arena, buffer)
    spare = buffer.blocks * buffer.lanes - buffer.channels
    planes = array.reshape(buffer.batch, buffer.channels, *buffer.size)
    padded = np.pad(planes, ((0, 0), (0, spare), (0, 0), (0, 0), (0, 0)))
    view[...] = np.moveaxis(
        padded.reshape(buffer.batch, buffer.blocks, buffer.lanes, *buffer.size), 2, -1
    )


def unpack(arena: Floats, buffer: Buffer, shape: tuple[int, ...]) -> Floats:
    """A buffer's tensor as a new array (N, *shape), shape being (C, *spatial)."""
    planes = np.moveaxis(image(arena, buffer), -1, 2)
    planes = planes.reshape(buffer.batch, buffer.blocks * buffer.lanes, *buffer.size)
    return np.ascontiguousarray(planes[:, : buffer.channels]).reshape(buffer.batch, *shape)


def clear(arena: Floats, buffer: Buffer) -> None:
    """Zeroes a buffer, halo and all, so that a new geometry may live there."""
    image(arena, buffer, whole=True)[...] = 0


def _widest(a: Triple, b: Triple) -> Triple:
    return max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2])
