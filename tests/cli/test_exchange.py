"""`netdsl export` and `import`: out to another format and back, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import parser

from netdsl.cli.main import main
from netdsl.formats.safetensors import save
from netdsl.net import Net

TEXT = """net small
input 3x12x12
every conv -> relu
def branch(w) = [conv1x1(w) | conv3x3p1(w)]

conv3x3p1(8) x2 -> maxpool2
branch(4) -> branch(8) -> gap -> flatten -> fc(5)
"""


def call(*words: str) -> int:
    """The exit code of a command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["netdsl", *words])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


@pytest.mark.parametrize(
    ("to", "written"),
    [("onnx", "s.onnx"), ("caffe", "s.prototxt")],
)
def test_out_and_back_keeps_every_bit(to: str, written: str, tmp_path: Path) -> None:
    source = tmp_path / "small.net"
    source.write_text(TEXT)
    net = Net.load(source)
    net.initialise(3)
    net.save(tmp_path / "small.safetensors")
    out = tmp_path / written
    assert call("export", str(source), "--to", to, "-o", str(out)) == 0
    back = tmp_path / "back.net"
    weights = ["--weights", str(out.with_suffix(".caffemodel"))] if to == "caffe" else []
    assert call("import", str(out), "-o", str(back), *weights) == 0
    again = Net.load(back)
    again.find_weights()
    assert again.trained
    ours = [v.tobytes() for v in net.weights.values()]
    assert sorted(ours) == sorted(v.tobytes() for v in again.weights.values())
    x = np.random.default_rng(0).standard_normal((2, 3, 12, 12), np.float32)
    given, got = (n.run(x, device="reference") for n in (net, again))
    np.testing.assert_array_equal(np.asarray(given), np.asarray(got))


def test_a_text_stands_for_a_file(tmp_path: Path) -> None:
    out = tmp_path / "t.onnx"
    assert (
        call("export", "-e", "input 3x8x8; conv3x3(4) -> gap", "--to", "onnx", "-o", str(out)) == 0
    )
    assert call("import", str(out), "-o", str(tmp_path / "t.net")) == 0
    assert call("fmt", "--check", str(tmp_path / "t.net")) == 0
    assert "conv3x3(4)" in (tmp_path / "t.net").read_text()
    assert call("export", "--to", "onnx", "-o", str(out)) == 2
    assert call("export", "lenet5", "-e", "input 3; fc(2)", "--to", "onnx", "-o", str(out)) == 2


def test_what_is_not_a_net_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.onnx").write_bytes(b"\x00\x01junk")
    assert call("import", str(tmp_path / "a.onnx")) == 2
    assert call("import", str(tmp_path / "a.txt")) == 2
    assert call("import", str(tmp_path / "none.cfg")) == 2
    assert call("import", str(tmp_path / "a.prototxt"), "--input", "3xmany") == 2
    assert call("export", "lenet5", "--to", "word", "-o", str(tmp_path / "k")) == 2
    assert "there is no format word" in capsys.readouterr().err


def test_a_phone_gets_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "net.tflite"
    assert call("export", "lenet5", "--to", "tflite", "-o", str(out)) == 0
    assert capsys.readouterr() == (f"wrote {out}\n", "")
    assert call("export", "lenet5", "--to", "tflite", "-o", str(out), "--aux") == 2
    assert "holds no auxiliary heads" in capsys.readouterr().err
    text = "input 4x9x9; lrn4 -> maxpool2s1d2"
    assert call("export", "-e", text, "--to", "tflite", "-o", str(tmp_path / "no.tflite")) == 2
    assert "2 ops cannot be said in TensorFlow Lite" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["net.tflite"]


