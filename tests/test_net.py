"""Net, as a person holds it in Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import netdsl
from netdsl import Net, NetError
from netdsl.cpu import Plan
from netdsl.formats import safetensors
from netdsl.graph.weights import initialise
from netdsl.runner import check_fc_weights

TEXT = "net tiny; input 3x8x8; conv3x3p1(4) -> relu -> gap -> flatten -> fc(3)"


@pytest.fixture
def net() -> Net:
    return netdsl.load(text=TEXT)


def x(n: int) -> np.ndarray:
    return np.random.default_rng(n).standard_normal((n, 3, 8, 8)).astype(np.float32)


def test_load_by_name_by_path_and_by_text(tmp_path: Path, net: Net) -> None:
    assert netdsl.load("vgg16").cost().macs == 15_470_264_320
    (tmp_path / "tiny.net").write_text(TEXT.replace("; ", "\n"))
    assert netdsl.load(tmp_path / "tiny.net").graph.nodes == net.graph.nodes
    assert netdsl.load(str(tmp_path / "tiny.net")).name == "tiny"
    assert repr(net) == "<Net tiny: 3x8x8 -> 3>"


def test_load_wants_one_of_them() -> None:
    with pytest.raises(NetError, match="no net was given"):
        netdsl.load()
    with pytest.raises(NetError, match="both a net and a text"):
        netdsl.load("vgg16", text=TEXT)


def test_the_cpu_agrees_with_the_reference(net: Net) -> None:
    ours, right = net.run(x(3)), net.run(x(3), device="reference")
    assert isinstance(ours, np.ndarray)
    assert isinstance(right, np.ndarray)
    assert (ours.shape, ours.dtype) == ((3, 3), np.float32)
    assert right.dtype == np.float64
    np.testing.assert_allclose(ours, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_any_batch_gives_the_same(net: Net, device: str) -> None:
    whole = net.run(x(5), device=device, batch=5)
    for batch in (1, 2, 8):
        found = net.run(x(5), device=device, batch=batch)
        np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_no_samples_give_an_empty_result(net: Net, device: str) -> None:
    assert np.shape(net.run(x(0), device=device)) == (0, 3)
    assert np.shape(net.run(x(0), device=device, batch=0)) == (0, 3)


def test_several_inputs_and_outputs() -> None:
    net = netdsl.load(
        text="input 2x4x4 as a; input 2x4x4 as b; [a + b] as sum; sum -> gap as mean; "
        "output sum, mean"
    )
    one = np.ones((2, 2, 4, 4), np.float32)
    found = net.run({"a": one, "b": 2 * one}, device="reference")
    assert isinstance(found, dict)
    assert list(found) == list(net.outputs())
    total, mean = found.values()
    assert (total == 3).all()
    assert mean.shape == (2, 2, 1, 1)
    with pytest.raises(NetError, match="also needs an array for b"):
        net.run(one, device="reference")
    with pytest.raises(NetError, match="no input called c"):
        net.run({"a": one, "c": one}, device="reference")
    with pytest.raises(NetError, match="different numbers of samples: a 2, b 1"):
        net.run({"a": one, "b": one[:1]}, device="reference")


def test_wrong_shapes_say_both(net: Net) -> None:
    with pytest.raises(NetError, match="shape 1x3x9x9, the net takes Nx3x8x8"):
        net.run(np.zeros((1, 3, 9, 9)))
    with pytest.raises(NetError, match=r"one sample needs a batch axis too: x\[None\]"):
        net.run(np.zeros((3, 8, 8)))
    with pytest.raises(NetError, match="not of numbers"):
        net.run(np.array(["cat"]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"threads": 0}, "threads is 0"),
        ({"batch": -1}, "batch is -1"),
        ({"device": "tpu"}, "no device tpu"),
    ],
)
def test_settings_out_of_range(net: Net, settings: dict[str, object], said: str) -> None:
    with pytest.raises(NetError, match=said):
        net.run(x(1), **settings)  # type: ignore[arg-type]


def test_fc_weights_in_fewer_bits(net: Net) -> None:
    x = np.random.default_rng(0).standard_normal((2, *net.inputs["input"]), np.float32)
    exact = net.run(x)
    plan = net.runner(2, fc_weights="int8").plan
    assert isinstance(plan, Plan)
    assert list(plan.rounding) == [n.name for n in net.graph if n.name.startswith("fc")]
    found = net.run(x, fc_weights="int8")
    assert 0 < np.abs(found - exact).max() < 0.05 * np.abs(exact).max()
    np.testing.assert_array_equal(net.run(x, fc_weights="fp32"), exact)
    with pytest.raises(NetError, match="the device cuda keeps weights"):
        check_fc_weights("int8", "cuda", exact=False)


def test_saved_weights_load_again(net: Net, tmp_path: Path) -> None:
    net.initialise(3)
    net.save(tmp_path / "w.safetensors")
    again = netdsl.load(text=TEXT, weights=tmp_path / "w.safetensors")
    assert again.trained
    assert list(again.weights) == list(net.weights)
    for name, array in net.weights.items():
        np.testing.assert_array_equal(again.weights[name], array)


def test_weights_beside_the_net_load_by_themselves(net: Net, tmp_path: Path) -> None:
    (tmp_path / "tiny.net").write_text(TEXT.replace("; ", "\n"))
    alone = netdsl.load(tmp_path / "tiny.net")
    assert alone.weights
    assert not alone.trained
    net.initialise(3)
    net.save(tmp_path / "tiny.safetensors")
    beside = netdsl.load(tmp_path / "tiny.net")
    np.testing.assert_array_equal(beside.weights["fc1.weight"], net.weights["fc1.weight"])
    assert beside.trained
    assert beside.weights_source == str(tmp_path / "tiny.safetensors")


def test_initialise_is_seeded_and_changes_what_run_gives(net: Net) -> None:
    found = []
    for seed in (1, 2, 1):
        net.initialise(seed)
        found.append(net.run(x(1), device="reference"))
    np.testing.assert_array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[1])


def test_weights_that_do_not_fit_leave_the_old_ones(net: Net, tmp_path: Path) -> None:
    before = net.weights
    safetensors.save(tmp_path / "w.safetensors", {"a": np.zeros((7, 7), np.float32)})
    with pytest.raises(NetError, match="does not hold weights of tiny"):
        net.load_weights(tmp_path / "w.safetensors")
    assert net.weights is before


def test_weights_can_be_given_as_arrays(net: Net) -> None:
    net.weights = {name: np.zeros_like(array) for name, array in net.weights.items()}
    assert (net.run(x(2), device="reference") == 0).all()
    with pytest.raises(NetError, match="what was given does not hold weights of tiny"):
        net.weights = {"conv1.weight": np.zeros(3, np.float32)}


def test_auxiliary_heads_need_their_weights(tmp_path: Path) -> None:
    net = netdsl.load(text="net two; input 4; fc(4) -> aux { fc(3) } -> fc(2)")
    x = np.ones((1, 4), np.float32)
    found = net.run(x, device="reference", aux=True)
    assert isinstance(found, dict)
    assert [value.shape for value in found.values()] == [(1, 2), (1, 3)]
    np.testing.assert_array_equal(net.run(x, device="reference"), next(iter(found.values())))
    main = net.graph.main
    net.weights = {n: w for n, w in net.weights.items() if n.rpartition(".")[0] in main}
    assert np.shape(net.run(x, device="reference")) == (1, 2)
    with pytest.raises(NetError, match="has no weights of the auxiliary heads"):
        net.run(x, device="reference", aux=True)


def test_top(net: Net) -> None:
    scores = np.array([[0.0, 2.0, 1.0], [5.0, 5.0, 5.0]])
    first, second = net.top(scores, 2)
    assert [(g.index, g.label) for g in first] == [(1, None), (2, None)]
    assert first[0].score == pytest.approx(np.exp(2) / (1 + np.exp(2) + np.exp(1)))
    assert [g.index for g in second] == [0, 1]
    assert net.top(scores, 1, raw=True)[0][0].score == 2.0
    assert net.top(np.zeros((0, 3))) == []


def test_the_zoo_names_classes() -> None:
    labels = netdsl.load("googlenet").labels
    assert labels is not None
    assert (len(labels), labels[285]) == (1000, "Egyptian cat")


def test_importing_is_light() -> None:
    program = (
        "import sys, netdsl; net = netdsl.load('vgg16'); net.cost(); "
        "heavy = {'numba', 'onnx', 'torch', 'matplotlib', 'PIL'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_public_names() -> None:
    assert netdsl.__all__ == ["Net", "NetError", "__version__", "from_onnx", "load"]
    assert all(hasattr(netdsl, name) for name in netdsl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        netdsl.lode  # noqa: B018


def test_random_weights_are_drawn_when_they_are_seen() -> None:
    """A run draws them layer by layer; who asks for them gets the same, and may change them."""
    net = Net.load(text="input 3x12x12; conv3x3(16) -> bn -> relu -> conv3x3(8) -> gap")
    net.initialise(3)
    x = np.random.default_rng(0).standard_normal((2, 3, 12, 12), np.float32)
    unseen = net.run(x)
    assert net._weights is None
    np.testing.assert_allclose(net.run(x, device="reference"), unseen, rtol=1e-4, atol=1e-5)
    drawn = initialise(net.graph, 3)
    assert list(net.weights) == list(drawn)
    assert all((net.weights[name] == drawn[name]).all() for name in drawn)
    net.weights["conv2.weight"][:] = 0
    assert (net.runner(2, threads=1).run({"input": x})["gap1"] == 0).all()
