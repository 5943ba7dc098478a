"""Reading data: every format, and what is wrong with it, in one sentence."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netdsl.faults import NetError
from netdsl.train import Examples, open_data
from netdsl.train.data.idx import read_idx
from netdsl.train.data.named import SETS
from train.made import examples, spots, write_idx


def _idx_folder(folder: Path, ending: str = "") -> Path:
    pictures, labels = spots(9)
    for part, stop in (("train", 9), ("t10k", 6)):
        write_idx(folder / f"{part}-images-idx3-ubyte{ending}", pictures[:stop, 0])
        write_idx(folder / f"{part}-labels-idx1-ubyte{ending}", labels[:stop])
    return folder


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_folder(tmp_path: Path, ending: str) -> None:
    data = open_data(_idx_folder(tmp_path, ending))
    pictures, labels = spots(9)
    np.testing.assert_array_equal(data.train.inputs, pictures)
    np.testing.assert_array_equal(data.train.targets, labels)
    assert data.test is not None
    assert len(data.test) == 6


def test_idx_of_floats_is_big_endian(tmp_path: Path) -> None:
    path = tmp_path / "x-idx1"
    path.write_bytes(b"\0\0\x0d\x01\0\0\0\x01" + np.array([1.5], ">f4").tobytes())
    assert read_idx(path).tolist() == [1.5]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not an idx file"),
        (b"PK\3\4 a zip", "is not an idx file"),
        (b"\0\0\x08\x01\0\0\0\x09abc", "breaks off: 11 of 17 bytes"),
        (b"\0\0\x08\x03\0\0", "breaks off"),
        (b"\x1f\x8b broken gzip", "cannot be read"),
    ],
)
def test_idx_that_is_not_one(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(NetError, match=says):
        read_idx(path)


def test_idx_folder_without_labels(tmp_path: Path) -> None:
    (_idx_folder(tmp_path) / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(NetError, match="no training images and labels"):
        open_data(tmp_path)


def test_uneven_idx(tmp_path: Path) -> None:
    write_idx(_idx_folder(tmp_path) / "train-labels-idx1-ubyte", np.zeros(5))
    with pytest.raises(NetError, match="9 inputs and 5 targets"):
        open_data(tmp_path)


def test_npz(tmp_path: Path) -> None:
    pictures, labels = spots(6)
    np.savez(tmp_path / "a.npz", inputs=pictures, labels=labels)
    data = open_data(tmp_path / "a.npz")
    assert data.test is None
    np.testing.assert_array_equal(data.train.inputs, pictures)
    np.savez(
        tmp_path / "b.npz", x_train=pictures / 255, y_train=labels, x_test=pictures, y_test=labels
    )
    data = open_data(tmp_path / "b.npz")
    assert data.test is not None
    assert isinstance(data.train.inputs, np.ndarray)
    assert data.train.inputs.dtype == np.float32


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({}, "holds nothing"),
        ({"inputs": np.zeros((2, 1))}, "holds inputs: no inputs with their labels"),
        ({"inputs": np.array(["a"]), "labels": np.zeros(1)}, "not numbers"),
        ({"inputs": np.zeros((2, 1)), "labels": np.zeros(3)}, "2 inputs and 3 targets"),
        ({"inputs": np.zeros((0, 1)), "labels": np.zeros(0)}, "no examples"),
        ({"inputs": np.array([{}], object), "labels": np.zeros(1)}, "cannot be read"),
    ],
)
def test_npz_that_does_not_do(tmp_path: Path, arrays: dict[str, np.ndarray], says: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(NetError, match=says):
        open_data(tmp_path / "a.npz")


def test_no_npz_at_all(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 1)))
    (tmp_path / "a.npz").write_bytes(b"junk")
    for name in ("a.npy", "a.npz"):
        with pytest.raises(NetError, match=r"is no \.npz file"):
            open_data(tmp_path / name)


def test_a_damaged_npz(tmp_path: Path) -> None:
    pictures, labels = spots(6)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, inputs=pictures, labels=labels)
    whole = path.read_bytes()
    path.write_bytes(whole[:70] + b"\xff" * 9 + whole[79:])
    with pytest.raises(NetError, match="cannot be read"):
        open_data(path)
    for shape in (b"(6,", b"(" + b"9" * 12 + b", ), }", b"(" + b"9" * 40 + b", ), }"):
        text = b"{'descr': '<f4', 'fortran_order': False, 'shape': " + shape + b"\n"
        with zipfile.ZipFile(path, "w") as archive:
            head = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little")
            archive.writestr("inputs.npy", head + text)
        with pytest.raises(NetError, match="cannot be read"):
            open_data(path)


@pytest.mark.parametrize(("labels", "names"), [(1, "data_batch_{}.bin test_batch.bin"), (2, "")])
def test_cifar(tmp_path: Path, labels: int, names: str) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 10, (4, labels + 3072)).astype(np.uint8)
    files = ["data_batch_1.bin", "data_batch_2.bin"] if labels == 1 else ["train.bin"]
    for file in (*files, "test_batch.bin" if labels == 1 else "test.bin"):
        (tmp_path / file).write_bytes(rows.tobytes())
    data = open_data(tmp_path)
    assert len(data.train) == 4 * len(files)
    np.testing.assert_array_equal(data.train.targets[:4], rows[:, labels - 1])
    np.testing.assert_array_equal(data.train.inputs[3][2, 31], rows[3, -32:])
    assert data.test is not None
    (tmp_path / files[0]).write_bytes(rows.tobytes()[:-1])
    with pytest.raises(NetError, match="not a multiple of"):
        open_data(tmp_path)


def test_pickles_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(b"")
    with pytest.raises(NetError, match="pickles"):
        open_data(tmp_path)


def _picture_folder(folder: Path, each: int = 3) -> Path:
    for i, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for k in range(each):
            Image.new("RGB", (12, 10), (40 * k, 100 * i, 0)).save(folder / name / f"{k}.png")
    return folder


def test_picture_folders(tmp_path: Path) -> None:
    data = open_data(_picture_folder(tmp_path))
    assert data.train.classes == ("cat", "dog")
    assert data.train.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.train.balance() == {"cat": 3, "dog": 3}


def test_picture_folders_with_a_test_part(tmp_path: Path) -> None:
    _picture_folder(tmp_path / "train")
    _picture_folder(tmp_path / "val", 1)
    data = open_data(tmp_path)
    assert data.test is not None
    assert data.test.targets.tolist() == [0, 1]
    (tmp_path / "val" / "newt").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "val" / "newt" / "a.png")
    with pytest.raises(NetError, match="a class newt that training has not"):
        open_data(tmp_path)


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    _picture_folder(tmp_path)
    (tmp_path / "cat" / "1.png").write_bytes(b"\x89PNG junk")
    with pytest.raises(NetError, match=r"cat/1\.png: not a picture") as raised:
        open_data(tmp_path)
    assert "--broken skip" in str(raised.value)
    data = open_data(tmp_path, broken="skip")
    assert len(data.train) == 5
    assert "cat/1.png" in data.notes[0]


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(NetError, match="holds no pictures in class folders"):
        open_data(tmp_path)


def test_no_such_data() -> None:
    with pytest.raises(NetError, match="no data 'mnits'"):
        open_data("mnits")


def test_named_set_from_a_folder_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fashion_mnist's unpacked files have no checksum to fail; mnist's do."""
    monkeypatch.setenv("NETDSL_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path.parent)
    for name in SETS:
        (tmp_path / name).mkdir()
        _idx_folder(tmp_path / name)
    assert open_data("fashion_mnist").train.classes is not None
    with pytest.raises(NetError, match="is not the file it should be"):
        open_data("mnist")


def test_split_takes_a_share_of_each_class() -> None:
    kept, held = examples(60).split(0.25, seed=0)
    assert held.balance() == {"left": 5, "right": 5, "low": 5}
    assert len(kept) == 45
    again, _ = examples(60).split(0.25, seed=0)
    np.testing.assert_array_equal(kept.targets, again.targets)
    np.testing.assert_array_equal(np.asarray(kept.inputs), np.asarray(again.inputs))


def test_one_picture_a_class_cannot_be_split() -> None:
    with pytest.raises(NetError, match="one example of class left"):
        examples(3).split(0.5, seed=0)
    with pytest.raises(NetError, match="between 0 and 1"):
        examples(9).split(1.0, seed=0)


def test_balance_of_floats_is_none() -> None:
    assert Examples("f", np.zeros((2, 3), np.float32), np.zeros((2, 1), np.float32)).balance() == {}
