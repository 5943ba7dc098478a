"""ONNX's own conformance cases, run by our engines. Needs the extra `onnx`.

    python -m netdsl.conformance [--engine cpu|reference] [--models]

Cases of single operators come from `onnx.backend.test.case.node`: all whose operator the language
has. With --models also the models that the onnx package carries: PyTorch's layers as its exporter
wrote them (`pytorch-converted`), and whole networks with made-up weights (`light_*`).
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, numpy_helper

from netdsl.backend import Backend
from netdsl.faults import NetError

Array = npt.NDArray[Any]

OPERATORS = frozenset(
    (
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Clip",
        "Concat",
        "Conv",
        "ConvTranspose",
        "Div",
        "Dropout",
        "Elu",
        "Flatten",
        "Gelu",
        "Gemm",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "GroupNormalization",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "InstanceNormalization",
        "LRN",
        "LayerNormalization",
        "LeakyRelu",
        "LogSoftmax",
        "MatMul",
        "MaxPool",
        "Mul",
        "Neg",
        "PRelu",
        "Pad",
        "ReduceMax",
        "ReduceMean",
        "Relu",
        "Resize",
        "Sigmoid",
        "Softmax",
        "Sub",
        "Sum",
        "Swish",
        "Tanh",
        "Upsample",
    )
)
"""The operators that the language has, or can say."""


@dataclass(frozen=True)
class Case:
    """A model, and for each set of inputs the outputs that are right within the tolerances."""

    name: str
    model: ModelProto
    sets: Sequence[tuple[Sequence[Array], Sequence[Array]]]
    rtol: float
    atol: float


@dataclass
class Verdict:
    """The names of the cases that passed, and why others are out of scope or failed."""

    passed: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = (
            f"{len(self.passed)} passed, {len(self.left_out)} out of scope, "
            f"{len(self.failed)} failed"
        )
        lines = [f"out of scope  {name}: {why}" for name, why in self.left_out.items()]
        lines += [f"FAILED  {name}: {why}" for name, why in self.failed.items()]
        return "\n".join([*lines, counts])


def node_cases() -> Iterator[Case]:
    """The cases of single operators that the language has."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    for case in found:
        if case.model is None or case.data_sets is None:
            continue
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in OPERATORS:
            yield Case(case.name, case.model, case.data_sets, case.rtol, max(case.atol, 1e-6))


def converted_cases() -> Iterator[Case]:
    """PyTorch's layers as its exporter wrote them."""
    for file in sorted((_data() / "pytorch-converted").glob("*/model.onnx")):
        sets = [
            (_tensors(folder, "input"), _tensors(folder, "output"))
            for folder in sorted(file.parent.glob("test_data_set_*"))
        ]
        yield Case(file.parent.name, onnx.load(file), sets, 1e-3, 1e-6)


def light_cases() -> Iterator[Case]:
    """Whole networks whose large weights are one repeated number, on a ramp from 0 to 1."""
    for file in sorted((_data() / "light").glob("*.onnx")):
        model = onnx.load(file)
        held = {tensor.name for tensor in model.graph.initializer}
        free = [v for v in model.graph.input if v.name not in held]
        shapes = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in free]
        ramps = [np.arange(np.prod(s)).reshape(s) / np.prod(s) for s in shapes]
        output = onnx.load_tensor(file.with_name(f"{file.stem}_output_0.pb"))
        sets = [([ramp.astype(np.float32) for ramp in ramps], [numpy_helper.to_array(output)])]
        yield Case(file.stem, model, sets, 1e-3, 1e-7)


def judge(cases: Iterator[Case], engine: str = "cpu") -> Verdict:
    """Runs every case. A NetError means that the case is out of scope."""
    verdict = Verdict()
    for case in cases:
        try:
            _check(case, engine)
        except NetError as error:
            verdict.left_out[case.name] = str(error).rpartition("\n")[2].strip()
        except AssertionError as error:
            verdict.failed[case.name] = " ".join(str(error).split())[:300]
        else:
            verdict.passed.append(case.name)
    return verdict


def _check(case: Case, engine: str) -> None:
    prepared = Backend.prepare(case.model, engine=engine)
    for inputs, outputs in case.sets:
        found = prepared.run(inputs)
        assert len(found) == len(outputs), f"{len(found)} outputs, not {len(outputs)}"
        for ours, theirs in zip(found, outputs, strict=True):
            assert ours.dtype == theirs.dtype, f"{ours.dtype}, not {theirs.dtype}"
            np.testing.assert_allclose(ours, theirs, rtol=case.rtol, atol=case.atol)


def _data() -> Path:
    return Path(onnx.__file__).parent / "backend" / "test" / "data"


def _tensors(folder: Path, kind: str) -> list[Array]:
    files = sorted(folder.glob(f"{kind}_*.pb"))
    return [numpy_helper.to_array(onnx.load_tensor(file)) for file in files]


def main() -> int:
    """Prints the verdicts; 1 if a case failed."""
    flags = argparse.ArgumentParser(prog="python -m netdsl.conformance", description=__doc__)
    flags.add_argument("--engine", choices=("cpu", "reference"), default="cpu")
    flags.add_argument("--models", action="store_true", help="also whole models")
    given = flags.parse_args()
    suites = {"operators": node_cases}
    if given.models:
        suites |= {"pytorch-converted": converted_cases, "light models": light_cases}
    failed = 0
    for name, cases in suites.items():
        verdict = judge(cases(), given.engine)
        failed += len(verdict.failed)
        print(f"{name}\n{verdict}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
