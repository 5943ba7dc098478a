"""Whether there is a card to run on, said in one message where there is none.

Nothing here imports Numba's CUDA target before its package is known to be installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from netdsl.faults import Fault, NetError, error

INSTALL = "pip install 'netdsl[cuda]'"

OLDEST = (7, 5)
"""The compute capability that CUDA 13 asks for: Turing."""

OUT_OF_MEMORY = 2
"""The driver's code for it."""


def installed() -> bool:
    """Whether numba-cuda is here, or Numba's simulator stands in for it."""
    return simulated() or find_spec("numba_cuda") is not None


def simulated() -> bool:
    """Whether Numba's simulator is asked for: kernels then run as Python threads."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def missing() -> Fault | None:
    """What stands in the way of running here; None if nothing does."""
    if simulated():
        return None
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
    return _no_card()


def _no_card() -> Fault | None:
    from numba import cuda

    if not cuda.is_available():
        why = cuda.cuda_error()
        said = " ".join(str(why).split()) if why else "no NVIDIA card or toolkit was found"
        return Fault(
            "no-card",
            f"the device cuda cannot be used: {said}",
            help=f"an NVIDIA card with a driver for CUDA 13, and {INSTALL}; "
            "--device cpu runs without",
        )
    card = cuda.get_current_device()
    if tuple(card.compute_capability) < OLDEST:
        major, minor = card.compute_capability
        return Fault(
            "old-card",
            f"{_name(card)} has compute capability {major}.{minor}, CUDA 13 asks for 7.5",
            help="--device cpu runs without",
        )
    return None


def check() -> None:
    """Raises NetError where there is no card to run on."""
    fault = missing()
    if fault is not None:
        raise NetError(fault)


def devices() -> list[str]:
    """The names of the cards here; empty without numba-cuda, which is not imported then."""
    if not installed() or simulated():
        return []
    from numba import cuda

    return [_name(card) for card in cuda.gpus] if cuda.is_available() else []


def _name(card: object) -> str:
    name = getattr(card, "name", "an unknown card")
    return name.decode() if isinstance(name, bytes) else str(name)


@contextmanager
def faults_of(name: str, batch: int) -> Iterator[None]:
    """Turns the driver's and the compiler's errors into a NetError about the net of this name."""
    try:
        yield
    except Exception as found:
        if "cuda" not in type(found).__module__:
            raise
        said = " ".join(str(found).split()) or type(found).__name__
        if getattr(found, "code", None) == OUT_OF_MEMORY:
            raise out_of_memory(name, batch, said) from found
        raise error(
            "cuda-failed",
            f"the card gave up on {name}: {said}",
            help="a driver older than CUDA 13 is the usual cause; --device cpu runs without",
        ) from found


def out_of_memory(name: str, batch: int, said: str) -> NetError:
    """The error for a plan that does not fit the card."""
    return error(
        "out-of-memory",
        f"{name} with {batch} samples at once does not fit the card's memory: {said}",
        help="a smaller batch needs less" if batch > 1 else None,
    )
