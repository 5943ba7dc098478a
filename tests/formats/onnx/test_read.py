"""Reading ONNX models: what they mean, and what is said of those that the language lacks."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, parser

from netdsl import NetError
from netdsl.backend import run
from netdsl.formats.onnx import Imported, import_onnx, read_onnx


def model(body: str, opset: int = 17) -> ModelProto:
    """A model from ONNX's text form."""
    head = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    found = parser.parse_model(f"{head}\n{body}")
    assert isinstance(found, ModelProto)
    return found


def words(found: Imported) -> str:
    return " -> ".join(node.op.word() for node in found.graph.nodes[1:])


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def agree(source: ModelProto, *inputs: np.ndarray) -> Imported:
    """The model read, after its results were found to be onnxruntime's."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(
        source.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    named = {i.name: x for i, x in zip(session.get_inputs(), inputs, strict=True)}
    found = import_onnx(source)
    theirs = session.run(None, named)
    for ours, right in zip(run(found, named, "reference"), theirs, strict=True):
        assert ours.shape == right.shape
        np.testing.assert_allclose(ours, right, rtol=1e-4, atol=1e-5)
    return found


def test_sums_of_shapes_are_done_while_reading() -> None:
    found = agree(
        model("""
        g (float[N,2,3,4] x) => (float[N,F] y) {
          shape = Shape(x)
          zero = Constant<value_int = 0>()
          n = Gather<axis = 0>(shape, zero)
          axes = Constant<value_ints = [0]>()
          first = Unsqueeze(n, axes)
          rest = Constant<value_ints = [-1]>()
          target = Concat<axis = 0>(first, rest)
          flat = Reshape(x, target)
          y = Relu(flat)
        }"""),
        draw(5, 2, 3, 4),
    )
    assert words(found) == "flatten -> relu"


def test_a_matrix_and_a_bias_are_a_layer() -> None:
    found = agree(
        model("""
        g (float[N,3] x) => (float[N,2] y)
        <float[3,2] w = {1, 2, 3, 4, 5, 6}, float[2] b = {7, -8}> {
          h = MatMul(x, w)
          y = Add(b, h)
        }"""),
        draw(4, 3),
    )
    assert words(found) == "fc(2)"
    np.testing.assert_array_equal(found.weights["fc1.weight"], [[1, 3, 5], [2, 4, 6]])
    np.testing.assert_array_equal(found.weights["fc1.bias"], [7, -8])


def test_a_scale_that_is_no_layers_own_is_a_norm_that_is_exact() -> None:
    found = agree(
        model("""
        g (float[N,2,5] x) => (float[N,2,5] y, float[N,2,5] z)
        <float[2,1] w = {0.1, 3}, float c = {0.7}> {
          y = Mul(x, w)
          z = Sub(c, x)
        }"""),
        draw(4, 2, 5),
    )
    assert words(found).count("bn") == 2
    x = draw(4, 2, 5)
    y, z = run(found, {"x": x}, "reference")
    np.testing.assert_array_equal(y, x * np.array([[0.1], [3]], np.float32))
    np.testing.assert_array_equal(z, np.float32(0.7) - x)


@pytest.mark.parametrize("opset", [7, 9, 11, 12])
def test_softmax_joined_the_axes_before_version_13(opset: int) -> None:
    text = "g (float[N,3,2] x) => (float[N,3,2] y) { y = Softmax(x) }"
    found = agree(model(text, opset), draw(4, 3, 2))
    assert words(found) == "flatten -> softmax"
    with pytest.raises(NetError, match=r"the output y is Nx3x2, the language gives Nx6"):
        read_onnx(model(text, opset))


def test_softmax_over_the_channels_since() -> None:
    text = "g (float[N,3,2] x) => (float[N,3,2] y) { y = Softmax<axis = 1>(x) }"
    assert words(agree(model(text, 13), draw(4, 3, 2))) == "softmax"
    over_space = text.replace("axis = 1", "axis = 2")
    with pytest.raises(NetError, match="over axis 2, not over the channels"):
        import_onnx(model(over_space, 13))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ('auto_pad = "SAME_UPPER", strides = [2, 2]', "maxpool3s2p0x1(pad_end=1)"),
        ('auto_pad = "SAME_LOWER", strides = [2, 2]', "maxpool3s2p1(pad_end=0x1)"),
        ('auto_pad = "VALID", strides = [2, 2]', "maxpool3s2"),
        ("pads = [0, 1, 2, 0], strides = [1, 1]", "maxpool3s1p0x1(pad_end=2x0)"),
        ("ceil_mode = 1, strides = [2, 2], dilations = [1, 2]", "maxpool3s2d1x2ceil"),
    ],
)
def test_windows(settings: str, word: str) -> None:
    text = f"""g (float[N,2,8,7] x) => (float[N,2,H,W] y) {{
        y = MaxPool<kernel_shape = [3, 3], {settings}>(x)
    }}"""
    assert words(agree(model(text), draw(2, 2, 8, 7))) == word


def test_inputs_in_another_layout_are_turned_round() -> None:
    source = model("""
        g (float[N,6,5,3] x) => (float[N,6,5,3] y) {
          planes = Transpose<perm = [0, 3, 1, 2]>(x)
          pooled = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(planes)
          back = Transpose<perm = [0, 2, 3, 1]>(pooled)
          y = Relu(back)
        }""")
    found = agree(source, draw(2, 6, 5, 3))
    assert found.graph["input"].shape == (3, 6, 5)
    assert words(found) == "maxpool3s1p1 -> relu"


def test_several_inputs_keep_their_names_and_order() -> None:
    found = agree(
        model("""
        g (float[N,2] b, float[N,3] a) => (float[N,5] y, float[N,2] z) {
          z = Relu(b)
          y = Concat<axis = -1>(a, b)
        }"""),
        draw(2, 2),
        draw(2, 3),
    )
    assert found.graph.inputs == ("b", "a")
    assert [(port.name, port.node) for port in found.outputs] == [("y", "concat1"), ("z", "relu1")]
    assert found.origins == {"relu1": "Relu_0", "concat1": "Concat_1"}


def test_what_is_not_needed_falls_away() -> None:
    found = import_onnx(
        model("""
        g (float[N,2] x) => (float[N,2] y) {
          unused = Tanh(x)
          same = Identity(x)
          y = Relu(same)
        }""")
    )
    assert words(found) == "relu"


def test_weights_made_of_one_number() -> None:
    source = model("""
        g (float[N,2,5,5] x) => (float[N,3,3,3] y)
        <int64[4] shape = {3, 2, 3, 3}> {
          w = ConstantOfShape<value: tensor = float[1] {0.5}>(shape)
          y = Conv(x, w)
        }""")
    assert words(agree(source, draw(1, 2, 5, 5))) == "conv3x3(3, bias=no)"


def test_everything_that_the_language_lacks_is_listed_once() -> None:
    source = model("""
        g (float[N,4,5] x) => (float[N,4,5] y, float[N,4,5] z) {
          a = Selu(x)
          b = Selu(x)
          c = Add(a, b)
          y = Relu(c)
          z = LogSoftmax<axis = 2>(x)
        }""")
    with pytest.raises(NetError) as caught:
        import_onnx(source)
    assert str(caught.value) == (
        "g: 3 nodes cannot be said in the language:\n"
        "  Selu (Selu_0, Selu_1): the language has no such op\n"
        "  LogSoftmax (LogSoftmax_4): it normalises over axis 2, not over the channels"
    )


def test_arithmetic_that_is_left_is_listed() -> None:
    source = model("""
        g (float[N,4] x) => (float[N,4] y) { y = Erf(x) }""")
    with pytest.raises(NetError, match=r"arithmetic \(Erf_0\): the language has no erf\(x\)"):
        import_onnx(source)


def test_sizes_left_open_must_be_given() -> None:
    source = model("g (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu(x) }")
    with pytest.raises(NetError, match=r"the input x is \?x3x\?x\?: sizes other than the batch"):
        import_onnx(source)
    graph, _ = read_onnx(source, shapes={"x": (3, 8, 9)})
    assert graph["relu1"].shape == (3, 8, 9)


def test_versions_that_are_not_read() -> None:
    text = "g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }"
    with pytest.raises(NetError, match="opset 3; 6 to"):
        import_onnx(model(text, 3))


def test_functions_are_written_out() -> None:
    source = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        g (float[N,3] x) => (float[N,3] y) { y = own.twice(x) }
        <domain: "own", opset_import: ["" : 17]>
        twice (x) => (y) { h = Relu(x)  y = Tanh(h) }
        """)
    assert words(import_onnx(source)) == "relu -> tanh"


def test_a_later_opset_than_onnx_knows_is_refused() -> None:
    source = model("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
    source.opset_import[0].version = 1000
    with pytest.raises(NetError, match="opset 1000"):
        import_onnx(source)
