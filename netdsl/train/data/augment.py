"""Augmentation: training pictures moved, mirrored, scaled and recoloured, drawn by a seed.

All of a batch's random numbers are drawn at once from a stream of its own, keyed by seed, epoch
and batch; so nothing has to be remembered to go on where training stopped.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error

PRESETS = {
    "alexnet": "resize=1.143,flip,lighting=0.1",
    "cifar": "crop=4,flip",
    "digits": "crop=2",
    "imagenet": "scale=0.08,flip,jitter=0.4,lighting=0.1",
}
"""Whole recipes by name. AlexNet's: the shorter side to 256, a random 224 cut out of it, mirrored
half of the time, colours moved along the principal components of ImageNet's pixels."""

# Eigenvalues and eigenvectors of the covariance of ImageNet's RGB pixels, in units of 1/255
# (Krizhevsky et al. 2012, section 4.1; the numbers are those that Torch's fb.resnet uses).
SPREAD = np.array([0.2175, 0.0188, 0.0045], np.float32)
AXES = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]],
    np.float32,
)
KINDS: dict[str, type[int] | type[float] | type[bool]] = {
    "int": int,
    "float": float,
    "bool": bool,
}
GREY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Augment:
    """What is done to training pictures.

    crop: pads by so many pixels and cuts the input's size out at random. flip: mirrors half of
    them. scale: cuts out a random part of at least that share of the area, of aspect 3:4 to 4:3,
    and scales it to the input. resize: scales the shorter side to that many times the input's and
    cuts out at random. jitter: brightness, contrast and saturation times 1 ± that. lighting:
    AlexNet's colour noise, of that deviation.
    """

    crop: int = 0
    flip: bool = False
    scale: float = 0.0
    resize: float = 0.0
    jitter: float = 0.0
    lighting: float = 0.0

    def __bool__(self) -> bool:
        return self != Augment()

    @classmethod
    def parse(cls, text: str) -> Augment:
        """Settings such as `crop=4,flip`, or a recipe's name. Raises NetError."""
        kinds = {field.name: KINDS[str(field.type)] for field in fields(cls)}
        found: dict[str, float | int | bool] = {}
        for word in filter(None, PRESETS.get(text, text).replace(" ", "").split(",")):
            name, _, value = word.partition("=")
            if name not in kinds:
                raise error(
                    "unknown-augmentation",
                    f"there is no augmentation {name!r}",
                    help=f"some of {', '.join(kinds)}, or one of {', '.join(PRESETS)}",
                )
            try:
                found[name] = True if kinds[name] is bool else kinds[name](value)
            except ValueError:
                raise error(
                    "wrong-value", f"{name} takes a number, as in {name}=4, not {value!r}"
                ) from None
        made = cls(**found)  # type: ignore[arg-type]
        bounded = made.scale <= 1 and made.jitter <= 1 and (not made.resize or made.resize >= 1)
        if not bounded or min(made.crop, made.scale, made.resize, made.jitter, made.lighting) < 0:
            raise error("out-of-range", f"augmentation {text!r} is out of its range")
        return made

    def box(
        self, size: tuple[int, int], into: tuple[int, int], rng: np.random.Generator
    ) -> tuple[float, float, float, float] | None:
        """The part (left, top, right, bottom) of a picture that becomes the input; None: as `run`
        would. Sizes are (width, height)."""
        if self.scale:
            return _part(size, self.scale, rng)
        if not self.resize:
            return None
        by = self.resize * max(into[0] / size[0], into[1] / size[1])
        width, height = into[0] / by, into[1] / by
        left, top = rng.uniform(size=2) * (size[0] - width, size[1] - height)
        return left, top, left + width, top + height

    def pixels(self, pictures: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Moves and mirrors pictures (N, C, H, W)."""
        count, _, height, width = pictures.shape
        if self.crop:
            shifts = rng.integers(0, 2 * self.crop + 1, (count, 2))
            pad = ((0, 0), (0, 0), (self.crop, self.crop), (self.crop, self.crop))
            padded = np.pad(pictures, pad)
            pictures = np.stack(
                [
                    picture[:, y : y + height, x : x + width]
                    for picture, (y, x) in zip(padded, shifts.tolist(), strict=True)
                ]
            )
        if self.flip:
            mirrored = np.asarray(rng.uniform(size=count) < 0.5)
            pictures = np.where(mirrored[:, None, None, None], pictures[..., ::-1], pictures)
        return pictures

    def colours(self, values: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Recolours RGB or grey pictures (N, C, H, W) of pixels from 0 to 255."""
        count, channels = values.shape[:2]
        if self.jitter:
            by = (1 + self.jitter * rng.uniform(-1, 1, (3, count, 1, 1, 1))).astype(np.float32)
            values = values * by[0]
            values = (values - values.mean((1, 2, 3), keepdims=True)) * by[1] + values.mean(
                (1, 2, 3), keepdims=True
            )
            if channels == 3:
                grey = np.einsum("c,nchw->nhw", GREY, values)[:, None]
                values = grey + (values - grey) * by[2]
        if self.lighting and channels == 3:
            draw = rng.normal(0, self.lighting, (count, 3)).astype(np.float32)
            moved = ((draw * SPREAD) @ AXES.T).astype(np.float32)
            values = values + np.float32(255) * moved[:, :, None, None]
        if self.jitter or self.lighting:
            values = np.clip(values, 0, 255)
        return values


def _part(
    size: tuple[int, int], least: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """A random part of a picture, of a share of its area and of aspect 3:4 to 4:3."""
    area = size[0] * size[1]
    for _ in range(10):
        share = rng.uniform(least, 1.0) * area
        aspect = float(np.exp(rng.uniform(-np.log(4 / 3), np.log(4 / 3))))
        width, height = (share * aspect) ** 0.5, (share / aspect) ** 0.5
        if width <= size[0] and height <= size[1]:
            left, top = rng.uniform(size=2) * (size[0] - width, size[1] - height)
            return left, top, left + width, top + height
    side = min(size)
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    return left, top, left + side, top + side
