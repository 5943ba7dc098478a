"""`netdsl bench`: the engines agree, the rows say what was asked, and bad input is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from netdsl.bench.case import Case
from netdsl.bench.choose import chosen
from netdsl.bench.compare import compare
from netdsl.bench.engine import Engine, Outputs, Run, Unfit
from netdsl.bench.peers import OURS, PEERS
from netdsl.bench.quiet import Watch
from netdsl.bench.rounds import Times, rounds
from netdsl.bench.truth import error_of, truth
from netdsl.cli import app
from netdsl.faults import NetError
from netdsl.net import Net

TINY = "input 3x8x8; conv3p1(4) -> relu -> maxpool2 -> flatten -> fc(3) -> softmax"
MANY = """
net many
input 3x16x16
every conv -> bn -> relu
conv3p1(16) as a -> maxpool3s2ceil -> lrn -> conv5p2(32) -> dwconv3p1
[conv1(16) | conv3p1(16)] as b
[b + bare conv1(32)] -> up2 -> tconv3s2p1(20, out_pad=1) -> relu6
avgpool2 -> gap -> flatten -> fc(10) -> softmax
"""
QUICK = ["--rounds", "1", "--patience", "0"]
KEYS = {"net", "batch", "threads", "engine", "min_ms", "median_ms", "ratio", "max_error"}
KEYS |= {"precision", "device", "fc_weights"}


def bench(*words: str) -> Result:
    return CliRunner().invoke(app, ["bench", *words], env={"COLUMNS": "200"})


def fails(*words: str) -> str:
    """What a call that must end with status 2 says; it prints no result."""
    found = bench(*words)
    assert found.exit_code == 2, found.output
    assert not found.stdout
    return " ".join(found.stderr.split())


def test_rows_against_onnxruntime() -> None:
    pytest.importorskip("onnxruntime")
    found = bench("-e", TINY, "--against", "onnxruntime", "--batch", "1,3", "--json", *QUICK)
    assert found.exit_code == 0, found.output
    rows = json.loads(found.stdout)
    assert [(r["engine"], r["batch"]) for r in rows] == [
        ("netdsl", 1),
        ("onnxruntime", 1),
        ("netdsl", 3),
        ("onnxruntime", 3),
    ]
    for ours, other in (rows[:2], rows[2:]):
        assert set(ours) == set(other) == KEYS
        assert ours["ratio"] == 1.0
        assert other["ratio"] == pytest.approx(other["min_ms"] / ours["min_ms"], rel=0.01)
        assert 0 < ours["min_ms"] <= ours["median_ms"]
        # Sums of 27 and 64 terms in single precision.
        assert max(ours["max_error"], other["max_error"]) < 2e-6


def every_engine() -> list[Any]:
    """Each peer; the one that compiles first is slow."""
    slow = {"torch compile": [pytest.mark.slow]}
    engines = [engine for several in PEERS.values() for engine in several]
    return [pytest.param(e, id=e.name, marks=slow.get(e.name, [])) for e in engines]


def with_bf16() -> list[Any]:
    return [e for several in PEERS.values() for e in several if "bf16" in e.precisions][:-1]


@pytest.mark.parametrize("engine", with_bf16(), ids=lambda engine: engine.name)
def test_engines_in_bf16(engine: type[Engine], tmp_path: Path) -> None:
    pytest.importorskip(engine.package)
    net = Net.load(text=MANY.replace("conv1(32)", "conv3p1(32)"))
    exact = truth(case := Case(net, 2, 1, tmp_path, "bf16"))
    assert exact is not None
    # Those that have no such products may compute in single precision.
    assert error_of(engine.ready(case)(), exact) < 2e-2


def test_rows_in_bf16() -> None:
    pytest.importorskip("onnxruntime")
    words = ["-e", TINY, "--against", "onnxruntime", "--precision", "bf16", *QUICK]
    (row,) = json.loads(bench(*words, "--json").stdout)
    assert row["precision"] == "bf16"
    table = bench(*words).stdout
    assert "thread" in table.splitlines()[0]
    assert table.splitlines()[0].endswith(", bf16")
    assert "onnxruntime is left out: it is not run in bf16 here." in table


def test_rows_with_fc_weights_in_int8() -> None:
    pytest.importorskip("onnxruntime")
    words = ["-e", TINY, "--against", "onnxruntime", "--fc-weights", "int8", *QUICK]
    ours, other = json.loads(bench(*words, "--json").stdout)
    assert (ours["fc_weights"], other["fc_weights"]) == ("int8", None)
    assert other["max_error"] < 1e-5 < ours["max_error"] < 2e-2
    assert bench(*words).stdout.splitlines()[0].endswith(", fp32, fc weights in int8")


@pytest.mark.filterwarnings("default")  # torch.compile uses what torch itself deprecates
@pytest.mark.parametrize("engine", every_engine())
def test_every_engine_computes_the_same(engine: type[Engine], tmp_path: Path) -> None:
    pytest.importorskip(engine.package)
    if engine.name == "torch compile" and not shutil.which("g++"):
        pytest.skip("Inductor needs a C++ compiler")
    case = Case(Net.load(text=MANY), 2, 1, tmp_path)
    exact = truth(case)
    assert exact is not None
    # Torch, ncnn and LiteRT run the graph by code of this package, so a wrong layer shows here.
    assert error_of(engine.load(case)(), exact) < 5e-6


def test_what_ncnn_has_no_layer_for_is_said(tmp_path: Path) -> None:
    pytest.importorskip("ncnn")
    net = Net.load(text="input 2x30; conv3(4) -> gap -> flatten")
    (ncnn,) = PEERS["ncnn"]
    with pytest.raises(Unfit, match="two dimensions"):
        ncnn.load(Case(net, 1, 1, tmp_path))


def test_what_litert_has_no_operator_for_is_said(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    (litert,) = PEERS["litert"]
    for text, why in (("input 2x4x4x4; gap", "3 spatial axes"), ("input 8x4x4; lrn4", "odd")):
        with pytest.raises(Unfit, match=why):
            litert.load(Case(Net.load(text=text), 1, 1, tmp_path))


class Wrong(Engine):
    """An engine whose every output is 7."""

    name, package = "wrong", "netdsl"

    @classmethod
    def load(cls, case: Case) -> Run:
        shapes = [case.graph[name].shape for name in case.graph.outputs]
        return lambda: [np.full((case.batch, *shape), 7.0) for shape in shapes]


class Unable(Engine):
    """An engine that runs nothing."""

    name, package = "unable", "netdsl"

    @classmethod
    def load(cls, case: Case) -> Run:
        raise Unfit("it runs nothing")


def test_an_engine_that_errs_or_cannot_is_left_out() -> None:
    found = compare(Net.load(text=TINY), [Wrong, Unable], count=1)
    assert [row.engine for row in found.rows] == ["netdsl"]
    assert set(found.left_out) == {"wrong", "unable"}
    assert "off by" in found.left_out["wrong"]
    assert found.left_out["unable"] == "it runs nothing"


def test_our_own_error_stops_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OURS, "load", Wrong.load)
    with pytest.raises(NetError, match="our outputs differ from those of double precision"):
        compare(Net.load(text=TINY), [], count=1)


def test_layers_stand_beside_the_peak() -> None:
    pytest.importorskip("onnxruntime")
    words = ["-e", TINY, "--against", "onnxruntime", "--layers", *QUICK]
    ours, _ = json.loads(bench(*words, "--json").stdout)
    assert ours["layers"][0]["op"] == "conv3x3p1(4) -> relu"
    assert ours["peak_gflops"] > 0
    table = bench(*words).stdout
    for part in ("GFLOP/s", "of peak", "Measured peak"):
        assert part in table


def test_one_markdown_table_of_all_nets() -> None:
    pytest.importorskip("onnxruntime")
    words = ["-e", TINY, "-e", MANY, "--against", "onnxruntime", "--markdown", *QUICK]
    lines = bench(*words).stdout.splitlines()
    assert sum(line.startswith("| net | batch |") for line in lines) == 1
    assert any(line.startswith("| many | 1 |") for line in lines)
    assert any("onnxruntime 1" in line for line in lines)


def test_the_processors_time_of_one_thread_alone() -> None:
    pytest.importorskip("onnxruntime")
    words = ["-e", TINY, "--against", "onnxruntime", "--cpu-time", *QUICK]
    assert "give --threads 1" in fails(*words, "--threads", "2")
    assert bench(*words, "--threads", "1").exit_code == 0


TRAINED = "input 3x8x8; conv3p1(4) -> bn -> relu -> dropout -> gap -> flatten -> fc(3) -> softmax"


@pytest.mark.filterwarnings("default")
def test_training_steps_beside_torch() -> None:
    pytest.importorskip("torch")
    words = ["--train", "--threads", "1", "--batch", "4", *QUICK]
    found = bench("-e", TRAINED, *words, "--json")
    assert found.exit_code == 0, found.output
    rows = json.loads(found.stdout)
    assert [row["engine"] for row in rows] == ["netdsl", "torch", "torch channels_last"]
    assert all(set(row) == KEYS for row in rows)
    # The first losses differ by rounding alone, dropout left out.
    assert max(row["max_error"] for row in rows) < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_torch_trains_in_the_precision_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """As on a card, on PyTorch's CPU: what its layers compute in, and what it may round."""
    torch = pytest.importorskip("torch")
    from netdsl.bench import card, training
    from netdsl.bench.peers import Torch

    net = Net.load(text="input 3x8x8; conv3p1(4) -> relu -> flatten -> fc(3)")
    seen = []

    class Looks(Torch):
        @classmethod
        def prepared(cls, module: Any) -> Any:
            def forward(inputs: Any) -> Any:
                found = module(inputs)
                seen.append((found[0].dtype, torch.backends.cudnn.allow_tf32))
                return found

            return forward

    monkeypatch.setattr(training, "check_torch", lambda: None)
    task = training.Task(net, 2, 1, "cuda", precision)
    task.device = "cpu"
    step = card.rounding(precision == "tf32")(task.torch(net.graph, Looks))
    assert np.isfinite(step())
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    assert seen == [(kind, precision == "tf32")]


