"""ONNX's own cases through the importer: what is in scope passes, what is not is known by name."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.backend.test.case.node import collect_testcases

from netdsl import NetError, conformance
from netdsl.backend import Backend
from netdsl.conformance import Case, Verdict

spec = importlib.util.spec_from_file_location("left_out", Path(__file__).with_name("left_out.py"))
assert spec is not None
left_out = importlib.util.module_from_spec(spec)
assert spec.loader is not None
spec.loader.exec_module(left_out)


def reason(text: str) -> str:
    """What the importer said, without the node's name and without advice."""
    text = re.sub(r"^\w+ \([\w, ]+\): ", "", text)
    return re.sub(r"(; the language| \(give).*", "", text)


def check(
    cases: Callable[[], Iterator[Case]],
    engine: str,
    expected: dict[str, tuple[str, ...]],
    capsys: pytest.CaptureFixture[str],
) -> Verdict:
    verdict = conformance.judge(cases(), engine)
    with capsys.disabled():
        print(f"\n{engine}: {str(verdict).splitlines()[-1]}", end=" ")
    known = {*verdict.passed, *verdict.left_out, *verdict.failed}
    assert verdict.failed == {}
    names = {name: why for why, found in expected.items() for name in found if name in known}
    assert {name: reason(why) for name, why in verdict.left_out.items()} == names
    return verdict


@pytest.mark.parametrize("engine", ["reference", pytest.param("cpu", marks=pytest.mark.slow)])
def test_operators(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = check(conformance.node_cases, engine, left_out.OPERATORS, capsys)
    assert len(verdict.passed) >= 190


@pytest.mark.parametrize("engine", ["reference", "cpu"])
def test_pytorch_converted(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = check(conformance.converted_cases, engine, left_out.CONVERTED, capsys)
    assert len(verdict.passed) >= 72


@pytest.mark.slow
def test_light_models(capsys: pytest.CaptureFixture[str]) -> None:
    verdict = check(conformance.light_cases, "cpu", {}, capsys)
    assert len(verdict.passed) == 9


@pytest.mark.parametrize(
    ("cases", "passed"),
    [
        (conformance.expanded_cases, left_out.EXPANDED),
        (conformance.operator_cases, left_out.FUNCTIONS),
        (conformance.simple_cases, left_out.SIMPLE),
    ],
)
def test_suites_of_which_little_is_in_scope(
    cases: Callable[[], Iterator[Case]], passed: tuple[str, ...]
) -> None:
    verdict = conformance.judge(cases(), "reference")
    assert verdict.failed == {}
    assert sorted(verdict.passed) == list(passed)
    assert all(verdict.left_out.values())


def test_every_case_is_counted() -> None:
    """What is run and what is not make up all that the package has."""
    run = [*conformance.node_cases(), *conformance.expanded_cases()]
    lacking = conformance.others()
    assert len(run) + lacking.total() == len(collect_testcases(None))
    assert not {case.model.graph.node[0].op_type for case in run} & {"Selu", "Exp", "LSTM"}
    assert {"Selu", "Exp", "LSTM"} <= lacking.keys()
    assert not lacking.keys() & {"Conv", "Gemm", "Softmax", "Transpose"}


def test_sequences_are_out_of_scope() -> None:
    (case,) = (c for c in collect_testcases(None) if c.name == "test_sequence_insert_at_back")
    with pytest.raises(NetError, match="is a sequence of tensors"):
        Backend.run_model(case.model, case.data_sets[0][0])


def test_numbers_beyond_single_precision() -> None:
    info = [helper.make_tensor_value_info(n, onnx.TensorProto.DOUBLE, ("N", 2)) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", info[:1], info[1:])
    model = helper.make_model(graph)
    with pytest.raises(NetError, match="x holds numbers beyond single precision"):
        Backend.run_model(model, [np.array([[1, 1e200]])])
    (found,) = Backend.run_model(model, [np.array([[np.inf, -1e30]])])
    assert found.tolist() == [[np.inf, 0]]


def test_a_wrong_result_is_a_failure() -> None:
    case = next(conformance.converted_cases())
    inputs, outputs = case.sets[0]
    wrong = Case(case.name, case.model, [(inputs, [outputs[0] + 1])], case.rtol, case.atol)
    verdict = conformance.judge(iter([case, wrong]), "reference")
    assert verdict.passed == [case.name]
    assert list(verdict.failed) == [case.name]
    assert "1 passed, 0 out of scope, 1 failed" in str(verdict)


def test_run_node() -> None:
    x = np.array([[-1.0, 2.0]], np.float32)
    (found,) = Backend.run_node(helper.make_node("Relu", ["x"], ["y"]), [x], engine="reference")
    np.testing.assert_array_equal(found, [[0, 2]])
    assert Backend.supports_device("CPU:0")
    assert not Backend.supports_device("CUDA")


def test_weights_may_come_as_inputs() -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    infos = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", (2, 3)), ("w", (4, 3)), ("y", (2, 4)))
    ]
    model = helper.make_model(helper.make_graph([node], "g", infos[:2], infos[2:]))
    x, w = np.arange(6, dtype="f4").reshape(2, 3), np.arange(12, dtype="f4").reshape(4, 3)
    for given in ([x, w], {"w": w, "x": x}):
        (found,) = Backend.run_model(model, given, engine="reference")
        np.testing.assert_allclose(found, x @ w.T)
