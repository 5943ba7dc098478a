"""`netdsl run` from outside: what it prints, what it keeps, and what bad input gets."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import netdsl
from netdsl.cli import app
from netdsl.formats import safetensors

NET = """\
net tiny
input 3x8x8
labels "classes.txt"
conv3x3p1(4) -> relu -> gap -> flatten -> fc(3)
"""
IMAGE = "input 3x8x8; conv3x3p1(2)"


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    words = ["run", "--device", "reference", *map(str, arguments)]
    return CliRunner().invoke(app, words, input=stdin, env={"COLUMNS": "200"})


def fails(*arguments: object, stdin: bytes | None = None) -> str:
    """What a run that must end with status 2 says, on one line; it prints no result."""
    found = run(*arguments, stdin=stdin)
    assert found.exit_code == 2, found.output
    assert "Traceback" not in found.output
    return " ".join(found.stderr.split())


def rows(*arguments: object, stdin: bytes | None = None) -> list[dict[str, Any]]:
    found = run(*arguments, "--json", stdin=stdin)
    assert found.exit_code == 0, found.output
    return list(json.loads(found.stdout))


def scores(row: dict[str, Any]) -> dict[int, float]:
    return {guess["index"]: guess["score"] for guess in row["top"]}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    (tmp_path / "classes.txt").write_text("cat\ndog\nnewt\n")
    (tmp_path / "tiny.net").write_text(NET)
    return tmp_path / "tiny.net"


@pytest.fixture
def weights(tiny: Path) -> Path:
    net = netdsl.load(tiny)
    net.initialise(7)
    net.save(tiny.with_suffix(".safetensors"))
    return tiny.with_suffix(".safetensors")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_picture(tiny: Path, weights: Path, photo: Path) -> None:
    found = run(tiny, photo)
    assert found.exit_code == 0
    assert "photo.png" in found.stdout
    assert {"cat", "dog", "newt"} <= set(found.stdout.split())
    assert "%" in found.stdout
    assert "mean nothing" not in found.stderr
    assert "1 input in" in found.stdout


def test_json_is_what_python_gives(tiny: Path, weights: Path, photo: Path) -> None:
    (row,) = rows(tiny, photo, "--top", 2)
    net = netdsl.load(tiny)
    logits = net.run(net.read(photo)[None], device="reference")
    best = net.top(logits, 2)[0]  # type: ignore[arg-type]
    assert row["input"] == str(photo)
    assert row["top"] == [{"index": g.index, "label": g.label, "score": g.score} for g in best]
    assert row["ms"] > 0
    assert set(row) == {"input", "top", "ms"}


def test_scores_are_probabilities_and_raw_are_not(tiny: Path, weights: Path, photo: Path) -> None:
    (shown,), (raw,) = rows(tiny, photo), rows(tiny, photo, "--raw")
    logits = scores(raw)
    assert sum(scores(shown).values()) == pytest.approx(1)
    total = sum(np.exp(value) for value in logits.values())
    assert scores(shown) == pytest.approx({i: np.exp(x) / total for i, x in logits.items()})


@pytest.mark.parametrize("last", ["softmax", "sigmoid", "log_softmax", "softmax -> dropout"])
def test_no_second_softmax(last: str) -> None:
    (row,) = rows("-e", f"input 4; fc(3) -> {last}")
    (raw,) = rows("-e", f"input 4; fc(3) -> {last}", "--raw")
    numbers = scores(raw)
    if last == "log_softmax":
        numbers = {i: np.exp(x) for i, x in numbers.items()}
    assert scores(row) == pytest.approx(numbers)


def test_without_weights_it_says_so(tiny: Path, photo: Path) -> None:
    said = run(tiny, photo, "--seed", 5).stderr
    assert "weights are random, seed 5: the predictions mean nothing" in said


def test_the_seed_decides(tiny: Path) -> None:
    first, again, other = (rows(tiny, "--seed", seed)[0]["top"] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_noise_when_nothing_is_given(tiny: Path) -> None:
    assert "no input was given" in run(tiny).stderr
    assert [row["input"] for row in rows(tiny, "--batch", 3)] == [
        "noise[0]",
        "noise[1]",
        "noise[2]",
    ]


def test_samples_beside_the_net(tiny: Path, weights: Path) -> None:
    x = np.random.default_rng(2).standard_normal((3, 3, 8, 8)).astype(np.float32)
    truth = np.argmax(netdsl.load(tiny).run(x, device="reference"), axis=1)
    truth[2] = (truth[2] + 1) % 3
    np.savez(tiny.with_suffix(".samples.npz"), inputs=x, labels=truth)
    found = rows(tiny)
    assert [row["input"] for row in found] == [f"tiny.samples.npz[{i}]" for i in range(3)]
    assert [row["expected"] for row in found] == truth.tolist()
    assert "2 of 3 right" in run(tiny).stdout


def test_a_folder_in_natural_order(tiny: Path, photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    for name in ("10.png", "9.PNG", "inner/1.jpg", ".hidden.png", "notes.txt"):
        Image.open(photo).save(folder / name, "png")
    found = [Path(row["input"]).name for row in rows(tiny, folder)]
    assert found == ["9.PNG", "10.png", "1.jpg"]


def test_arrays(tiny: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(2).standard_normal((3, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "one.npy", x[1])
    np.savez(tmp_path / "x.npz", x)
    batch, one, zipped = (rows(tiny, tmp_path / name) for name in ("x.npy", "one.npy", "x.npz"))
    assert [row["input"] for row in batch] == [f"{tmp_path / 'x.npy'}[{i}]" for i in range(3)]
    assert one[0]["input"] == str(tmp_path / "one.npy")
    assert one[0]["top"] == batch[1]["top"]
    assert [row["top"] for row in zipped] == [row["top"] for row in batch]


def test_standard_input(tiny: Path, photo: Path, tmp_path: Path) -> None:
    assert rows(tiny, "-", stdin=photo.read_bytes())[0]["top"] == rows(tiny, photo)[0]["top"]
    stream = BytesIO()
    np.save(stream, np.zeros((2, 3, 8, 8)))
    assert len(rows(tiny, "-", stdin=stream.getvalue())) == 2


def test_batches_change_nothing(tiny: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(2).standard_normal((5, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    one, *others = (rows(tiny, tmp_path / "x.npy", "--batch", batch) for batch in (1, 2, 5, 9))
    assert len(one) == 5
    for other in others:
        assert [scores(row) for row in other] == [pytest.approx(scores(row)) for row in one]


def test_save_keeps_the_outputs_as_they_are(tiny: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(2).standard_normal((5, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    assert run(tiny, tmp_path / "x.npy", "--batch", 2, "--save", tmp_path / "y.npy").exit_code == 0
    expected = netdsl.load(tiny).run(x, device="reference")
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected)


def test_several_outputs(tmp_path: Path) -> None:
    text = "input 2x4x4; conv1x1(3) as a -> gap -> flatten as b; output b, a"
    found = run("-e", text, "--save", tmp_path / "y.npz")
    assert found.exit_code == 0
    assert "3x4x4, from" in found.stdout
    (row,) = rows("-e", text)
    assert len(row["top"]) == 3
    first, second = row["outputs"].values()
    assert first == row["top"]
    assert second["shape"] == [3, 4, 4]
    assert second["min"] <= second["mean"] <= second["max"]
    with np.load(tmp_path / "y.npz") as saved:
        assert sorted(value.shape for value in saved.values()) == [(1, 3), (1, 3, 4, 4)]


def test_an_output_with_axes_shows_its_range() -> None:
    found = run("-e", IMAGE)
    assert "2x8x8, from" in found.stdout
    assert rows("-e", IMAGE)[0]["top"] == []


def test_auxiliary_heads_only_when_asked() -> None:
    text = "input 4; fc(4) -> aux { fc(3) } -> fc(2)"
    (plain,), (whole,) = rows("-e", text), rows("-e", text, "--aux")
    assert len(plain["top"]) == 2
    assert "outputs" not in plain
    assert [len(top) for top in whole["outputs"].values()] == [2, 3]


def test_a_broken_picture_among_others_is_named_at_the_end(
    tiny: Path, photo: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    found = run(tiny, photo, bad, photo, "--json", "--save", tmp_path / "y.npy")
    assert found.exit_code == 2
    assert [Path(row["input"]).name for row in json.loads(found.stdout)] == ["photo.png"] * 2
    assert "bad.png is not a picture" in found.stderr
    assert np.load(tmp_path / "y.npy").shape == (2, 3)


def test_batch_0_is_an_empty_result(tiny: Path, photo: Path, tmp_path: Path) -> None:
    for inputs in ((), (photo,)):
        assert rows(tiny, *inputs, "--batch", 0) == []
        assert "no inputs, no results" in run(tiny, *inputs, "--batch", 0).stdout
    run(tiny, "--batch", 0, "--save", tmp_path / "y.npy")
    assert np.load(tmp_path / "y.npy").shape == (0, 3)


# What bad input gets: one clear message each, and status 2.


def test_no_net() -> None:
    assert "no net was given" in fails()


def test_no_such_net() -> None:
    assert "no net called 'vgg61'" in fails("vgg61")
    assert "did you mean" in fails("vgg61")
    assert "there is no file 'nowhere/a.net'" in fails("nowhere/a.net")


def test_a_net_that_is_a_folder(tmp_path: Path) -> None:
    assert "is a folder" in fails(tmp_path)


def test_a_net_of_100_megabytes(tmp_path: Path) -> None:
    with (tmp_path / "big.net").open("wb") as file:
        file.truncate(100 << 20)
    assert "big.net has 104,857,600 bytes" in fails(tmp_path / "big.net")


@pytest.mark.parametrize("junk", [bytes(range(256)) * 8, b"\xff\xfe\xfd" * 99, b"PK\x03\x04\0\0"])
def test_a_net_of_binary_junk(junk: bytes, tmp_path: Path) -> None:
    (tmp_path / "junk.net").write_bytes(junk)
    assert "text" in fails(tmp_path / "junk.net")


def test_a_block_that_doubles_itself_60_times() -> None:
    blocks = "; ".join(f"def b{i} = b{i + 1} -> b{i + 1}" for i in range(60))
    fails("-e", f"input 3x8x8; {blocks}; def b60 = relu; b0")


def test_a_repeat_of_a_billion() -> None:
    fails("-e", "input 3x8x8; relu x1000000000")


def test_a_kernel_larger_than_its_input() -> None:
    said = fails("-e", "input 3x8x8; conv9x9(4)")
    assert "9x9" in said
    assert "8x8" in said


def test_weights_larger_than_any_memory() -> None:
    said = fails("-e", "net huge; input 3x8x8; fc(100000) -> fc(900000)")
    assert "the weights of huge take 360,080,800,000 bytes" in said


def test_inputs_that_are_not_there(tiny: Path, tmp_path: Path) -> None:
    assert "there is no file nowhere.png" in fails(tiny, "nowhere.png")
    (tmp_path / "empty").mkdir()
    assert "holds no pictures and no arrays" in fails(tiny, tmp_path / "empty")
    assert "standard input is empty" in fails(tiny, "-", stdin=b"")


def test_not_a_picture(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("hello")
    assert "x.png is not a picture" in fails(tiny, tmp_path / "x.png")
    (tmp_path / "x.npy").write_text("hello")
    assert "x.npy cannot be read" in fails(tiny, tmp_path / "x.npy")


def test_a_net_that_takes_no_pictures(photo: Path) -> None:
    assert "the net's input is 4x8x8: 4 channels" in fails("-e", "input 4x8x8; relu", photo)
    assert "the net's input is 64: another number of axes" in fails("-e", "input 64; relu", photo)


def test_wrong_array_shapes(tiny: Path, tmp_path: Path) -> None:
    for shape, said in [
        ((2, 3, 9, 8), "has shape 2x3x9x8, the net takes Nx3x8x8"),
        ((2, 4, 8, 8), "it has 4 channels, the net takes 3"),
        ((2, 8, 8, 3), "channels come first"),
        ((8, 8), "has shape 8x8, the net takes Nx3x8x8"),
        ((), "has shape of a single number"),
    ]:
        np.save(tmp_path / "x.npy", np.zeros(shape))
        assert said in fails(tiny, tmp_path / "x.npy")


def test_arrays_that_are_not_numbers(tiny: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([None]), allow_pickle=True)
    assert "holds Python objects" in fails(tiny, tmp_path / "x.npy")


def test_an_archive_without_the_inputs(tiny: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(2), b=np.zeros(2))
    assert "holds a, b; tiny takes one called inputs" in fails(tiny, tmp_path / "x.npz")


def test_weights_truncated(tiny: Path, weights: Path, photo: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-8])
    assert "is broken off" in fails(tiny, photo)


def test_weights_of_another_net(tiny: Path, weights: Path) -> None:
    said = fails("lenet5", "--weights", weights)
    assert "does not hold weights of lenet5" in said
    assert "conv1.weight is 20x1x5x5 in the net and 4x3x3x3 there" in said


def test_weights_with_nan(tiny: Path, tmp_path: Path) -> None:
    net = netdsl.load(tiny)
    broken = {name: array.copy() for name, array in net.weights.items()}
    broken["fc1.bias"][1] = np.nan
    safetensors.save(tmp_path / "bad.safetensors", broken)
    assert "fc1.bias [1] is nan" in fails(tiny, "--weights", tmp_path / "bad.safetensors")


def test_weights_that_are_not_there(tiny: Path) -> None:
    assert "there is no weights file nowhere" in fails(tiny, "--weights", "nowhere")


def test_labels_of_the_wrong_length(tiny: Path) -> None:
    (tiny.parent / "classes.txt").write_text("cat\ndog\n")
    said = fails(tiny)
    assert "2" in said
    assert "3" in said


def test_flags_out_of_range(tiny: Path) -> None:
    assert "threads is 0" in fails(tiny, "--threads", 0)
    assert "batch is -1" in fails(tiny, "--batch", -1)
    assert "--top is 0" in fails(tiny, "--top", 0)
    assert "there is no device tpu" in fails(tiny, "--device", "tpu")
    assert "saved as .npy or .npz" in fails(tiny, "--save", "y.txt")
    assert "--profile measures the plans of cpu" in fails(tiny, "--profile")
    assert "there is no precision int8" in fails(tiny, "--precision", "int8")
    assert "reference does not compute in bf16" in fails(tiny, "--precision", "bf16")
    said = fails(tiny, "--device", "cpu", "--precision", "tf32")
    assert (
        "cpu does not compute in tf32 = help: it computes in fp32 or bf16; tf32 is for cuda" in said
    )
    said = fails(tiny, "--device", "cpu", "--precision", "bf16", "--exact")
    assert "exact keeps all of float32's digits, bf16 fewer" in said


def test_profile_has_a_row_a_layer() -> None:
    words = [
        "run",
        "-e",
        "input 3x8x8; conv3x3p1(4) -> relu -> gap -> flatten -> fc(3)",
        "--profile",
    ]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    table = found.stdout[found.stdout.index("time by layer") :].splitlines()
    rows = {line.split()[0]: line for line in table[2:]}
    assert {"conv1", "gap1", "fc1", "total"} <= set(rows)
    assert "%" in rows["conv1"]
    assert float(rows["total"].split()[1]) > 0


def test_what_fc_weights_cost_is_said(tmp_path: Path) -> None:
    net = "input 32x8x8; conv1(20) -> relu -> flatten -> fc(30) -> relu -> fc(3)"
    words = ["run", "-e", net, "--fc-weights"]
    found = CliRunner().invoke(app, [*words, "int8"])
    assert "weights rounded to int8 are off by, in root mean square: fc1 0." in found.stderr
    assert " ms in fp32, fc weights in int8: " in found.stdout
    found = CliRunner().invoke(app, [*words, "bf16", "--json"])
    assert "%, fc2 0.1" in found.stderr
    assert json.loads(found.stdout)[0]["fc_weights"] == "bf16"
    found = CliRunner().invoke(app, [*words, "int8", "--profile"])
    assert "time by layer, fp32, fc weights in int8" in found.stdout
    found = CliRunner().invoke(app, [*words, "fp32"])
    assert "off by" not in found.stderr
    found = CliRunner().invoke(app, ["run", "-e", "input 8; relu", "--fc-weights", "int8"])
    assert "has no fully connected layer: --fc-weights changes nothing" in found.stderr


def test_fc_weights_that_cannot_be(tiny: Path) -> None:
    assert "not kept in int4" in fails(tiny, "--fc-weights", "int4")
    assert "fc-weights is for the cpu" in fails(tiny, "--fc-weights", "int8")
    said = fails(tiny, "--device", "cpu", "--fc-weights", "int8", "--exact")
    assert "exact keeps all of float32's digits, int8 fewer" in said


def test_fewer_digits_are_said(tmp_path: Path) -> None:
    net = "input 32x8x8; conv1(20) -> relu -> flatten -> fc(3)"
    plain, less = tmp_path / "plain.npy", tmp_path / "less.npy"
    words = ["run", "-e", net]
    CliRunner().invoke(app, [*words, "--save", str(plain)])
    found = CliRunner().invoke(app, [*words, "--precision", "bf16", "--save", str(less)])
    assert " ms in bf16: " in found.stdout
    found = CliRunner().invoke(app, [*words, "--precision", "bf16", "--json"])
    assert json.loads(found.stdout)[0]["precision"] == "bf16"
    x, y = np.load(plain), np.load(less)
    assert 0 < np.abs(x - y).max() < 0.02 * np.abs(x).max()
    found = CliRunner().invoke(app, [*words, "--precision", "bf16", "--profile"])
    assert "time by layer, bf16" in found.stdout


def test_no_control_character_of_a_file_reaches_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ca\x1b[31mt\ndog\x07\n", encoding="utf-8")
    text = 'net "a\x1b]0;title\x07b"\ninput 3x8x8\nlabels "names.txt"\nconv3(2) -> gap -> softmax'
    path = tmp_path / "odd.net"
    path.write_text(text, encoding="utf-8")
    for words in (["cost", str(path)], ["run", str(path)], ["run", str(path), "--json"]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0
        assert not set("\x07\x1b") & set(result.output)
    assert json.loads(result.stdout)[0]["top"][0]["label"] in ("ca\ufffd[31mt", "dog\ufffd")