def test_training_with_what_does_not_train() -> None:
    pytest.importorskip("onnxruntime")
    words = ["--train", "--against", "onnxruntime"]
    assert "onnxruntime does not train here" in fails("-e", TRAINED, *words)
    pytest.importorskip("torch")
    assert "does not go with --layers" in fails("-e", TRAINED, "--train", "--layers")
    words = ["--train", "--fc-weights", "int8"]
    assert "does not go with --fc-weights" in fails("-e", TRAINED, *words)
    words = ["--train", "--precision", "bf16"]
    assert "the device cpu does not train in bf16" in fails("-e", TRAINED, *words)
    assert "gives no score a class" in fails("-e", "input 3x8x8; conv3p1(4)", "--train")


def test_bad_input() -> None:
    pytest.importorskip("onnxruntime")
    assert "there is no precision int8" in fails("-e", TINY, "--precision", "int8")
    assert "cpu does not compute in tf32" in fails("-e", TINY, "--precision", "tf32")
    assert "no net was given" in fails()
    assert "there is no engine tensorflow" in fails("-e", TINY, "--against", "tensorflow")
    for batch in ("0", "two", "1,,8", "-1"):
        assert "batch is" in fails("-e", TINY, "--against", "onnxruntime", f"--batch={batch}")
    assert "threads is 0" in fails("-e", TINY, "--against", "onnxruntime", "--threads", "0")


