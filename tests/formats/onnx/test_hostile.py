"""Damaged and hostile ONNX files: one clear error, in bounded memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

import netdsl
from netdsl import NetError
from netdsl.formats.onnx import fold, import_onnx, read, read_onnx, to_onnx, wire
from netdsl.graph.weights import initialise

FLOAT = TensorProto.FLOAT


def good() -> ModelProto:
    text = "input 3x8x8; conv3p1(4) -> bn -> relu6 -> shuffle(2) -> flatten -> fc(3) -> softmax"
    graph = netdsl.load(text=text).graph
    return to_onnx(graph, initialise(graph))


def one(
    node: onnx.NodeProto,
    shape: tuple[int | str, ...] = ("N", 3, 8, 8),
    tensors: list[TensorProto] | None = None,
) -> ModelProto:
    """A model of a single node."""
    infos = [helper.make_tensor_value_info(n, FLOAT, s) for n, s in (("x", shape), ("y", None))]
    made = helper.make_graph([node], "g", infos[:1], infos[1:], tensors or [])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])


def conv(tensor: TensorProto) -> ModelProto:
    return one(helper.make_node("Conv", ["x", "w"], ["y"]), tensors=[tensor])


def test_any_prefix_of_a_file_is_refused_or_read(tmp_path: Path) -> None:
    data = good().SerializeToString()
    path = tmp_path / "net.onnx"
    refused = 0
    for length in [*range(0, 60), *range(60, len(data), max(len(data) // 60, 1))]:
        path.write_bytes(data[:length])
        with pytest.raises(NetError) as caught:
            read_onnx(path)
        assert len(caught.value.faults) == 1
        refused += 1
    assert refused > 100
    path.write_bytes(data)
    read_onnx(path)


@settings(max_examples=150)
@given(data=st.data())
def test_damaged_bytes_end_in_an_error_or_a_graph(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    raw = bytearray(good().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "net.onnx"
    path.write_bytes(raw)
    with contextlib.suppress(NetError):
        graph, weights = read_onnx(path)
        assert set(weights) == set(graph.all_parameters())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no graph or no opset"),
        (b"\x89PNG\r\n\x1a\n" * 10, "is not an ONNX model"),
        (b"hello, world\n", "is not an ONNX model"),
        (b"\x3a\xff\xff\xff\xff\x7f", "cut off"),
        (b"\xff" * 100, "is not an ONNX model"),
    ],
)
def test_files_of_something_else(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    with pytest.raises(NetError, match=message):
        read_onnx(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(NetError, match="cannot read"):
        read_onnx(tmp_path / "none.onnx")
    with pytest.raises(NetError, match="is not a file"):
        read_onnx(tmp_path)


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 32)  # sparse: no disk is taken
    with pytest.raises(NetError, match=r"has 4,294,967,296 bytes"):
        read_onnx(path)


def lying_raw(tensor: TensorProto) -> None:
    tensor.dims[0] = 10**12


def lying_fields(tensor: TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0, 2.0])


def negative(tensor: TensorProto) -> None:
    tensor.dims[0] = -4


def strings(tensor: TensorProto) -> None:
    tensor.data_type = TensorProto.STRING


def unknown(tensor: TensorProto) -> None:
    tensor.data_type = 999


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lying_raw, "w says it is 1000000000000x3x3x3, which takes .* bytes, but holds 432"),
        (lying_fields, "which takes 108 values, but holds 2"),
        (negative, "w has a negative size"),
        (strings, "values of type STRING"),
        (unknown, "values of type 999"),
    ],
)
def test_tensors_that_lie(damage: Callable[[TensorProto], None], message: str) -> None:
    tensor = numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "w")
    damage(tensor)
    with pytest.raises(NetError, match=message):
        import_onnx(conv(tensor))


def external(location: str, **entries: int | str) -> TensorProto:
    tensor = TensorProto(
        name="w", data_type=FLOAT, dims=(4, 3, 3, 3), data_location=TensorProto.EXTERNAL
    )
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


@pytest.mark.parametrize(
    ("location", "entries", "message"),
    [
        ("../secret", {}, "outside the model's folder"),
        ("/etc/passwd", {}, "outside the model's folder"),
        ("folder/../../secret", {}, "outside the model's folder"),
        ("link", {}, "no file in the model's folder"),
        ("none", {}, "no file in the model's folder"),
        ("", {}, "no file in the model's folder"),
        ("a\0b", {}, "no file in the model's folder"),
        ("short", {}, "which has 10"),
        ("data", {"offset": 1}, "bytes 1 to 433 of data, which has 432"),
        ("data", {"offset": -4}, "bytes -4 to"),
        ("data", {"length": 10**15}, "takes 432 bytes, but holds 1000000000000000"),
        ("data", {"offset": "far"}, "is no number"),
    ],
)
def test_external_data(
    tmp_path: Path, location: str, entries: dict[str, int | str], message: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(432))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "short").write_bytes(bytes(10))
    (folder / "data").write_bytes(bytes(432))
    path = folder / "net.onnx"
    path.write_bytes(conv(external(location, **entries)).SerializeToString())
    with pytest.raises(NetError, match=message):
        read_onnx(path)
    path.write_bytes(conv(external("data")).SerializeToString())
    assert (read_onnx(path)[1]["conv1.weight"] == 0).all()


def test_external_data_of_a_model_without_a_folder() -> None:
    with pytest.raises(NetError, match="no folder to look in"):
        import_onnx(conv(external("data")))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (helper.make_node("Relu", ["z"], ["y"]), "reads z, which nothing before it makes"),
        (helper.make_node("Relu", ["x"], ["x"]), "makes x, which another node makes too"),
        (helper.make_node("Relu", [], ["y"]), "it computes with constants alone"),
        (helper.make_node("Relu", ["x"], ["z"]), "the output y is made by no node"),
        (
            helper.make_node("Transpose", ["x"], ["y"], perm=[0, 0, 1, 1]),
            "does not fit 4 axes",
        ),
        (helper.make_node("Concat", ["x"], ["y"], axis="one"), "Concat at Concat_0 is malformed"),
        (helper.make_node("Concat", ["x"], ["y"], axis=7), "its axis 7 is none of 4"),
        (helper.make_node("MaxPool", ["x"], ["y"]), "it has no kernel_shape"),
        (
            helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[10**9, 3]),
            "a kernel of 1000000000 does not fit",
        ),
        (
            helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[0, 1]),
            "a kernel, stride or dilation is below 1",
        ),
        (
            helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1]),
            r"its pads \[1, 1\] are not two",
        ),
        (helper.make_node("Softmax", ["x"], ["y"], axis=-9), "its axis -9 is none of 4"),
        (helper.make_node("LRN", ["x"], ["y"], size=-1), "its size is missing or below 1"),
    ],
)
def test_nodes_that_make_no_sense(node: onnx.NodeProto, message: str) -> None:
    with pytest.raises(NetError, match=message):
        import_onnx(one(node))


@pytest.mark.parametrize("shape", [[10**6, 10**6], [2**62, 4], [-1, 3], [0, -5]])
def test_constants_do_not_grow_without_bound(shape: list[int]) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    infos = [helper.make_tensor_value_info(n, FLOAT, ["N", 3]) for n in "xy"]
    sizes = numpy_helper.from_array(np.array(shape, np.int64), "s")
    made = helper.make_graph(nodes, "g", infos[:1], infos[1:], [sizes])
    with pytest.raises(NetError):
        import_onnx(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)]))


def test_doubling_constants_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold, "MOST", 1 << 24)
    nodes = [
        helper.make_node("Concat", [f"w{i}", f"w{i}"], [f"w{i + 1}"], axis=0) for i in range(60)
    ]
    infos = [helper.make_tensor_value_info(n, FLOAT, ["N", 3]) for n in "xy"]
    nodes.append(helper.make_node("MatMul", ["x", "w60"], ["y"]))
    start = numpy_helper.from_array(np.zeros((1 << 12, 3), np.float32), "w0")
    made = helper.make_graph(nodes, "g", infos[:1], infos[1:], [start])
    with pytest.raises(NetError, match="makes constants of over"):
        import_onnx(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)]))


@pytest.mark.parametrize("op", ["Where", "Max", "Mod"])
def test_stretching_constants_have_bounds(op: str) -> None:
    """Two vectors of a hundred thousand make a table of ten thousand million."""
    nodes = [
        helper.make_node("ConstantOfShape", ["tall"], ["a"]),
        helper.make_node("ConstantOfShape", ["wide"], ["b"]),
        helper.make_node(op, ["a", "b"] if op == "Mod" else ["a", "a", "b"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    infos = [helper.make_tensor_value_info(n, FLOAT, ["N", 3]) for n in "xy"]
    sizes = [
        numpy_helper.from_array(np.array(size), name)
        for name, size in (("tall", [10**5, 1]), ("wide", [1, 10**5]))
    ]
    made = helper.make_graph(nodes, "g", infos[:1], infos[1:], sizes)
    with pytest.raises(NetError, match=f"{op} at {op}_2 makes constants of over"):
        import_onnx(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)]))


def choice(condition: str, branch: onnx.GraphProto) -> ModelProto:
    node = helper.make_node("If", [condition], ["y"], then_branch=branch, else_branch=branch)
    yes = numpy_helper.from_array(np.array(True), "yes")
    return one(node, tensors=[yes])


def test_branches() -> None:
    y = helper.make_tensor_value_info("z", FLOAT, None)
    relu = helper.make_node("Relu", ["x"], ["z"])
    good = helper.make_graph([relu], "branch", [], [y])
    assert import_onnx(choice("yes", good)).graph.nodes[-1].op.word() == "relu"
    for condition, branch, said in (
        ("x", good, r"If \(If_0\): its condition is computed from the data"),
        ("yes", helper.make_graph([], "b", [], [y]), "If_0 reads z, which nothing"),
        ("yes", helper.make_graph([relu], "b", [], []), "If_0 has 1 outputs, its branch 0"),
        ("none", good, "If_0 reads none"),
    ):
        with pytest.raises(NetError, match=said):
            import_onnx(choice(condition, branch))


def test_weights_that_are_no_numbers() -> None:
    broken = numpy_helper.from_array(np.full((4, 3, 1, 1), np.nan, np.float32), "w")
    with pytest.raises(NetError, match=r"conv1\.weight \[0, 0, 0, 0\] is nan"):
        import_onnx(conv(broken))


def test_more_nodes_than_any_net_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MOST_NODES", 3)
    with pytest.raises(NetError, match="more than 3 nodes"):
        import_onnx(good())


def test_a_file_of_nothing_but_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MOST", 10_000)
    node = b"\x0a\x00"  # an empty node of a graph
    graph = node * 20_000
    size = len(graph)
    varint = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x3a" + varint + graph)
    with pytest.raises(NetError, match="more than 10,000 fields"):
        read_onnx(path)


def test_graphs_nested_deep(tmp_path: Path) -> None:
    """Graphs within attributes of nodes within graphs, 3000 deep."""

    def field(number: int, content: bytes) -> bytes:
        size, length = len(content), b""
        while size > 0x7F:
            length += bytes([size & 0x7F | 0x80])
            size >>= 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    graph = b""
    for _ in range(3000):
        graph = field(1, field(5, field(6, graph)))
    path = tmp_path / "net.onnx"
    path.write_bytes(field(7, graph))
    with pytest.raises(NetError):
        read_onnx(path)


def test_long_chains_need_no_stack() -> None:
    nodes = [helper.make_node("Relu", [f"x{i}"], [f"x{i + 1}"]) for i in range(5000)]
    infos = [helper.make_tensor_value_info(n, FLOAT, ["N", 3]) for n in ("x0", "x5000")]
    made = helper.make_graph(nodes, "g", infos[:1], infos[1:])
    source = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    assert len(import_onnx(source).graph) == 5001


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_memory_stays_bounded(tmp_path: Path) -> None:
    """A file of 300 bytes that claims terabytes, in a process that may take 1 GiB more."""
    tensor = numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "w")
    tensor.dims[0] = 10**11
    path = tmp_path / "net.onnx"
    path.write_bytes(conv(tensor).SerializeToString())
    script = f"""
        import resource
        from netdsl.formats.onnx import read_onnx
        from netdsl import NetError
        pages = int(open("/proc/self/statm").read().split()[0])
        room = pages * resource.getpagesize() + (1 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        try:
            read_onnx({str(path)!r})
        except NetError as error:
            print(error)
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert "w says it is 100000000000x3x3x3" in found.stdout
