"""Another file's tensors in place of a model's own of the same names."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from netdsl import NetError
from netdsl.formats.exchange import read_foreign
from netdsl.formats.safetensors import save
from netdsl.net import Net


def arrays(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = {"stem.weight": (4, 3, 3, 3), "stem.bias": (4,), "head.weight": (5, 4)}
    return {n: random.standard_normal(s).astype(np.float32) for n, s in shapes.items()}


def model(tensors: dict[str, np.ndarray]) -> ModelProto:
    """A convolution and a matrix as exporters leave them, the scale of the input a constant."""
    nodes = [
        helper.make_node("Mul", ["x", "onnx::Mul_7"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "stem.weight", "stem.bias"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "head.weight"], ["y"], transB=1),
    ]
    infos = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", ["N", 3, 8, 8]), ("y", ["N", 5]))
    ]
    scale = {"onnx::Mul_7": np.array([[[2.0]], [[3.0]], [[4.0]]], np.float32)}
    held = [numpy_helper.from_array(x, n) for n, x in {**tensors, **scale}.items()]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def outputs(path: Path, weights: Path | None) -> np.ndarray:
    graph, values = read_foreign(path, weights)
    net = Net(graph)
    assert values is not None
    net.weights = dict(values)
    x = np.random.default_rng(9).standard_normal((2, 3, 8, 8)).astype(np.float32)
    return np.asarray(net.run(x, device="reference"))


def written(folder: Path, tensors: dict[str, np.ndarray], name: str) -> Path:
    path = folder / name
    if path.suffix == ".safetensors":
        save(path, tensors)
    else:
        path.write_bytes(model(tensors).SerializeToString())
    return path


def test_tensors_go_by_their_names(tmp_path: Path) -> None:
    old, new = arrays(1), arrays(2)
    path = written(tmp_path, old, "old.onnx")
    found = outputs(path, written(tmp_path, new, "new.safetensors"))
    np.testing.assert_array_equal(found, outputs(written(tmp_path, new, "new.onnx"), None))
    assert np.abs(found - outputs(path, None)).max() > 0.1


def test_what_does_not_fit(tmp_path: Path) -> None:
    path = written(tmp_path, arrays(1), "a.onnx")
    more = arrays(2) | {"norm.weight": np.ones(4, np.float32)}
    less = {n: x for n, x in arrays(2).items() if n != "stem.bias"}
    other = arrays(2) | {"stem.bias": np.ones(5, np.float32)}
    for tensors, said in (
        (more, r"the model has no norm\.weight, which .*b\.safetensors holds"),
        (less, r"has no stem\.bias, which the model holds"),
        (other, r"stem\.bias is 4 in the model and 5 in"),
    ):
        with pytest.raises(NetError, match=said):
            read_foreign(path, written(tmp_path, tensors, "b.safetensors"))


def test_our_own_names_do_too(tmp_path: Path) -> None:
    """Where the file has none of the model's names, it is matched with the net that came out."""
    path = written(tmp_path, arrays(1), "a.onnx")
    graph, values = read_foreign(path)
    assert values is not None
    doubled = {n: 2 * x for n, x in values.items()}
    weights = written(tmp_path, doubled, "b.safetensors")
    again, found = read_foreign(path, weights)
    assert again == graph
    assert found is not None
    for name, x in doubled.items():
        np.testing.assert_array_equal(found[name], x)


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_of_pytorchs(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    nn = torch.nn

    def drawn(seed: int) -> object:
        torch.manual_seed(seed)
        layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        module = nn.Sequential(*layers).eval()
        module[1].running_mean.normal_()
        return module

    first, second = drawn(1), drawn(2)
    file, x = io.BytesIO(), torch.randn(2, 3, 8, 8)
    torch.onnx.export(first, (x,), file, dynamo=True, optimize=False, verbose=False)
    (tmp_path / "a.onnx").write_bytes(file.getvalue())
    torch.save({"epoch": 3, "state_dict": second.state_dict()}, tmp_path / "b.pth")  # type: ignore[attr-defined]
    graph, values = read_foreign(tmp_path / "a.onnx", tmp_path / "b.pth")
    net = Net(graph)
    assert values is not None
    net.weights = dict(values)
    theirs = second(x).detach().numpy()  # type: ignore[operator]
    ours = net.run(x.numpy(), device="reference")
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)  # type: ignore[arg-type]