def test_a_peer_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for engines in PEERS.values():
        monkeypatch.setattr(engines[0], "installed", lambda: False)
    told = fails("-e", TINY, "--against", "openvino")
    assert "openvino is not installed" in told
    assert "pip install 'netdsl[bench]'" in told
    with pytest.raises(NetError, match=r"no other engine is installed.*netdsl\[bench\]"):
        chosen(None)


def test_an_error_is_relative_to_the_largest_value() -> None:
    wanted = [np.array([[0.0, -4.0, 2.0]])]

    def off(*values: float) -> Outputs:
        return [np.array([values])]

    assert error_of(off(0, -4, 2), wanted) == 0
    assert error_of(off(0, -4, 3), wanted) == 0.25
    assert error_of(off(0, -4), wanted) == float("inf")
    assert error_of(off(0, -4, float("nan")), wanted) == float("inf")


def test_rounds_take_turns() -> None:
    """Every round begins with another, a first run of a turn does not count, and the least and
    the middle of the others are kept, in ms."""
    now = 0.0
    order: list[str] = []

    def runs(name: str, *seconds: float) -> Any:
        times = iter(seconds)

        def run() -> None:
            nonlocal now
            order.append(name)
            now += next(times)

        return run

    both = {"a": runs("a", 9, 1, 9, 3), "b": runs("b", 8, 5, 8, 5)}
    found = rounds(both, 2, Watch(0.0), clock=lambda: now)
    assert order == ["a", "a", "b", "b", "b", "b", "a", "a"]
    assert found == {"a": Times(1000, 2000), "b": Times(5000, 5000)}


def test_a_card_is_asked_only_for_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    assert "bench does not time reference" in fails("-e", TINY, "--device", "reference")
    assert "there is no device tpu" in fails("-e", TINY, "--device", "tpu")
    card = ("-e", TINY, "--device", "cuda")
    assert "onnxruntime is not run on cuda here" in fails(*card, "--against", "onnxruntime")
    pytest.importorskip("torch")
    assert "--threads is for the cpu, not for cuda" in fails(*card, "--threads", "2")


def test_without_a_card_bench_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from netdsl.cuda import device
    from netdsl.faults import Fault

    monkeypatch.setattr(device, "missing", lambda: Fault("no-card", "there is no card"))
    assert "there is no card" in fails("-e", TINY, "--device", "cuda")


def test_a_module_moves_with_all_its_weights() -> None:
    torch = pytest.importorskip("torch")
    from netdsl.bench.torch_net import TorchNet

    net = Net.load(text="input 3x8x8; conv3p1(4) -> bn -> relu -> gap -> fc(3)")
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    moved = TorchNet(net.graph, net.weights).moved("cpu", torch.float64).eval()
    assert {v.dtype for own in moved.own.values() for v in own.values()} == {torch.float64}
    with torch.inference_mode():
        (found,) = moved({net.graph.inputs[0]: torch.from_numpy(x).double()})
    wanted = net.run(x, device="reference")
    assert isinstance(wanted, np.ndarray)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6, atol=1e-7)


def test_tf32_is_allowed_for_a_while_only() -> None:
    torch = pytest.importorskip("torch")
    from netdsl.bench.card import rounding

    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for allowed in (True, False):
        with rounding(allowed):
            assert [backend.allow_tf32 for backend in backends] == [allowed, allowed]
        assert [backend.allow_tf32 for backend in backends] == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--json", "--markdown"], "--json and --markdown cannot be shown at once"),
        (["--patience", "nan"], "--patience is nan"),
        (["--patience", "inf"], "--patience is inf"),
    ],
)
def test_flags_that_mean_nothing(words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["bench", "-e", TINY, *QUICK, *words])
    assert result.exit_code == 2
    assert said in result.stderr
