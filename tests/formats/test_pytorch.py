"""PyTorch's files: tensors come out bit for bit, and whatever else a pickle wants is refused."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netdsl
from netdsl.faults import NetError
from netdsl.formats import pickles
from netdsl.formats.pytorch import TorchFile


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


class Reduced:
    def __init__(self, value: Any) -> None:
        self.value = value


HOSTILE = {
    "a call": pickle.dumps(Calls(os.system, "touch HIT")),
    "a call within": pickle.dumps({"weight": [Calls(eval, "open('HIT', 'w')")]}),
    "protocol 0": pickle.dumps(Calls(os.system, "touch HIT"), protocol=0),
    "protocol 5": pickle.dumps(Calls(os.system, "touch HIT"), protocol=5),
    "a call by INST": b"(S'touch HIT'\nios\nsystem\n.",
    "a call by OBJ": b"(cos\nsystem\nS'touch HIT'\no.",
    "an object": b"\x80\x02csubprocess\nPopen\n)\x81.",
    "an object with a state": pickle.dumps(Reduced(1)),
    "an extension": b"\x80\x02\x82\x01.",
    "a persistent id of text": b"\x80\x02Pos.system\n.",
    "a setter": b"\x80\x02]}(X\x01\x00\x00\x00aK\x01ub.",
    "an attribute": b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c\x04pass\x85R.",
    "torch's own loader": b"\x80\x02ctorch.storage\n_load_from_bytes\nU\x01a\x85R.",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_pickles_are_refused(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NetError) as caught:
        pickles.load(io.BytesIO(content), "bad.pth")
    assert caught.value.faults[0].code == "unsafe-pickle"
    assert not (tmp_path / "HIT").exists()


BROKEN = {
    "empty": b"",
    "no stop": b"\x80\x02]",
    "nothing on the stack": b"\x80\x02.",
    "an unknown memory": b"\x80\x02h\x07.",
    "an opcode of none": b"\x80\x02\xff.",
    "a length that lies": b"\x80\x02X\xff\xff\xff\x7fab.",
    "a long that lies": b"\x80\x02\x8b\xff\xff\xff\x7fab.",
    "no mark": b"\x80\x02K\x01t.",
    "a call of no name": b"\x80\x02K\x01)R.",
    "an unhashable key": b"\x80\x02}]K\x01s.",
    "a key of tuples": b"\x80\x02}K\x01\x85K\x01s.",
    "append to a number": b"\x80\x02K\x01K\x02a.",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_pickles(content: bytes) -> None:
    with pytest.raises(NetError) as caught:
        pickles.load(io.BytesIO(content), "bad.pth")
    assert caught.value.faults[0].code == "corrupt"


def test_containers_become_plain_ones() -> None:
    value = {"a": [1, 2.5, (None, True)], "b": OrderedDict(c="d"), "e": ()}
    for protocol in range(6):
        content = pickle.dumps(value, protocol)
        if protocol == 0:
            # Protocol 0 builds its dicts one by one, which is allowed too.
            assert pickles.load(io.BytesIO(content), "x")["a"] == value["a"]
            continue
        found = pickles.load(io.BytesIO(content), "x")
        assert found == value
        assert type(found["b"]) is dict


# Files, written as PyTorch does, without it -------------------------------------------------------


def tensor(key: str, size: tuple[int, ...], *, count: int, stride: tuple[int, ...]) -> bytes:
    """The opcodes of a float32 tensor, as torch.save writes them."""
    ints = lambda values: b"(" + b"".join(b"J" + struct.pack("<i", v) for v in values) + b"t"  # noqa: E731
    text = lambda value: b"X" + struct.pack("<i", len(value)) + value.encode()  # noqa: E731
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu")
    storage += b"J" + struct.pack("<i", count) + b"tQ"
    rest = b"J\x00\x00\x00\x00" + ints(size) + ints(stride) + b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


def state(**tensors: bytes) -> bytes:
    items = b"".join(b"X" + struct.pack("<i", len(n)) + n.encode() + t for n, t in tensors.items())
    return b"\x80\x02}(" + items + b"u."


def write(path: Path, content: bytes, *storages: bytes, compression: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        for i, data in enumerate(storages):
            archive.writestr(f"archive/data/{i}", data)
        archive.writestr("archive/version", b"3\n")
    return path


NUMBERS = np.arange(12, dtype=np.float32) / 7


def test_a_zip_file(tmp_path: Path) -> None:
    content = state(
        a=tensor("0", (3, 4), count=12, stride=(4, 1)),
        b=tensor("0", (4, 3), count=12, stride=(1, 4)),
    )
    file = TorchFile(write(tmp_path / "a.pth", content, NUMBERS.tobytes()))
    assert file.shapes == {"a": (3, 4), "b": (4, 3)}
    assert file.read("a").tobytes() == NUMBERS.tobytes()
    np.testing.assert_array_equal(file.read("b"), NUMBERS.reshape(3, 4).T)


def first(path: Path) -> Any:
    file = TorchFile(path)
    return file.read(next(iter(file.shapes)))


def code(path: Path) -> str:
    with pytest.raises(NetError) as caught:
        first(path)
    assert str(path) in str(caught.value)
    return caught.value.faults[0].code


def test_sizes_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    for size, stride in [((4, 4), (4, 1)), ((2**30,), (0,)), ((2**30, 2**30), (1, 1))]:
        content = state(a=tensor("0", size, count=12, stride=stride))
        assert code(write(path, content, NUMBERS.tobytes())) == "corrupt"
    assert code(write(path, state(a=tensor("9", (1,), count=1, stride=(1,))))) == "corrupt"
    content = state(a=tensor("0", (-1,), count=12, stride=(1,)))
    assert code(write(path, content, NUMBERS.tobytes())) == "corrupt"


def test_a_zip_bomb_takes_no_memory(tmp_path: Path) -> None:
    content = state(a=tensor("0", (1 << 24,), count=1 << 24, stride=(1,)))
    path = tmp_path / "bomb.pth"
    write(path, content, bytes(1 << 26), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        assert code(path) == "corrupt"
        assert tracemalloc.get_traced_memory()[1] < 1 << 23
    finally:
        tracemalloc.stop()


def test_every_truncation_and_many_corruptions(tmp_path: Path) -> None:
    content = state(a=tensor("0", (3, 4), count=12, stride=(4, 1)))
    whole = write(tmp_path / "a.pth", content, NUMBERS.tobytes()).read_bytes()
    path = tmp_path / "b.pth"
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        assert code(path) in ("truncated", "not-weights", "corrupt")
    random = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        try:
            file = TorchFile(path)
            assert all(file.read(name).shape == shape for name, shape in file.shapes.items())
        except NetError:
            pass


def test_numbers_that_are_none(tmp_path: Path) -> None:
    bad = NUMBERS.copy()
    bad[5] = np.nan
    content = state(a=tensor("0", (3, 4), count=12, stride=(4, 1)))
    path = write(tmp_path / "a.pth", content, bad.tobytes())
    with pytest.raises(NetError, match=r"a \[1, 1\] is nan"):
        TorchFile(path).read("a")


def test_nesting_that_multiplies_ends(tmp_path: Path) -> None:
    """Each dict holds the last one twice: a tree of 2^60 tensors in some hundred bytes."""
    step = b"q\x01}(X\x01\x00\x00\x00ah\x01X\x01\x00\x00\x00bh\x01u"
    content = b"\x80\x02}(X\x01\x00\x00\x00x" + tensor("0", (1,), count=1, stride=(1,)) + b"u"
    path = write(tmp_path / "a.pth", content + step * 60 + b".", bytes(4))
    assert code(path) in ("too-large", "corrupt")


def test_against_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    tensors = {
        **model.state_dict(),
        "turned": torch.randn(3, 4).t(),
        "half": torch.randn(5).half(),
        "brain": torch.randn(5).bfloat16(),
        "double": torch.randn(5).double(),
    }
    path = tmp_path / "a.pth"
    for new in (True, False):
        wrapped = {"epoch": 3, "state_dict": {f"module.{n}": t for n, t in tensors.items()}}
        for content in (tensors, wrapped):
            torch.save(content, path, _use_new_zipfile_serialization=new)
            file = TorchFile(path)
            assert file.shapes == {n: tuple(t.shape) for n, t in tensors.items()}
            for name, values in tensors.items():
                np.testing.assert_array_equal(file.read(name), values.float().numpy())
        torch.save(model, path, _use_new_zipfile_serialization=new)
        assert code(path) == "unsafe-pickle"
        torch.save({"a": Calls(os.system, "true")}, path, _use_new_zipfile_serialization=new)
        assert code(path) == "unsafe-pickle"


def test_a_torchscript_archive(shared: Path) -> None:
    file = TorchFile(shared / "data" / "weights" / "pytorch_lenet5.pt")
    assert sum(int(np.prod(s)) for n, s in file.shapes.items() if n.startswith("mnist.")) == 34_622
    assert file.read("means").tolist() == [[[[np.float32(0.1307)]]]]


LENET = """
input 1x28x28
every conv -> relu -> maxpool2
conv5(6) -> conv5(16) -> fc(120) -> relu -> fc(10)
"""


def test_mnist(shared: Path, mnist: tuple[np.ndarray, np.ndarray]) -> None:
    """The file's layers lie under `mnist.`, beside tensors that are no layer's."""
    pictures, labels = mnist
    net = netdsl.load(text=LENET, weights=shared / "data" / "weights" / "pytorch_lenet5.pt")
    scores = net.run((pictures.astype(np.float32) / 255 - 0.1307) / 0.3081)
    assert isinstance(scores, np.ndarray)
    assert int((scores.argmax(1) == labels).sum()) == 9913
