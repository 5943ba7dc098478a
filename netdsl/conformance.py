"""ONNX's own conformance cases, run by our engines. Needs the extra `onnx`.

    python -m netdsl.conformance [--engine cpu|reference] [--models]

Cases of single operators come from `onnx.backend.test.case.node`: all whose operator the language
has, and the same cases with the operator expanded into the smaller ones that define it. The onnx
package also carries models of PyTorch's functions (`pytorch-operator`) and of simple things
(`simple`); with --models also PyTorch's layers as its exporter wrote them (`pytorch-converted`) and
whole networks with made-up weights (`light_*`).
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
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
from netdsl.formats.onnx.take import TABLE

Array = npt.NDArray[Any]

EXPANDED = "_expanded"

PARTS = frozenset(
    ("Cast", "CastLike", "Einsum", "Erf", "Expand", "Max", "Min", "Pow", "Shape", "Sqrt")
)
"""Operators that are read only as parts of what an exporter spells out, as Erf in a GELU."""

OPERATORS = frozenset(TABLE) - PARTS
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


def _node_cases() -> Iterator[tuple[str, Case]]:
    """Every case of a single operator, with that operator, also those that are expanded."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    cases = [
        Case(c.name, c.model, c.data_sets, c.rtol, max(c.atol, 1e-6))
        for c in found
        if c.model is not None and c.data_sets is not None
    ]
    plain = {c.name: c.model.graph.node[0].op_type for c in cases if EXPANDED not in c.name}
    for case in cases:
        yield plain[case.name.partition(EXPANDED)[0]], case


def node_cases() -> Iterator[Case]:
    """The cases of single operators that the language has."""
    return (c for op, c in _node_cases() if op in OPERATORS and EXPANDED not in c.name)


def expanded_cases() -> Iterator[Case]:
    """The same with the operator expanded into those that define it."""
    return (c for op, c in _node_cases() if op in OPERATORS and EXPANDED in c.name)


def others() -> Counter[str]:
    """How many cases there are of each operator that the language lacks."""
    return Counter(op for op, _ in _node_cases() if op not in OPERATORS)


def _folder_cases(folder: str) -> Iterator[Case]:
    for file in sorted((_data() / folder).glob("*/model.onnx")):
        sets = [
            (_tensors(part, "input"), _tensors(part, "output"))
            for part in sorted(file.parent.glob("test_data_set_*"))
        ]
        yield Case(file.parent.name, onnx.load(file), sets, 1e-3, 1e-6)


def operator_cases() -> Iterator[Case]:
    """PyTorch's functions as its exporter wrote them."""
    return _folder_cases("pytorch-operator")


def simple_cases() -> Iterator[Case]:
    """A few small models that show what ONNX can hold."""
    return _folder_cases("simple")


def converted_cases() -> Iterator[Case]:
    """PyTorch's layers as its exporter wrote them."""
    return _folder_cases("pytorch-converted")


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
    suites = {
        "operators": node_cases,
        "operators expanded": expanded_cases,
        "pytorch-operator": operator_cases,
        "simple": simple_cases,
    }
    if given.models:
        suites |= {"pytorch-converted": converted_cases, "light models": light_cases}
    failed = 0
    for name, cases in suites.items():
        verdict = judge(cases(), given.engine)
        failed += len(verdict.failed)
        print(f"{name}\n{verdict}\n")
    lacking = others()
    listed = ", ".join(f"{op} {count}" for op, count in sorted(lacking.items()))
    print(f"not run: {lacking.total()} cases of operators that the language lacks: {listed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