@pytest.mark.parametrize(("to", "begins"), [("mermaid", "---\n"), ("dot", 'digraph "lenet5"')])
def test_diagrams_need_no_weights(
    to: str, begins: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net.txt"
    assert call("export", "lenet5", "--to", to, "-o", str(out)) == 0
    assert out.read_text().startswith(begins)
    assert capsys.readouterr() == (f"wrote {out}\n", "")
    weights = ("--weights", "any.safetensors")
    assert call("export", "lenet5", "--to", to, "-o", str(out), *weights) == 2
    assert "holds no weights" in capsys.readouterr().err
    assert call("export", "lenet5", "--to", to, "-o", str(tmp_path / "no" / "folder")) == 2


def test_heads_go_where_the_format_has_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "input 4x4x4; relu -> aux(weight=0.3) { gap -> fc(2) } -> gap -> flatten -> fc(3)"
    out = tmp_path / "a.onnx"
    assert call("export", "-e", text, "--to", "onnx", "-o", str(out), "--aux") == 0
    assert call("import", str(out), "-o", str(tmp_path / "a.net")) == 0
    assert "aux(weight=0.3)" in (tmp_path / "a.net").read_text()
    caffe = ("--to", "caffe", "-o", str(tmp_path / "a.prototxt"))
    assert call("export", "-e", text, *caffe, "--aux") == 2
    assert "holds no auxiliary heads" in capsys.readouterr().err


def test_weights_alone_are_no_net(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.pth", "a.pt", "a.safetensors", "a.weights"):
        (tmp_path / name).write_bytes(b"anything")
        assert call("import", str(tmp_path / name)) == 2
        said = capsys.readouterr().err
        assert "holds weights, but not the net that they are of" in said
        assert f"netdsl run NET.net X --weights {tmp_path / name}" in said
    assert call("import", str(tmp_path / "none.pth")) == 2
    assert "there is no file" in capsys.readouterr().err


def test_a_size_that_is_left_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,2,H,W] x) => (float[N,2,1,1] y) { y = GlobalMaxPool(x) }"""
    )
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    out = tmp_path / "a.net"
    assert call("import", str(tmp_path / "a.onnx"), "-o", str(out)) == 2
    assert "--input CxHxW" in capsys.readouterr().err
    assert call("import", str(tmp_path / "a.onnx"), "-o", str(out), "--input", "2x5x6") == 0
    assert "input 2x5x6" in out.read_text()


@pytest.mark.parametrize("to", ["pytorch", "keras"])
def test_source_and_its_weights(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net.py"
    assert call("export", "lenet5", "--to", to, "-o", str(out)) == 0
    beside = out.with_suffix(f".{to.removeprefix('py')}.safetensors")
    assert capsys.readouterr().out == f"wrote {out}\nwrote {beside}\n"
    compile(out.read_text(), "net.py", "exec")
    assert call("export", "lenet5", "--to", to, "-o", str(tmp_path / "net")) == 2
    assert "written to a .py file" in capsys.readouterr().err
    out = tmp_path / "large.py"
    assert call("export", "vgg16", "--to", to, "-o", str(out)) == 0
    told = capsys.readouterr()
    assert told.out == f"wrote {out}\n"
    assert "no weights are here" in told.err
    assert "load" not in out.read_text()


def test_what_keras_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "input 1x8x8; pad(1, mode=edge) -> maxpool2s1d2"
    assert call("export", "-e", text, "--to", "keras", "-o", str(tmp_path / "a.py")) == 2
    told = capsys.readouterr().err
    assert "mode=edge" in told
    assert "maxpool2s1d2" in told
    assert not list(tmp_path.iterdir())


def test_heads_without_weights_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "input 4x4x4; conv1x1(4) -> aux(weight=0.3) { fc(2) } -> fc(3)"
    (tmp_path / "a.net").write_text(text.replace("; ", "\n"))
    net = Net.load(tmp_path / "a.net")
    main = net.graph.without_aux().all_parameters()
    save(tmp_path / "a.safetensors", {name: net.weights[name] for name in main})
    out = tmp_path / "out.py"
    assert call("export", str(tmp_path / "a.net"), "--to", "pytorch", "-o", str(out)) == 0
    assert "has no auxiliary heads: they are left out" in capsys.readouterr().err
    assert "training" not in out.read_text()


@pytest.mark.parametrize("name", [".", "/", "w" * 250, "w" * 300])
def test_names_that_no_file_can_have(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder, and names of which something behind, or they themselves, are too long."""
    monkeypatch.chdir(tmp_path)
    assert call("export", "lenet5", "--to", "onnx", "-o", "a.onnx") == 0
    for words in (
        ("export", "lenet5", "--to", "onnx", "-o", name),
        ("import", "a.onnx", "-o", name),
        ("import", name if name == "/" else f"{name}.onnx"),
        ("run", "lenet5", f"{name}.npy", "--save", f"{name}.npy"),
        ("train", "lenet5", f"{name}.npz"),
    ):
        capsys.readouterr()
        assert call(*words) == 2, words
        assert capsys.readouterr().err.count("error[") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
