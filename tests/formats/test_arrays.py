"""NumPy files read row by row, and the outputs written the same way."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdsl.faults import NetError
from netdsl.formats.arrays import Arrays
from netdsl.formats.outputs import saving

X = np.random.default_rng(5).standard_normal((4, 2, 3)).astype(np.float32)


def rows(source: Any, key: str = "") -> np.ndarray:
    return np.stack(list(Arrays(source, "x").rows(key)))


@pytest.mark.parametrize("kind", ["f2", "f4", ">f8", "u1", "i8", "?"])
def test_numbers_of_any_kind(kind: str, tmp_path: Path) -> None:
    values = (X * 10).astype(kind)
    np.save(tmp_path / "x.npy", values)
    np.testing.assert_array_equal(rows(tmp_path / "x.npy"), values.astype(np.float32))


def test_columns_first(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asfortranarray(X))
    np.testing.assert_array_equal(rows(tmp_path / "x.npy"), X)
    np.testing.assert_array_equal(Arrays(tmp_path / "x.npy", "x").whole(""), X)


def test_several_in_a_file(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", a=X, b=X[:1])
    arrays = Arrays(tmp_path / "x.npz", "x")
    assert {key: header.shape for key, header in arrays.headers.items()} == {
        "a": (4, 2, 3),
        "b": (1, 2, 3),
    }
    np.testing.assert_array_equal(rows(tmp_path / "x.npz", "a"), X)


def test_from_memory() -> None:
    stream = BytesIO()
    np.save(stream, X)
    np.testing.assert_array_equal(rows(stream), X)


def test_objects_are_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(NetError, match="holds Python objects"):
        Arrays(tmp_path / "x.npy", "x.npy")
    np.save(tmp_path / "x.npy", np.array(["cat"]))
    with pytest.raises(NetError, match="holds <U3, not numbers"):
        Arrays(tmp_path / "x.npy", "x.npy")


def test_a_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    stream = BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 2, 3)}
    np.lib.format.write_array_header_1_0(stream, header)
    (tmp_path / "x.npy").write_bytes(stream.getvalue() + X.tobytes())
    reading = Arrays(tmp_path / "x.npy", "x.npy").rows("")
    np.testing.assert_array_equal([next(reading) for _ in range(4)], X)
    with pytest.raises(NetError, match=r"x\.npy breaks off before its last number"):
        next(reading)


def test_broken_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=X)
    whole = (tmp_path / "x.npz").read_bytes()
    for data in (
        b"",
        b"\x93NUMPY\x09\x00",
        b"\x93NUMPY\x01\x00\xff\xff{",
        whole[: len(whole) // 2],
    ):
        (tmp_path / "y").write_bytes(data)
        with pytest.raises(NetError, match="cannot be read"):
            Arrays(tmp_path / "y", "y")
    damaged = whole.replace(X.tobytes(), X[::-1].tobytes())
    (tmp_path / "y").write_bytes(damaged)
    with pytest.raises(NetError, match="Bad CRC-32"):
        rows(tmp_path / "y", "a")


def header(text: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_headers_that_are_no_python(tmp_path: Path) -> None:
    for text in (b"{'descr': '<f4', \n", b"{(", b" {}\n  {}\n {", b"(" * 9000, b"{'a': 1e999L"):
        (tmp_path / "y").write_bytes(header(text))
        with pytest.raises(NetError, match="cannot be read"):
            Arrays(tmp_path / "y", "y")


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_do_not_unpack(packing: int, tmp_path: Path) -> None:
    stream = BytesIO()
    np.save(stream, X)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", packing) as archive:
        archive.writestr("a.npy", stream.getvalue())
    whole = bytearray((tmp_path / "x.npz").read_bytes())
    for place in range(50, 60):
        damaged = whole.copy()
        damaged[place] ^= 0xFF
        (tmp_path / "y").write_bytes(damaged)
        with pytest.raises(NetError, match="cannot be read"):
            rows(tmp_path / "y", "a")


@pytest.mark.filterwarnings("error")
def test_what_is_beyond_float32_is_infinite(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1e300, -1e300]]))
    np.testing.assert_array_equal(rows(tmp_path / "x.npy"), [[np.inf, -np.inf]])


@pytest.mark.parametrize("name", ["y.npy", "y.npz"])
def test_outputs_are_saved_batch_by_batch(name: str, tmp_path: Path) -> None:
    with saving(tmp_path / name, {"fc1": (2, 3)}) as saver:
        saver.add({"fc1": X[:3], "other": X})
        saver.add({"fc1": X[3:], "other": X})
    loaded = np.load(tmp_path / name)
    if name == "y.npz":
        with loaded as archive:
            loaded = archive["fc1"]
    np.testing.assert_array_equal(loaded, X)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_outputs_keep_their_kind_and_names(tmp_path: Path) -> None:
    with saving(tmp_path / "y.npz", {"a.b": (2, 3), "c": (1,)}) as saver:
        saver.add({"a.b": X.astype(np.float64), "c": np.ones((4, 1), np.float32)})
    with np.load(tmp_path / "y.npz", allow_pickle=False) as loaded:
        assert loaded["a.b"].dtype == np.float64
        assert loaded["c"].shape == (4, 1)
    with zipfile.ZipFile(tmp_path / "y.npz") as archive:
        assert archive.namelist() == ["a.b.npy", "c.npy"]


def test_no_outputs_are_an_empty_array(tmp_path: Path) -> None:
    with saving(tmp_path / "y.npy", {"fc1": (2, 3)}):
        pass
    assert np.load(tmp_path / "y.npy").shape == (0, 2, 3)


def test_a_run_that_fails_leaves_the_old_outputs(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", X)
    with (
        pytest.raises(KeyError, match="fc1"),
        saving(tmp_path / "y.npy", {"fc1": (2, 3)}) as saver,
    ):
        saver.add({})
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), X)
    assert [p.name for p in tmp_path.iterdir()] == ["y.npy"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("y.txt", "saved as .npy or .npz"),
        ("y.npy", "holds one array, and there are 2 outputs"),
        ("no/y.npz", "there is no folder"),
        (f"{'y' * 247}.npz", "File name too long"),
        (f"{'y' * 300}.npz", "File name too long"),
    ],
)
def test_names_that_cannot_be_saved(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(NetError, match=said), saving(tmp_path / name, {"a": (1,), "b": (1,)}):
        pass
