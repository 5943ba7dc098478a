"""Weights files: what other programs write is read, what we write they read, damage is named."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from netdsl.faults import NetError
from netdsl.formats import safetensors
from netdsl.formats.safetensors import WeightsFile

RANDOM = np.random.default_rng(3)
TENSORS = {
    "conv1.weight": RANDOM.standard_normal((4, 3, 3, 3)).astype(np.float32),
    "conv1.bias": RANDOM.standard_normal(4).astype(np.float32),
    "none.weight": np.zeros((0, 3), np.float32),
}


def write(path: Path, header: dict[str, Any] | bytes, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_we_read_what_the_library_writes(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "w.safetensors")
    file = WeightsFile(tmp_path / "w.safetensors")
    assert file.shapes == {name: array.shape for name, array in TENSORS.items()}
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(file.read(name), array)


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    safetensors.save(tmp_path / "w.safetensors", TENSORS, {"net": "lenet5"})
    loaded = load_file(tmp_path / "w.safetensors")
    assert set(loaded) == set(TENSORS)
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(loaded[name], array)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_half_and_double_precision(tmp_path: Path) -> None:
    values = np.array([1.5, -2.25, 6e-8, 65504.0])
    save_file({"h": values.astype(np.float16), "d": values}, tmp_path / "w.safetensors")
    file = WeightsFile(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(file.read("h"), values.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(file.read("d"), values.astype(np.float32))
    assert file.read("h").dtype == file.read("d").dtype == np.float32


@pytest.mark.parametrize("pad", [0, 1])
def test_bfloat16_even_where_it_is_not_aligned(pad: int, tmp_path: Path) -> None:
    # 1.0 is 0x3f80, -2.5 is 0xc020: the upper halves of their float32.
    header = {"b": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 2 + pad)
    file = WeightsFile(write(tmp_path / "w.safetensors", text, b"\x80\x3f\x20\xc0"))
    assert file.read("b").tolist() == [1.0, -2.5]


def test_truncated(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[:-100])
    with pytest.raises(NetError, match=r"is broken off: 348 of 448 bytes"):
        WeightsFile(cut)
    cut.write_bytes(whole[:60])
    with pytest.raises(NetError, match="broken off within its header"):
        WeightsFile(cut)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(value: float, tmp_path: Path) -> None:
    array = np.zeros((2, 3), np.float32)
    array[1, 2] = value
    safetensors.save(tmp_path / "w.safetensors", {"fc1.weight": array})
    with pytest.raises(NetError, match=rf"fc1\.weight \[1, 2\] is {value}"):
        WeightsFile(tmp_path / "w.safetensors").read("fc1.weight")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a safetensors file"),
        (b"PK\x03\x04 something else altogether", "not a safetensors file"),
        (b"\xff" * 64, "not a safetensors file"),
        (struct.pack("<Q", 4) + b"{{{{", "not a safetensors file, or corrupt"),
        (struct.pack("<Q", 200_000) + b'{"a":' * 40_000, "not a safetensors file, or corrupt"),
    ],
)
def test_something_else(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    with pytest.raises(NetError, match=said):
        WeightsFile(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F31", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2]},
        {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 8]},
        7,
    ],
)
def test_a_header_that_lies(entry: Any, tmp_path: Path) -> None:
    with pytest.raises(NetError, match=r"corrupt|broken off"):
        WeightsFile(write(tmp_path / "w.safetensors", {"a": entry}, b"\0" * 8))


def test_numbers_that_weights_do_not_have(tmp_path: Path) -> None:
    save_file({"a": np.array([True])}, tmp_path / "w.safetensors")
    with pytest.raises(NetError, match="a holds BOOL, not F16, BF16, F32"):
        WeightsFile(tmp_path / "w.safetensors").read("a")


@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(data: st.DataObject, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    save_file(TENSORS, path)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, 300))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        file = WeightsFile(path)
        arrays = {name: file.read(name) for name in file.shapes}
    except NetError:
        return
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(NetError, match="there is no weights file"):
        WeightsFile(tmp_path / "w.safetensors")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.save(path, TENSORS)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="could not convert"):
        safetensors.save(path, {"a": np.array(["x"])})  # type: ignore[dict-item]
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    with pytest.raises(NetError, match="cannot be written: No such file or directory"):
        safetensors.save(tmp_path / "nowhere" / "w.safetensors", TENSORS)
