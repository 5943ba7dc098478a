"""Batches: examples shuffled by seed, decoded ahead in threads, augmented, as input tensors.

The order of an epoch and the augmentation of a batch depend on nothing but the seed and the numbers
of both, so training can go on from any step.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from netdsl.faults import error
from netdsl.formats.pictures import CHANNELS, centre, decode, scaled_size
from netdsl.ops import Input, show
from netdsl.train.data.augment import Augment
from netdsl.train.data.examples import Examples

Batch = tuple[NDArray[np.float32], NDArray[Any]]
AHEAD = 4
"""Batches made ahead of the one at work."""
DECODERS = 2
SHUFFLE, AUGMENT = 1, 2
"""Which stream of the seed's a random number is from."""


def stream(seed: int, kind: int, epoch: int, batch: int = 0) -> np.random.Generator:
    """The random numbers of one purpose in one epoch and batch."""
    return np.random.Generator(np.random.Philox(key=[seed, kind << 56 | epoch << 32 | batch]))


class Batches:
    """Examples as batches of input tensors (batch, *shape) and their targets.

    Raises NetError when made: fewer examples than a batch, inputs that do not fit the net's.
    """

    def __init__(
        self,
        examples: Examples,
        op: Input,
        batch: int,
        *,
        seed: int = 0,
        augment: Augment | None = None,
        training: bool = True,
    ) -> None:
        self.examples, self.op, self.batch, self.seed = examples, op, batch, seed
        self.augment = augment or Augment()
        if training and batch > len(examples):
            raise error(
                "batch-too-large",
                f"a batch of {batch} is larger than the data: {examples.name} has "
                f"{len(examples):,} examples",
                help=f"a batch of {len(examples)} or less",
            )
        self._check_inputs()

    def _check_inputs(self) -> None:
        inputs, shape = self.examples.inputs, self.op.shape
        pictures = not isinstance(inputs, np.ndarray) or inputs.dtype == np.uint8
        if not isinstance(inputs, np.ndarray) or (pictures and inputs.shape[1:] != shape):
            fits = len(shape) == 3 and shape[0] in CHANNELS
            if isinstance(inputs, np.ndarray):
                fits = fits and inputs.ndim == 4 and inputs.shape[1] in CHANNELS
            if not fits:
                raise self._misfit()
        elif inputs.shape[1:] != shape:
            raise self._misfit()
        if self.augment and not (pictures and len(shape) == 3):
            raise error("not-pictures", f"{self.examples.name} holds no pictures to augment")

    def _misfit(self) -> Exception:
        inputs = self.examples.inputs
        what = show(inputs.shape[1:]) if isinstance(inputs, np.ndarray) else "pictures"
        return error(
            "wrong-input",
            f"{self.examples.name} holds {what}, the net's input is {show(self.op.shape)}",
        )

    @property
    def steps(self) -> int:
        """Whole batches in an epoch; examples that fill none sit out that epoch."""
        return len(self.examples) // self.batch

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on, shuffled and augmented."""
        order = stream(self.seed, SHUFFLE, number).permutation(len(self.examples))
        return _ahead(
            lambda pool, i: self._make(
                order[i * self.batch : (i + 1) * self.batch],
                pool,
                stream(self.seed, AUGMENT, number, i) if self.augment else None,
            ),
            range(start, self.steps),
        )

    def once(self) -> Iterator[Batch]:
        """All examples in order, as they are; the last batch may be smaller."""
        count = len(self.examples)
        return _ahead(
            lambda pool, i: self._make(np.arange(i, min(i + self.batch, count)), pool, None),
            range(0, count, self.batch),
        )

    def _make(
        self, indices: NDArray[np.int64], pool: ThreadPoolExecutor, rng: np.random.Generator | None
    ) -> Batch:
        inputs, targets = self.examples.inputs, self.examples.targets[indices]
        if isinstance(inputs, np.ndarray):
            chosen = inputs[indices]
            if inputs.dtype != np.uint8:
                return chosen, targets
            whole = chosen.shape[1:] == self.op.shape
            if whole and not (self.augment.scale or self.augment.resize):
                return self._tensor(chosen, rng), targets
        pictures: NDArray[np.uint8] = np.empty((len(indices), *self.op.shape), np.uint8)
        draws = [None] * len(indices) if rng is None else _each(rng, len(indices))

        def place(k: int) -> None:
            pictures[k] = self._picture(int(indices[k]), draws[k])

        list(pool.map(place, range(len(indices))))
        return self._tensor(pictures, rng), targets

    def _picture(self, index: int, rng: np.random.Generator | None) -> NDArray[np.uint8]:
        """One picture at the input's size, (C, H, W)."""
        channels, height, width = self.op.shape
        inputs = self.examples.inputs
        if isinstance(inputs, np.ndarray):
            picture = _as_picture(inputs[index]).convert(CHANNELS[channels])
        else:
            path = Path(inputs[index])
            picture = decode(path, str(path), CHANNELS[channels])
        into = (width, height)
        box = self.augment.box(picture.size, into, rng) if rng is not None else None
        if box is None:
            small = centre(picture, scaled_size(picture.size, into, self.op.picture.resize), into)
        else:
            small = picture.resize(into, Image.Resampling.BILINEAR, box=box)
        values = np.asarray(small, np.uint8).reshape(height, width, channels)
        return values.transpose(2, 0, 1)

    def _tensor(
        self, pictures: NDArray[np.uint8], rng: np.random.Generator | None
    ) -> NDArray[np.float32]:
        """Pictures (N, C, H, W), RGB or grey, as the net's input."""
        how = self.op.picture
        if rng is not None:
            pictures = self.augment.pixels(pictures, rng)
        values = pictures.astype(np.float32)
        if rng is not None:
            values = self.augment.colours(values, rng)
        if how.order == "bgr" and values.ndim == 4:
            values = values[:, ::-1]
        column = (1, -1, *(1 for _ in values.shape[2:]))
        values = values * np.float32(1.0 / how.scale)
        if any(how.mean):
            values = values - np.asarray(how.mean, np.float32).reshape(column)
        if how.std != (1.0,):
            values = values / np.asarray(how.std, np.float32).reshape(column)
        return np.ascontiguousarray(values, np.float32)


def _each(rng: np.random.Generator, count: int) -> list[np.random.Generator]:
    """A stream for each of a batch's pictures, so that no order of threads matters."""
    keys = rng.integers(0, 2**63, count).tolist()
    return [np.random.Generator(np.random.Philox(key=key)) for key in keys]


def _as_picture(values: NDArray[np.uint8]) -> Image.Image:
    """(C, H, W) as a picture."""
    if values.shape[0] == 1:
        return Image.fromarray(values[0])
    return Image.fromarray(np.ascontiguousarray(values.transpose(1, 2, 0)))


def _ahead(make: Any, numbers: range) -> Iterator[Batch]:
    """What `make(pool, number)` gives for each number, made some way ahead in a thread."""
    made: queue.Queue[Batch | BaseException | None] = queue.Queue(AHEAD)
    stopped = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return made.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            with ThreadPoolExecutor(DECODERS) as pool:
                for number in numbers:
                    if stopped.is_set():
                        return
                    put(make(pool, number))
            put(None)
        except BaseException as problem:
            put(problem)

    maker = threading.Thread(target=work, daemon=True)
    maker.start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        maker.join()
