"""Batches: order, augmentation, and going on from any step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netdsl.faults import NetError
from netdsl.ops import Input, Picture
from netdsl.train import Augment, Batches, Examples
from train.made import examples

OP = Input((1, 8, 8))


def _epoch(batches: Batches, epoch: int = 0, start: int = 0) -> list[np.ndarray]:
    return [inputs for inputs, _ in batches.epoch(epoch, start)]


def test_an_epoch_has_each_example_once() -> None:
    data = examples(12)
    batches = Batches(data, OP, 4)
    seen = np.concatenate(_epoch(batches))
    assert seen.shape == (12, 1, 8, 8)
    own = {picture.tobytes() for picture in (np.asarray(data.inputs) / np.float32(255)).round(5)}
    assert {picture.tobytes() for picture in seen.round(5)} == own


def test_labels_stay_with_their_pictures() -> None:
    data = examples(12)
    lookup = {np.asarray(p).tobytes(): t for p, t in zip(data.inputs, data.targets, strict=True)}
    for inputs, targets in Batches(data, OP, 5).epoch(3):
        for picture, target in zip((inputs * 255).round().astype(np.uint8), targets, strict=True):
            assert lookup[picture.tobytes()] == target


def test_seed_and_epoch_decide_the_order() -> None:
    first = np.stack(_epoch(Batches(examples(), OP, 10, seed=1)))
    np.testing.assert_array_equal(first, np.stack(_epoch(Batches(examples(), OP, 10, seed=1))))
    assert not np.array_equal(first, np.stack(_epoch(Batches(examples(), OP, 10, seed=2))))
    assert not np.array_equal(first, np.stack(_epoch(Batches(examples(), OP, 10, seed=1), 1)))


def test_goes_on_from_any_step() -> None:
    augment = Augment.parse("crop=2,flip,jitter=0.3")
    whole = _epoch(Batches(examples(), OP, 10, seed=5, augment=augment), 2)
    rest = _epoch(Batches(examples(), OP, 10, seed=5, augment=augment), 2, start=3)
    assert len(rest) == 3
    np.testing.assert_array_equal(np.stack(whole[3:]), np.stack(rest))


def test_what_fills_no_batch_sits_out() -> None:
    batches = Batches(examples(10), OP, 4)
    assert batches.steps == 2
    assert [len(x) for x in _epoch(batches)] == [4, 4]
    assert [len(x) for x, _ in batches.once()] == [4, 4, 2]


def test_pictures_as_the_input_says() -> None:
    op = Input(
        (3, 1, 1), Picture(order="bgr", scale=1.0, mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0))
    )
    pixels = np.array([10, 20, 30], np.uint8).reshape(1, 3, 1, 1)
    ((inputs, _),) = Batches(Examples("p", pixels, np.zeros(1, np.int64)), op, 1).once()
    np.testing.assert_allclose(inputs.reshape(-1), [(30 - 1) / 1, (20 - 2) / 2, (10 - 3) / 4])


def test_files_are_scaled_and_cut(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "a.png")
    data = Examples("files", [tmp_path / "a.png"], np.zeros(1, np.int64))
    ((inputs, _),) = Batches(data, Input((3, 8, 8)), 1).once()
    assert inputs.shape == (1, 3, 8, 8)
    np.testing.assert_allclose(inputs[0, 0], 1.0)
    assert not inputs[0, 1:].any()


def test_grey_pictures_fill_a_coloured_input() -> None:
    ((inputs, _), *_) = Batches(examples(4), Input((3, 16, 16)), 4).once()
    assert inputs.shape == (4, 3, 16, 16)
    np.testing.assert_array_equal(inputs[:, 0], inputs[:, 1])


@pytest.mark.parametrize("text", ["scale=0.3", "resize=1.2", "alexnet", "imagenet", "cifar", ""])
def test_recipes_keep_the_shape(text: str) -> None:
    op = Input((3, 8, 8))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 3, 12, 10)).astype(np.uint8)
    data = Examples("p", pixels, np.zeros(6, np.int64))
    (batch,) = _epoch(Batches(data, op, 6, augment=Augment.parse(text)))
    assert batch.shape == (6, 3, 8, 8)
    assert 0.0 <= batch.min() < batch.max() <= 1.0
    (other,) = _epoch(Batches(data, op, 6, augment=Augment.parse(text)), 1)
    if text:
        assert not np.array_equal(np.sort(batch.ravel()), np.sort(other.ravel()))


def test_crop_moves_by_whole_pixels() -> None:
    pixels = np.zeros((50, 1, 5, 5), np.uint8)
    pixels[:, 0, 2, 2] = 255
    moved = Augment(crop=1).pixels(pixels, np.random.default_rng(0))
    places = {tuple(np.argwhere(picture[0])[0]) for picture in moved}
    assert places == {(y, x) for y in (1, 2, 3) for x in (1, 2, 3)}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("crop=x", "takes a number"),
        ("spin", "no augmentation 'spin'"),
        ("scale=2", "out of its range"),
        ("crop=-1", "out of its range"),
        ("resize=0.5", "out of its range"),
    ],
)
def test_bad_augmentation(text: str, says: str) -> None:
    with pytest.raises(NetError, match=says):
        Augment.parse(text)


def test_a_batch_larger_than_the_data() -> None:
    with pytest.raises(NetError, match="a batch of 64 is larger than the data: spots has 60"):
        Batches(examples(60), OP, 64)


@pytest.mark.parametrize("shape", [(1, 16), (2, 8, 8), (64,)])
def test_inputs_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(NetError, match=r"spots holds 1x8x8, the net's input is"):
        Batches(examples(4), Input(shape), 2)


def test_floats_are_not_augmented() -> None:
    data = Examples("f", np.zeros((4, 1, 8, 8), np.float32), np.zeros(4, np.int64))
    ((inputs, _),) = Batches(data, OP, 4).epoch(0)
    assert inputs.dtype == np.float32
    with pytest.raises(NetError, match="no pictures to augment"):
        Batches(data, OP, 4, augment=Augment(flip=True))


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    data = Examples("files", [tmp_path / "gone.png"], np.zeros(1, np.int64))
    with pytest.raises(NetError, match=r"gone\.png"):
        list(Batches(data, Input((3, 8, 8)), 1).once())
