"""Pictures become tensors as the input's settings say."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netdsl.faults import NetError
from netdsl.formats import pictures
from netdsl.formats.pictures import read_picture, scaled_size
from netdsl.ops import Input, Picture

CAFFE = Input((3, 224, 224), Picture(256, "bgr", 1.0, (104.0, 117.0, 123.0)))


def picture(tmp_path: Path, pixels: np.ndarray, name: str = "a.png", **how: object) -> Path:
    path = tmp_path / name
    Image.fromarray(pixels).save(path, **how)
    return path


def test_chelsea_is_what_other_engines_were_given(shared: Path) -> None:
    expected = np.load(shared / "data/expected/googlenet_chelsea.npz")["input"][0]
    found = read_picture(shared / "data/photos/chelsea.png", CAFFE)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_scale_mean_and_deviation(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
    how = Picture(None, "rgb", 255.0, (0.5, 0.4, 0.3), (0.2, 0.1, 0.5))
    found = read_picture(picture(tmp_path, pixels), Input((3, 5, 7), how))
    expected = (pixels / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.1, 0.5]
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1), rtol=1e-5, atol=1e-6)


def test_blue_comes_first_where_asked(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[..., 0] = 255
    path = picture(tmp_path, pixels)
    assert read_picture(path, Input((3, 2, 2), Picture(order="bgr")))[:, 0, 0].tolist() == [0, 0, 1]
    assert read_picture(path, Input((3, 2, 2)))[:, 0, 0].tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("size", "into", "resize", "scaled"),
    [
        ((451, 300), (224, 224), 256, (385, 256)),
        ((300, 451), (224, 224), 256, (256, 385)),
        ((8, 8), (4, 4), None, (4, 4)),
        ((16, 8), (8, 4), None, (8, 4)),
        ((8, 8), (8, 4), None, (8, 8)),
        ((8, 16), (8, 4), None, (8, 16)),
        ((1, 100_000), (4, 4), None, (4, 400_000)),
    ],
)
def test_the_shorter_side_is_scaled(size, into, resize, scaled) -> None:  # type: ignore[no-untyped-def]
    assert scaled_size(size, into, resize) == scaled


def test_the_centre_is_cut(tmp_path: Path) -> None:
    pixels = np.arange(21, dtype=np.uint8).reshape(3, 7)
    found = read_picture(picture(tmp_path, pixels), Input((1, 3, 3), Picture(scale=1)))
    np.testing.assert_array_equal(found[0], pixels[:, 2:5])


def test_a_strip_costs_no_more_than_a_square(tmp_path: Path) -> None:
    pixels = np.repeat(np.arange(100_000) // 1000, 2).reshape(-1, 2).astype(np.uint8)
    found = read_picture(picture(tmp_path, pixels), Input((1, 64, 64), Picture(scale=1)))
    assert set(found[0, :30].ravel()) == {49}
    assert set(found[0, -30:].ravel()) == {50}


def test_a_part_is_what_it_is_in_the_whole(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_picture(shared / "data/photos/rocket.jpg", CAFFE)
    monkeypatch.setattr(pictures, "LARGEST_SCALED", 0)
    part = read_picture(shared / "data/photos/rocket.jpg", CAFFE)
    assert np.abs(part - whole).max() <= 1
    assert (part != whole).mean() < 0.05


def test_resize_below_the_input(tmp_path: Path) -> None:
    path = picture(tmp_path, np.zeros((9, 9), np.uint8))
    with pytest.raises(NetError, match=r"resize=4 makes the picture 4x4 .* less than .* 8x8"):
        read_picture(path, Input((1, 8, 8), Picture(resize=4)))


def test_grey_fills_three_channels_and_colour_becomes_grey(tmp_path: Path) -> None:
    grey = picture(tmp_path, np.full((2, 2), 51, np.uint8))
    np.testing.assert_allclose(read_picture(grey, Input((3, 2, 2))), 0.2, rtol=1e-6)
    green = np.zeros((2, 2, 3), np.uint8)
    green[..., 1] = 255
    found = read_picture(picture(tmp_path, green, "b.png"), Input((1, 2, 2), Picture(scale=1)))
    assert found[0, 0, 0] == 150  # ITU-R 601: 0.587 of 255


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    path = picture(tmp_path, np.array([[0, 257], [65535, 32896]], np.uint16))
    found = read_picture(path, Input((1, 2, 2), Picture(scale=1)))
    assert found.ravel().tolist() == [0, 1, 255, 128]


def test_transparent_shows_white(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (10, 20, 30, 255)
    found = read_picture(picture(tmp_path, pixels), Input((3, 2, 2), Picture(scale=1)))
    assert found[:, 0, 0].tolist() == [10, 20, 30]
    assert found[:, 1, 1].tolist() == [255, 255, 255]


def test_a_turned_photo_stands_upright(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    found = read_picture(picture(tmp_path, pixels, exif=exif), Input((3, 2, 2)))
    assert found[0].tolist() == [[0, 0], [0, 1]]


def test_from_memory() -> None:
    stream = BytesIO()
    Image.new("L", (3, 3), 255).save(stream, "png")
    stream.seek(0)
    assert read_picture(stream, Input((1, 3, 3)), "-").tolist() == np.ones((1, 3, 3)).tolist()


def test_not_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(b"not at all")
    with pytest.raises(NetError, match=r"cat\.png is not a picture"):
        read_picture(path, CAFFE)


def test_broken_off(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for name in ("a.png", "a.jpg"):
        path = picture(tmp_path, noise, name)
        path.write_bytes(path.read_bytes()[:700])
        with pytest.raises(NetError, match="cannot be read"):
            read_picture(path, CAFFE)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = picture(tmp_path, np.zeros((100, 100), np.uint8))
    for limit in (9_000, 4_000):  # Pillow warns above its limit, and raises above twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(NetError, match=f"more than {limit:,} pixels"):
            read_picture(path, CAFFE)


@pytest.mark.parametrize("shape", [(4, 8, 8), (3, 8), (3, 4, 8, 8), (64,)])
def test_an_input_no_picture_fits(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = picture(tmp_path, np.zeros((8, 8), np.uint8))
    with pytest.raises(NetError, match="is a picture, and the net's input is"):
        read_picture(path, Input(shape))
