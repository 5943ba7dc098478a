"""What is said where there is no card, and that nothing of CUDA is imported to say it."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import netdsl
from netdsl.cuda import device
from netdsl.faults import NetError


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
    """As the driver's: of Numba's module, with a code."""

    __module__ = "numba.cuda.cudadrv.driver"

    def __init__(self, code: int, said: str) -> None:
        super().__init__(said)
        self.code = code


@pytest.mark.parametrize(
    ("code", "fault", "said"),
    [(2, "out-of-memory", "64 samples"), (222, "cuda-failed", "unsupported PTX")],
)
def test_what_the_driver_says_becomes_one_message(code: int, fault: str, said: str) -> None:
    with pytest.raises(NetError, match=said) as caught, device.faults_of("vgg16", 64):
        raise DriverError(code, "unsupported PTX\n version")
    assert caught.value.faults[0].code == fault
    assert "vgg16" in str(caught.value)


def test_other_errors_are_left_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError), device.faults_of("vgg16", 1):
        _ = 1 / 0
