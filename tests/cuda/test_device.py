"""What is said where there is no card, and that nothing of CUDA is imported to say it."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import netdsl
from netdsl.cuda import device, failure
from netdsl.cuda.device import Card, Found
from netdsl.faults import NetError
from netdsl.train.checkpoint import read_checkpoint


@pytest.fixture(autouse=True)
def no_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find_spec", lambda name: None)


@pytest.mark.usefixtures("without_package")
def test_without_numba_cuda_it_is_said_what_to_install() -> None:
    net = netdsl.Net.load(text="input 3; relu")
    with pytest.raises(NetError) as caught:
        net.run(np.zeros((1, 3), np.float32), device="cuda")
    (fault,) = caught.value.faults
    assert fault.code == "no-cuda"
    assert "numba-cuda" in fault.message
    assert fault.help == "pip install 'netdsl[cuda]'"


@pytest.mark.usefixtures("without_package")
def test_auto_takes_the_cpu_without_a_card() -> None:
    net = netdsl.Net.load(text="input 3; relu")
    assert net.run(np.full((1, 3), -1, np.float32), device="auto").tolist() == [[0, 0, 0]]


def tiny() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(size=(4, 3)).astype(np.float32), np.arange(4) % 2


@pytest.mark.usefixtures("without_package")
def test_training_on_a_card_that_is_not_here_leaves_the_net_as_it_is() -> None:
    net = netdsl.Net.load(text="input 3; fc(2)")
    with pytest.raises(NetError) as caught:
        net.train(tiny(), device="cuda", batch=2, epochs=1)
    assert caught.value.faults[0].code == "no-cuda"
    assert not net.trained


@pytest.mark.usefixtures("without_package")
def test_training_takes_the_cpu_without_a_card_and_goes_on_there(tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    net = netdsl.Net.load(text="input 3; fc(2)")
    settings: dict[str, int] = {"batch": 2, "epochs": 2, "threads": 1}
    net.train(tiny(), device="auto", out=out, **settings)
    assert net.trained
    again = netdsl.Net.load(text="input 3; fc(2)")
    again.train(tiny(), device="cpu", out=out, resume=True, **settings)
    for name, values in net.weights.items():
        np.testing.assert_array_equal(again.weights[name], values)
    kept = read_checkpoint(out.with_suffix(".checkpoint"), net.graph)
    assert "device" not in kept.facts["settings"]


def test_a_device_that_does_not_exist_is_named() -> None:
    with pytest.raises(NetError, match="'gpu'"):
        netdsl.Net.load(text="input 3; fc(2)").train(tiny(), device="gpu")


def test_a_numpy_that_numba_cuda_does_not_know_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find_spec", lambda name: object())
    monkeypatch.delattr(np, "row_stack", raising=False)
    fault = device.missing()
    assert fault is not None
    assert np.__version__ in fault.message
    assert "2.5" in fault.message


def test_without_a_card_it_is_said_what_is_missing() -> None:
    if find_spec("numba_cuda") is None:
        pytest.skip("numba-cuda is not installed")
    fault = device.missing()
    if fault is None:
        pytest.skip("there is a card")
    assert fault.code in ("no-card", "old-card")
    assert "--device cpu" in (fault.help or "")


def test_nothing_of_cuda_is_imported_before_it_is_asked_for(tmp_path: Path) -> None:
    code = (
        "import sys; from netdsl.cuda import device; device.find_spec = lambda name: None;"
        "from netdsl.cli import app; app(['info'], standalone_mode=False);"
        "print(device.missing().code, 'numba.cuda' in sys.modules, 'numba_cuda' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "no-cuda False False"


class DriverError(Exception):
    """As the driver's: of Numba's module."""

    __module__ = "numba.cuda.cudadrv.driver"


@pytest.mark.parametrize(
    ("said", "code", "also"),
    [
        ("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY", "out-of-memory", "64 sam"),
        ("[222] Call to cuX results in CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "old-driver", "580"),
        ("CUDA_ERROR_ILLEGAL_ADDRESS: While executing a kernel,\n ...", "card-lost", "ADDRESS"),
        ("Call to cuX results in CUDA_ERROR_INVALID_VALUE", "cuda-failed", "INVALID_VALUE"),
        ("libNVVM cannot\n be found", "cuda-failed", "libNVVM cannot be found"),
    ],
)
def test_what_the_driver_says_becomes_one_message(said: str, code: str, also: str) -> None:
    with pytest.raises(NetError, match=also) as caught, failure.faults_of("vgg16", 64):
        raise DriverError(said)
    assert caught.value.faults[0].code == code
    assert "vgg16" in str(caught.value)
    assert "--device cpu" in str(caught.value) or "batch" in str(caught.value)


def test_memory_that_is_asked_for_and_free_is_named() -> None:
    with pytest.raises(NetError, match="4,096 bytes are needed"), failure.faults_of("net", 1, 4096):
        raise DriverError("CUDA_ERROR_OUT_OF_MEMORY")
    assert failure.wanting(4096, 100) == "4,096 bytes are needed, 100 are free"
    assert failure.wanting(None, 100) == ""
    assert "--batch 3 would fit" in str(failure.out_of_memory("net", 8, "", 3))


def test_other_errors_are_left_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError), failure.faults_of("vgg16", 1):
        _ = 1 / 0


H100 = Card("H100", (9, 0), 80 << 30)


@pytest.mark.parametrize(
    ("here", "code", "says"),
    [
        (Found("", (13, 0), (13, 0), (H100,)), None, ""),
        (Found("", (13, 1), (13, 0), (Card("T4", (7, 5)),)), None, ""),
        (Found("", (12, 8), (13, 0)), "old-driver", "CUDA 12.8, the toolkit .* CUDA 13.0"),
        (Found("", (13, 0), None, (H100,)), "no-toolkit", "toolkit is not installed"),
        (Found("", (13, 0), (13, 0)), "no-card", "finds no card"),
        (Found("", (13, 0), (13, 0), (Card("V100", (7, 0)), H100)), "old-card", "7.0, .* 7.5"),
        (Found("Error: CUDA_ERROR_NO_DEVICE (100)", None, (13, 0)), "no-card", "finds no card"),
        (Found("CUDA driver library cannot be found."), "no-card", "no NVIDIA driver is installed"),
        (Found("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"), "old-driver", "parts do not fit"),
        (Found("CUDA_ERROR_SYSTEM_NOT_READY"), "no-card", "SYSTEM_NOT_READY"),
    ],
)
def test_what_stands_in_the_way_is_named(here: Found, code: str | None, says: str) -> None:
    fault = device.obstacle(here)
    assert (fault.code if fault else None) == code
    if fault is not None:
        assert re.search(says, fault.message)
        assert fault.help


def test_info_says_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_unfit", lambda: None)
    monkeypatch.setattr(device, "found", lambda: Found("", (13, 0), (13, 0), (H100,)))
    monkeypatch.setattr(device, "version", lambda package: "0.30.4")
    assert device.about() == {
        "cuda": "ready",
        "numba_cuda": "0.30.4",
        "cuda_driver": "CUDA 13.0",
        "cuda_toolkit": "CUDA 13.0",
        "cards": ["H100 (compute capability 9.0, 80 GiB)"],
    }


@pytest.mark.usefixtures("without_package")
def test_info_says_what_to_install() -> None:
    assert "pip install" in device.about()["cuda"]
