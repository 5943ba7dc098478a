"""The whole way from a net to NVIDIA's driver, with a stand-in for the driver: numba-cuda and
cuda-core are the real ones, kernels are compiled and linked, and only what the card itself would do
is made up (fake_driver.c). Needs numba-cuda, its compiler packages and a C compiler.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the fake driver."""
    compiler = shutil.which("cc")
    if find_spec("numba_cuda") is None or compiler is None:
        pytest.skip("numba-cuda or a C compiler is not installed")
    if find_spec("nvidia") is None or find_spec("cuda.bindings") is None:
        pytest.skip("NVIDIA's compiler packages are not installed")
    folder = tmp_path_factory.mktemp("driver")
    source = HERE / "fake_driver.c"
    flags = ["-shared", "-fPIC", "-O1", "-w", "-o", str(folder / "libcuda.so.1")]
    subprocess.run([compiler, *flags, str(source), "-ldl"], check=True)
    return folder


def started(
    command: list[str], folder: Path, given: str = "", **faked: object
) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
    env |= {f"FAKE_CUDA_{name}": str(value) for name, value in faked.items()}
    env |= {"LD_LIBRARY_PATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "kept")}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parents[1]), env.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *command],
        input=given,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def driven(folder: Path, given: dict[str, Any] | None = None, **faked: object) -> dict[str, Any]:
    """What driven.py prints."""
    done = started([str(HERE / "driven.py")], folder, json.dumps(given or {}), **faked)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_later_process_compiles_nothing(driver: Path) -> None:
    driven(driver)
    (path,) = (driver / "kept").glob("kernels-cuda-*/bent-*")
    assert driven(driver)["compiled"] == 0
    path.write_bytes(path.read_bytes()[:-1])
    again = driven(driver)
    assert again["compiled"] == 1
    assert again["one"] == again["many"] == 0.0


CLI = ["-c", "from netdsl.cli import main; main()"]
NET = ["-e", "input 3x40x40; relu -> flatten", "--device", "cuda"]


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_one_batch_and_many_come_back_right(driver: Path, seed: int) -> None:
    """Whether the driver does things as late as it may, or at any moment before."""
    found = driven(driver, SEED=seed)
    assert found["one"] == found["many"] == 0.0
    assert found["graph"]
    assert found["note"] == ""
    assert all(ms > 0 for ms in found["ms"])


WAITS = ["uploaded.wait", "computed.wait", "downloaded.synchronize"]


@pytest.mark.parametrize("wait", WAITS)
def test_no_wait_is_one_too_many(driver: Path, wait: str) -> None:
    shown = [driven(driver, {"without": [wait]}, SEED=seed)["many"] for seed in (0, 3)]
    assert max(shown) > 0


@pytest.mark.parametrize(
    "fails", ["cuGraphInstantiateWithParams:801", "cuStreamBeginCapture:901", "cuMemHostAlloc:2"]
)
def test_what_only_makes_it_faster_may_be_missing(driver: Path, fails: str) -> None:
    found = driven(driver, FAIL=fails)
    assert found["one"] == found["many"] == 0.0
    without_graph = not fails.startswith("cuMemHostAlloc")
    assert found["graph"] is not without_graph
    assert ("one by one" in found["note"]) is without_graph


@pytest.mark.parametrize(
    ("faked", "code", "says"),
    [
        ({"VERSION": 12040}, "old-driver", ["CUDA 12.4", "CUDA 13.", "580"]),
        ({"FAIL": "cuInit:803"}, "old-driver", ["SYSTEM_DRIVER_MISMATCH", "580"]),
        ({"CC": 70}, "old-card", ["7.0", "7.5"]),
        ({"CARDS": 0}, "no-card", ["finds no card"]),
        ({"FREE": 20000}, "out-of-memory", ["38,", "bytes are needed, 20,000 are free"]),
        ({"FAIL": "cuMemAlloc:2:1"}, "out-of-memory", ["38,"]),
        ({"FAIL": "cuLibraryLoadData:222"}, "old-driver", ["UNSUPPORTED_PTX_VERSION", "580"]),
        ({"FAIL": "cuLaunchKernelEx:719", "STICKY": 1}, "card-lost", ["LAUNCH_FAILED"]),
        ({"FAIL": "cuStreamSynchronize:700", "STICKY": 1}, "card-lost", ["ILLEGAL_ADDRESS"]),
        ({"FAIL": "cuMemcpyHtoDAsync:999", "STICKY": 1}, "card-lost", ["UNKNOWN"]),
    ],
)
def test_a_fault_is_one_clear_message(
    driver: Path, faked: dict[str, object], code: str, says: list[str]
) -> None:
    done = started([*CLI, "run", *NET], driver, **faked)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("weights", "no in"))]
    assert lines[0].startswith(f"error[{code}]: ")
    assert lines[1].startswith("  = help: ")
    assert len(lines) == 2, done.stderr
    assert [part for part in says if part not in done.stderr] == []


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_card_without_tensor_cores_is_told_before_training_is_timed(
    driver: Path, precision: str
) -> None:
    words = ["bench", "-e", "input 3; fc(2)", "--device", "cuda", "--train", "--against", ""]
    done = started([*CLI, *words, "--precision", precision], driver, CC=75)
    assert done.returncode == 2
    assert done.stderr.startswith("error[old-card]: "), done.stderr
    assert f"{precision} asks for 8.0" in done.stderr


def test_a_batch_that_would_fit_is_named(driver: Path) -> None:
    done = started([*CLI, "run", *NET, "--batch", "8"], driver, FREE=150000)
    assert done.returncode == 2
    assert "--batch 3 would fit" in done.stderr


def test_a_lost_card_leaves_everything_else_intact(driver: Path) -> None:
    found = driven(driver, {"does": "lost"}, FAIL="cuEventSynchronize:719:2", STICKY=1)
    assert found["said"] == [["card-lost"], ["card-lost"]]
    assert found["kept"]
    assert found["cpu"] < 1e-6


def test_memory_of_plans_no_longer_used_is_free(driver: Path) -> None:
    assert driven(driver, {"does": "turns"}, FREE=500000)["one"] == 0.0


def test_info_names_card_driver_and_toolkit(driver: Path) -> None:
    done = started([*CLI, "info", "--json"], driver, VERSION=13010)
    found = json.loads(done.stdout)
    assert found["cuda"] == "ready"
    assert found["cuda_driver"] == "CUDA 13.1"
    assert found["cuda_toolkit"].startswith("CUDA 13.")
    assert found["cards"] == ["Fake card (compute capability 9.0, 16 GiB)"]
    assert "cuda: Fake card" in found["devices"]


def test_what_was_warmed_is_not_compiled_again(driver: Path, tmp_path: Path) -> None:
    words = [*CLI, "warm", *NET]
    kept = tmp_path / "kept"
    (tmp_path / "libcuda.so.1").symlink_to(driver / "libcuda.so.1")
    first, again = started(words, tmp_path), started(words, tmp_path)
    assert first.returncode == again.returncode == 0, first.stderr
    assert "1 kernels, 1 compiled in " in first.stdout
    assert str(kept) in first.stdout.replace("\n", "")
    assert "1 kernels, all compiled before" in again.stdout
    assert driven(tmp_path)["compiled"] == 0


def test_without_a_card_nothing_is_warmed(driver: Path) -> None:
    done = started([*CLI, "warm", *NET], driver, CARDS=0)
    assert done.returncode == 2
    assert done.stderr.startswith("error[no-card]: ")
    assert "Traceback" not in done.stderr
