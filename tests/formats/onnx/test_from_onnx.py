"""netdsl.from_onnx: arrays go in and come out as the model has them, as in onnxruntime."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, parser

import netdsl
from netdsl import NetError
from netdsl.formats.onnx import to_onnx
from netdsl.onnx_net import OnnxNet


def model(body: str, opset: int = 17) -> ModelProto:
    found = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{body}')
    assert isinstance(found, ModelProto)
    return found


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


# Pictures as Keras lays them, rows and columns first, in and out.
ROWS_FIRST = model("""
g (float[N,6,5,3] x) => (float[N,6,5,3] y) {
  turned = Transpose<perm = [0, 3, 1, 2]>(x)
  pooled = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(turned)
  y = Transpose<perm = [0, 2, 3, 1]>(pooled)
}""")

# Pictures scaled, centred and padded before they are turned, as Keras's first layers do.
PREPARED = model("""
g (float[N,6,5,3] x) => (float[N,7,7,3] y)
<float scale = {0.5}, float[3] mean = {1.0, 2.0, 3.0}, int64[8] pads = {0, 1, 0, 0, 0, 0, 2, 0}> {
  scaled = Mul(x, scale)
  centred = Sub(scaled, mean)
  padded = Pad(centred, pads)
  turned = Transpose<perm = [0, 3, 1, 2]>(padded)
  pooled = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(turned)
  y = Transpose<perm = [0, 2, 3, 1]>(pooled)
}""")

# Inputs whose order is no order of names, and outputs that the graph makes the other way round.
SEVERAL = model("""
g (float[N,2,4,4] late, float[N,2,4,4] early) => (float[N,4,4,4] joined, float[N,2,1,1] mean) {
  mean = GlobalAveragePool(early)
  joined = Concat<axis = 1>(early, late)
}""")


def runtime(source: ModelProto, *inputs: np.ndarray) -> list[np.ndarray]:
    """What onnxruntime gives."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(
        source.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [i.name for i in session.get_inputs()]
    found: list[np.ndarray] = session.run(None, dict(zip(names, inputs, strict=True)))
    return found


def said(net: OnnxNet, *inputs: Any) -> str:
    with pytest.raises(NetError) as caught:
        net.run(*inputs, device="reference")
    return str(caught.value)


def test_the_models_own_layout() -> None:
    net = netdsl.from_onnx(ROWS_FIRST)
    assert net.inputs == {"input": (3, 6, 5)}
    x = draw(4, 6, 5, 3)
    (right,) = runtime(ROWS_FIRST, x)
    for device in ("cpu", "reference"):
        np.testing.assert_array_equal(net.run(x, device=device), right)
    assert net.run(x[:0]).shape == (0, 6, 5, 3)


def test_what_is_done_to_pictures_before_they_are_turned() -> None:
    net, x = netdsl.from_onnx(PREPARED), draw(2, 6, 5, 3)
    assert net.inputs == {"input": (3, 6, 5)}
    (right,) = runtime(PREPARED, x)
    np.testing.assert_allclose(net.run(x, device="reference"), right, rtol=1e-5, atol=1e-6)
    assert "x has shape 1x3x6x5, the net takes Nx6x5x3" in said(net, draw(1, 3, 6, 5))


def test_inputs_by_order_and_by_name_and_outputs_in_order() -> None:
    net = netdsl.from_onnx(SEVERAL)
    late, early = draw(3, 2, 4, 4), draw(3, 2, 4, 4) + 1
    right = runtime(SEVERAL, late, early)
    ways: list[tuple[Any, ...]] = [
        (late, early),
        ([late, early],),
        ({"early": early, "late": late},),
    ]
    for given in ways:
        found = net.run(*given, device="reference")
        assert isinstance(found, tuple)
        for ours, theirs in zip(found, right, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    assert [port.name for port in net.model_outputs] == ["joined", "mean"]


@pytest.mark.parametrize("form", ["a path", "its text", "its content", "a model"])
def test_a_model_in_any_form(form: str, tmp_path: Path) -> None:
    path = tmp_path / "several.onnx"
    path.write_bytes(SEVERAL.SerializeToString())
    forms = {"a path": path, "its text": str(path), "its content": path.read_bytes()}
    net = netdsl.from_onnx(forms.get(form, SEVERAL))  # type: ignore[arg-type]
    assert net.name == ("several" if form in ("a path", "its text") else "g")
    assert net.trained
    assert net.weights_source == (str(path) if "path" in form or "text" in form else "the model")


def test_numbers_keep_the_models_type() -> None:
    source = model("g (double[N,2] x) => (double[N,2] y) { y = Relu(x) }")
    found = netdsl.from_onnx(source).run(np.array([[1, -2], [3, 4]]), device="reference")
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [[1, 0], [3, 4]])


