"""The commands cost and compare, as a person calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from netdsl.cli.main import app

TEXT = "input 3x8x8; conv3x3p1(4) -> bn -> relu -> gap -> flatten -> fc(2)"


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return result.stdout


def fails(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 2, result.output
    return result.stderr


def test_json_is_a_list_with_an_object_a_net() -> None:
    found = json.loads(run("cost", "lenet5", "vgg16", "-e", TEXT, "--json"))
    assert [net["net"] for net in found] == ["lenet5", "vgg16", "net"]
    assert found[1]["macs"] == 15_470_264_320


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("--as", "thop"), "convention"),
        (("--as", "thop"), "total"),
        (("--against", "torchinfo"), "difference"),
        (("--by", "kind"), "groups"),
        (("--explain", "conv1"), "explained"),
        (("--machine", "100,10"), "roofline"),
    ],
)
def test_each_view_adds_its_key(words: tuple[str, ...], key: str) -> None:
    plain = json.loads(run("cost", "-e", TEXT, "--json"))[0]
    found = json.loads(run("cost", "-e", TEXT, *words, "--json"))[0]
    assert key in found
    assert {k: found[k] for k in plain} == plain


def test_as_gives_that_conventions_exact_total() -> None:
    found = json.loads(run("cost", "resnet50", "--as", "ptflops", "--json"))[0]
    assert (found["convention"], found["total"]) == ("ptflops", 4_132_436_968)


@pytest.mark.parametrize("name", ["macs", "lecture", "torchinfo", "onnx-tool"])
@pytest.mark.parametrize("form", ["", "--csv", "--markdown"])
def test_every_form_of_a_convention(name: str, form: str) -> None:
    assert "conv1" in run("cost", "-e", TEXT, "--as", name, *([form] if form else []))


def test_numbers_of_any_size() -> None:
    text = "input 4096x1000x1000; conv1x1(4096) x60"
    words = ("cost", "-e", text, "--no-limits", "--batch", "1000000")
    found = json.loads(run(*words, "--json"))[0]
    assert found["macs"] == 60 * 10**6 * 10**6 * 4096 * 4096
    assert f"{found['macs']:,}" in run(*words)


def test_batch_0_costs_nothing_to_run() -> None:
    found = json.loads(run("cost", "lenet5", "--batch", "0", "--json"))[0]
    assert (found["macs"], found["activation_bytes"], found["params"]) == (0, 0, 1_256_080)
    assert "lenet5" in run("cost", "lenet5", "--batch", "0")
    run("cost", "lenet5", "--batch", "0", "--machine", "1,1")
    run("cost", "lenet5", "--batch", "0", "--against", "ptflops")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("cost",), "no net was given"),
        (("cost", "vgg61"), "vgg16"),
        (("cost", "vgg16", "--as", "tochinfo"), "torchinfo"),
        (("cost", "vgg16", "--by", "stages"), "--by takes"),
        (("cost", "vgg16", "--explain", "conv99"), "no layer `conv99`"),
        (("cost", "vgg16", "--dtype", "int4"), "no type `int4`"),
        (("cost", "vgg16", "--batch", "-1"), "batch is -1"),
        (("cost", "vgg16", "--machine", "fast"), "GFLOPS,GB/s"),
        (("cost", "vgg16", "--memory", "--optimiser", "sdg"), "sdg"),
        (("cost", "vgg16", "--by", "kind", "--memory"), "--by and --memory"),
        (("cost", "vgg16", "--json", "--csv"), "--json and --csv"),
        (("cost", "vgg16", "--plot", "x.gif"), ".svg, .png, .pdf"),
        (("compare", "vgg16"), "two nets"),
        (("draw", "vgg16", "-o", "x.gif"), ".svg, .png, .html"),
        (("draw", "vgg16", "--open", "x", "-o", "x.svg"), "no block `x`"),
        (("report", "vgg16", "-o", "x.pdf"), ".html"),
    ],
)
def test_bad_input_is_one_clear_message(words: tuple[str, ...], message: str) -> None:
    assert message in fails(*words)


def test_compare_prints_and_exports() -> None:
    assert "25C² weights" in run(
        "compare", "-e", "input 8x9x9; conv5p2", "-e", "input 8x9x9; conv3p1 x2"
    )
    found = json.loads(run("compare", "alexnet", "vgg16", "--json"))
    assert [net["label"] for net in found["nets"]] == ["alexnet", "vgg16"]
    assert "memory_ratio" in run("compare", "alexnet", "vgg16", "--csv").splitlines()[0]
    assert run("compare", "alexnet", "vgg16", "--markdown").startswith("### alexnet, vgg16")


def test_cost_starts_without_what_is_heavy(tmp_path: Path) -> None:
    """Its speed hangs on what it does not import."""
    code = (
        "import sys; from netdsl.cli.main import app\n"
        "try: app(['cost', 'vgg16'])\n"
        "except SystemExit: pass\n"
        "heavy = ['numba', 'numpy', 'onnx', 'torch', 'matplotlib', 'PIL', 'pydantic']\n"
        "print('heavy:', *[name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.splitlines()[-1].strip() == "heavy:"
