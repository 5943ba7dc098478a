"""The stream of samples that `run` reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from netdsl import lang
from netdsl.faults import NetError
from netdsl.formats.inputs import Broken, Sample, items, stream

TWO = lang.load("net two; input 2x4 as a; input 3 as b; a -> flatten -> fc(3) as c; [c + b]")
A = np.arange(16, dtype=np.float32).reshape(2, 2, 4)
B = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_an_array_for_each_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=A, b=B, unused=B)
    (item,) = items([str(tmp_path / "x.npz")], TWO)
    assert item.rows(TWO) == 2
    for number, sample in enumerate(stream([item], TWO)):
        assert isinstance(sample, Sample)
        assert sample.name == f"{tmp_path / 'x.npz'}[{number}]"
        np.testing.assert_array_equal(sample.arrays["a"], A[number])
        np.testing.assert_array_equal(sample.arrays["b"], B[number])


def test_one_sample_for_several_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=A[0], b=B[0])
    (sample,) = stream(items([str(tmp_path / "x.npz")], TWO), TWO)
    assert isinstance(sample, Sample)
    np.testing.assert_array_equal(sample.arrays["b"], B[0])


def test_several_inputs_take_no_single_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", A)
    with pytest.raises(NetError, match=r"x\.npy holds one array; two takes a, b from a file"):
        items([str(tmp_path / "x.npy")], TWO)
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(NetError, match=r"two has 2 inputs, .*x\.png can fill only one"):
        items([str(tmp_path / "x.png")], TWO)


def test_unlike_numbers_of_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=A, b=B[:1])
    with pytest.raises(NetError, match="unlike numbers of samples"):
        items([str(tmp_path / "x.npz")], TWO)


def test_a_truncated_array_gives_what_it_has_and_then_its_fault(tmp_path: Path) -> None:
    graph = lang.load("input 2x4; relu")
    np.save(tmp_path / "x.npy", A)
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole[:-1])
    first, broken = stream(items([str(tmp_path / "x.npy")], graph), graph)
    assert isinstance(first, Sample)
    assert isinstance(broken, Broken)
    assert "breaks off before its last number" in str(broken.fault)
