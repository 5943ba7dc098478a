"""Hostile files of every format from the command line, in a process that may take little memory."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

SCRIPT = """
    import resource, sys
    from netdsl.cli.main import main
    import netdsl.cli.imports, netdsl.cli.run, netdsl.formats.exchange, netdsl.formats.onnx
    pages = int(open("/proc/self/statm").read().split()[0])
    room = pages * resource.getpagesize() + (1 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    for words in {commands!r}:
        sys.argv = ["netdsl", *words]
        try:
            main()
        except SystemExit as end:
            print(words[1 if words[0] == "import" else -1], end.code, flush=True)
"""


def onnx(folder: Path) -> None:
    def model(name: str, tensor: TensorProto) -> None:
        infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3, 8, 8]) for n in "xy"]
        node = helper.make_node("Conv", ["x", "w"], ["y"])
        graph = helper.make_graph([node], "g", infos[:1], infos[1:], [tensor])
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        (folder / name).write_bytes(made.SerializeToString())

    tensor = numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "w")
    tensor.dims[0] = 1 << 40
    model("size.onnx", tensor)
    tensor = numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../../../../etc/passwd"
    model("outside.onnx", tensor)


def texts(folder: Path) -> None:
    head = 'input: "x" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8 '
    layer = (
        'layer {{ name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param {{ {} }} }}'
    )
    for name, settings in (
        ("filters", "num_output: 2000000000 kernel_size: 3 pad: 1"),
        ("kernel", "num_output: 2 kernel_size: 2000000000 pad: 2000000000"),
    ):
        (folder / f"{name}.prototxt").write_text(head + layer.format(settings))
    (folder / "deep.prototxt").write_text("layer {" * 100_000)
    size = "height=8\nwidth=8\nchannels=3\n"
    (folder / "outputs.cfg").write_text(f"[net]\n{size}" + "[connected]\noutput=2000000000\n" * 2)
    (folder / "double.cfg").write_text(
        f"[net]\n{size}[conv]\nfilters=1\n" + "[route]\nlayers=-1,-1\n" * 64
    )
    # A blob's length that lies, and messages within messages.
    (folder / "length.caffemodel").write_bytes(b"\xa2\x06\xff\xff\xff\xff\x0f")


def weights(folder: Path) -> None:
    with zipfile.ZipFile(folder / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + b"N" * (1 << 26))
    with zipfile.ZipFile(folder / "nested.pth", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + b"]" * (1 << 22) + b"a" * (1 << 22) + b".")
    (folder / "header.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    header = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    (folder / "size.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)


def arrays(folder: Path) -> None:
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        array, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 1 << 20)}
    )
    (folder / "size.npy").write_bytes(array.getvalue())
    with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("input.npy", array.getvalue() + bytes(1 << 26))


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_each_ends_in_one_message(tmp_path: Path) -> None:
    for write in (onnx, texts, weights, arrays):
        write(tmp_path)
    files = sorted(tmp_path.iterdir())
    np.save(tmp_path / "input.npy", np.zeros((1, 1, 28, 28), np.float32))
    commands = []
    for path in files:
        if path.suffix in (".pth", ".safetensors"):
            commands.append(["run", "lenet5", "input.npy", "--weights", str(path)])
        elif path.suffix in (".npy", ".npz"):
            commands.append(["run", "lenet5", str(path)])
        else:
            commands.append(["import", str(path), "-o", str(tmp_path / "out.net")])
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT.format(commands=commands))],
        capture_output=True, text=True, check=True, cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert found.stdout.count(" 2\n") == len(files), found.stdout + found.stderr
    assert found.stderr.count("error[") == len(files), found.stderr
    named = (".pth", ".safetensors", ".npy", ".npz", ".caffemodel")
    assert all(path.name in found.stderr for path in files if path.suffix in named), found.stderr
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "out.net").exists()