def test_a_fixed_batch_takes_any_number() -> None:
    source = model("""
    g (float[1,2,3,4] x) => (float[1,24] y) <int64[2] shape = {1, 24}> {
      up = Sigmoid(x)
      y = Reshape(up, shape)
    }""")
    net, x = netdsl.from_onnx(source), draw(3, 2, 3, 4)
    found = net.run(x, device="reference")
    each = [runtime(source, sample[None])[0] for sample in x]
    np.testing.assert_allclose(found, np.concatenate(each), rtol=1e-6)


def test_an_output_without_a_batch_axis_holds_one_sample() -> None:
    source = model("""
    g (float[1,2,3,4] x) => (float[2,3,4] y) <int64[1] axes = {0}> {
      up = Relu(x)
      y = Squeeze(up, axes)
    }""")
    net = netdsl.from_onnx(source)
    np.testing.assert_array_equal(
        net.run(draw(1, 2, 3, 4), device="reference"), runtime(source, draw(1, 2, 3, 4))[0]
    )
    assert "y has no batch axis: it holds 1 sample, not 2" in said(net, draw(2, 2, 3, 4))


def test_auxiliary_heads_are_outputs() -> None:
    text = "input 4x4x4; relu -> aux(weight=0.3) { gap -> fc(2) } -> gap -> flatten -> fc(3)"
    ours = netdsl.load(text=text)
    source = to_onnx(ours.graph, ours.weights, aux=True)
    net, x = netdsl.from_onnx(source), draw(2, 4, 4, 4)
    found = net.run(x, device="reference")
    for one, right in zip(found, runtime(source, x), strict=True):
        np.testing.assert_allclose(one, right, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(net.run(x, device="reference", aux=False), found[0])


def test_what_does_not_fit_is_said_in_the_models_words() -> None:
    net = netdsl.from_onnx(SEVERAL)
    x = draw(3, 2, 4, 4)
    assert "g takes 2 inputs (late, early), not 1" in said(net, x)
    assert "not 3" in said(net, x, x, x)
    assert "g has no input called x" in said(net, {"x": x, "late": x})
    assert "g also needs an array for early" in said(net, {"late": x})
    assert "early has shape 3x2x4x5, the net takes Nx2x4x4" in said(net, x, draw(3, 2, 4, 5))
    assert "x[None]" in said(net, x[0], x[0])
    assert "different numbers of samples" in said(net, x, x[:2])
    assert "late is an array of object, not of numbers" in said(net, np.array([None]), x)
    rows = netdsl.from_onnx(ROWS_FIRST)
    assert "the net takes Nx6x5x3" in said(rows, draw(1, 3, 6, 5))


def test_what_is_no_model(tmp_path: Path) -> None:
    for source in (tmp_path / "none.onnx", b"", b"no model", tmp_path):
        with pytest.raises(NetError):
            netdsl.from_onnx(source)
    lacking = model("g (float[N,2,4,4] x) => (float[N,2,4,4] y) { y = Ceil(x) }")
    with pytest.raises(NetError, match=r"Ceil \(Ceil_0\): the language has no such op"):
        netdsl.from_onnx(lacking)


def test_sizes_left_open_may_be_given() -> None:
    source = model("g (float[N,2,H,W] x) => (float[N,2,1,1] y) { y = GlobalMaxPool(x) }")
    with pytest.raises(NetError, match=r"shapes=\{'x': \(C, H, W\)\}"):
        netdsl.from_onnx(source)
    with pytest.raises(NetError, match=r"x is \?x2x\?x\? in the model, which 3x5x6 is not"):
        netdsl.from_onnx(source, shapes={"x": (3, 5, 6)})
    net, x = netdsl.from_onnx(source, shapes={"x": (2, 5, 6)}), draw(2, 2, 5, 6)
    np.testing.assert_array_equal(net.run(x, device="reference"), x.max((2, 3), keepdims=True))


def test_netdsl_alone_imports_no_onnx() -> None:
    program = "import sys, netdsl; assert not {'onnx', 'numba', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], check=True)
