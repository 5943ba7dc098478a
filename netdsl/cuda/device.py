"""Whether there is a card to run on, said in one message where there is none.

Nothing here imports Numba's CUDA target before its package is known to be installed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from netdsl.cuda.failure import DRIVER, code_of
from netdsl.faults import Fault, NetError

INSTALL = "pip install 'netdsl[cuda]'"

OLDEST = (7, 5)
"""The compute capability that CUDA 13 asks for: Turing."""

TENSOR = (8, 0)
"""The compute capability of tensor cores for TF32 and bfloat16: Ampere."""

WITHOUT = "--device cpu runs without"

Version = tuple[int, int]


@dataclass(frozen=True)
class Card:
    """A card: its name, its compute capability, its bytes of memory where it says so."""

    name: str
    capability: Version
    memory: int | None = None

    def __str__(self) -> str:
        said = [f"compute capability {_dotted(self.capability)}"]
        if self.memory is not None:
            said.append(f"{self.memory / 2**30:.0f} GiB")
        return f"{self.name} ({', '.join(said)})"


@dataclass(frozen=True)
class Found:
    """What the driver and the toolkit say of themselves.

    why: the driver's error where it does not start. driver: the newest CUDA it knows. toolkit: the
    CUDA that kernels are compiled with.
    """

    why: str = ""
    driver: Version | None = None
    toolkit: Version | None = None
    cards: tuple[Card, ...] = ()


def installed() -> bool:
    """Whether numba-cuda is here, or Numba's simulator stands in for it."""
    return simulated() or find_spec("numba_cuda") is not None


def simulated() -> bool:
    """Whether Numba's simulator is asked for: kernels then run as Python threads."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def missing() -> Fault | None:
    """What stands in the way of running here; None if nothing does."""
    return None if simulated() else _unfit() or obstacle(found())


def _unfit() -> Fault | None:
    """What is wrong with the packages, without importing them."""
    if not installed():
        return Fault(
            "no-cuda", "the device cuda needs numba-cuda, which is not installed", help=INSTALL
        )
    import numpy as np

    if not hasattr(np, "row_stack"):
        return Fault(
            "no-cuda",
            f"numba-cuda does not work with NumPy {np.__version__}: it needs one below 2.5",
            help=INSTALL,
        )
    return None


def obstacle(here: Found) -> Fault | None:
    """What of this stands in the way; None if nothing does."""
    if here.why or here.driver is None:
        return _no_driver(here.why or "the driver says nothing of itself")
    if here.toolkit is None:
        return Fault("no-toolkit", "the CUDA toolkit is not installed", help=INSTALL)
    if here.driver[0] < here.toolkit[0]:
        return Fault(
            "old-driver",
            f"the NVIDIA driver is for CUDA {_dotted(here.driver)}, the toolkit that is installed "
            f"is CUDA {_dotted(here.toolkit)}",
            help=f"install {DRIVER}; {WITHOUT}",
        )
    if not here.cards:
        return _no_driver("CUDA_ERROR_NO_DEVICE")
    card = here.cards[0]
    if card.capability < OLDEST:
        return Fault(
            "old-card",
            f"{card.name} has compute capability {_dotted(card.capability)}, CUDA 13 asks for "
            f"{_dotted(OLDEST)} (Turing) or later",
            help=WITHOUT,
        )
    return None


def _no_driver(why: str) -> Fault:
    """The driver does not start, or has no card."""
    code = code_of(why)
    if code is not None:
        why = f"CUDA_ERROR_{code}"
    if code == "NO_DEVICE":
        return Fault(
            "no-card",
            "the device cuda cannot be used: the NVIDIA driver finds no card",
            help=f"CUDA_VISIBLE_DEVICES may hide it; {WITHOUT}",
        )
    if code in ("SYSTEM_DRIVER_MISMATCH", "COMPAT_NOT_SUPPORTED_ON_DEVICE"):
        return Fault(
            "old-driver",
            f"the NVIDIA driver's parts do not fit each other: {why}",
            help=f"install {DRIVER}, and start the machine anew; {WITHOUT}",
        )
    if "cannot be found" in why or "cannot open shared object file" in why:
        why = "no NVIDIA driver is installed"
    return Fault(
        "no-card",
        f"the device cuda cannot be used: {why}",
        help=f"it needs an NVIDIA card with {DRIVER}, and {INSTALL}; {WITHOUT}",
    )


@cache
def found() -> Found:
    """The driver, the toolkit and the cards. Imports numba.cuda."""
    from numba import cuda
    from numba.cuda.cudadrv import driver

    # Asking starts the driver; the first time it may raise what cuda_error() then says.
    with suppress(ImportError):
        cuda.is_available()
    why = " ".join(str(cuda.cuda_error() or "").split())
    toolkit = _toolkit()
    if why:
        return Found(why, toolkit=toolkit)
    try:
        there = driver.get_version()
        known = toolkit is None or there[0] >= toolkit[0]
        # Asked for its cards, a driver that is too old makes the packages complain at length.
        cards = tuple(_card(each) for each in cuda.gpus) if known else ()
    except Exception as problem:
        return Found(" ".join(str(problem).split()), toolkit=toolkit)
    return Found("", tuple(there), toolkit, cards)


def _toolkit() -> Version | None:
    """The version of the compiler's library; None where there is none."""
    try:
        from numba.cuda.cudadrv import nvvm, runtime

        return tuple(runtime.get_version()) if nvvm.is_available() else None
    except Exception:
        # Each package that may be missing or broken raises its own.
        return None


def _card(card: Any) -> Card:
    name = card.name.decode() if isinstance(card.name, bytes) else str(card.name)
    major, minor = card.compute_capability
    return Card(name, (major, minor), _memory(int(card.id)))


def _memory(number: int) -> int | None:
    """A card's bytes of memory, without a context, which would take some of it."""
    with suppress(Exception):
        from numba.cuda.cudadrv.driver import driver

        return int(driver.cuDeviceTotalMem(number))
    return None


def too_old(card: Card, precision: str) -> Fault | None:
    """What keeps a card from computing in a precision; None if nothing does."""
    if precision == "fp32" or card.capability >= TENSOR:
        return None
    return Fault(
        "old-card",
        f"{card.name} has compute capability {_dotted(card.capability)}, {precision} asks for "
        f"{_dotted(TENSOR)} (Ampere) or later",
        help="--precision fp32 runs on it",
    )


def check(precision: str = "fp32") -> None:
    """Raises NetError where there is no card to run on, or not in this precision."""
    fault = missing()
    if fault is None and not simulated():
        fault = too_old(found().cards[0], precision)
    if fault is not None:
        raise NetError(fault)


def devices() -> list[str]:
    """The cards here, as they are called; empty where none can be used."""
    return [] if simulated() or missing() else [card.name for card in found().cards]


def about() -> dict[str, Any]:
    """What `netdsl info` says of CUDA: whether it can be used, and what with."""
    if simulated():
        return {"cuda": "Numba's simulator"}
    problem = _unfit()
    if problem is not None:
        return {"cuda": f"{problem.message} ({problem.help})"}
    here, problem = found(), missing()
    said: dict[str, Any] = {"cuda": problem.message if problem else "ready"}
    said["numba_cuda"] = version("numba-cuda")
    if here.driver:
        said["cuda_driver"] = f"CUDA {_dotted(here.driver)}"
    if here.toolkit:
        said["cuda_toolkit"] = f"CUDA {_dotted(here.toolkit)}"
    if here.cards:
        said["cards"] = [str(card) for card in here.cards]
    return said


def _dotted(numbers: Version) -> str:
    return ".".join(map(str, numbers))
