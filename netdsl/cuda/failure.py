"""What the driver and the compiler say when something fails, as one message a person can use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from netdsl.faults import NetError, error

DRIVER = "a driver of version 580 or later, which is for CUDA 13"
"""What CUDA 13 asks for (its release notes, table of driver versions)."""

DRIVERS = ("numba.cuda.cudadrv", "cuda.")
"""Whose exceptions speak of the card: all others are somebody's mistake, and stay as they are."""

OUT_OF_MEMORY = "OUT_OF_MEMORY"

OLD_DRIVER = frozenset(
    (
        "UNSUPPORTED_PTX_VERSION",
        "INVALID_PTX",
        "NO_BINARY_FOR_GPU",
        "SYSTEM_DRIVER_MISMATCH",
        "COMPAT_NOT_SUPPORTED_ON_DEVICE",
        "INSUFFICIENT_DRIVER",
    )
)
"""Code that the driver does not know, or a library of it that belongs to another."""

LOST = frozenset(
    (
        "ASSERT",
        "CONTEXT_IS_DESTROYED",
        "DEVICE_UNAVAILABLE",
        "ECC_UNCORRECTABLE",
        "EXTERNAL_DEVICE",
        "HARDWARE_STACK_ERROR",
        "ILLEGAL_ADDRESS",
        "ILLEGAL_INSTRUCTION",
        "INVALID_ADDRESS_SPACE",
        "INVALID_PC",
        "LAUNCH_FAILED",
        "LAUNCH_TIMEOUT",
        "MISALIGNED_ADDRESS",
        "NVLINK_UNCORRECTABLE",
        "SYSTEM_NOT_READY",
        "TENSOR_MEMORY_LEAK",
        "UNKNOWN",
    )
)
"""After these a process has no use of the card any more: every further call fails too."""

NAME = re.compile(r"CUDA_ERROR_(\w+)")


def code_of(said: str) -> str | None:
    """The driver's name of an error in what an exception says, without CUDA_ERROR_."""
    found = NAME.search(said)
    return found[1] if found else None


@contextmanager
def faults_of(name: str, batch: int, needed: int | None = None) -> Iterator[None]:
    """Turns the driver's and the compiler's errors into a NetError about the net of this name.

    batch: samples at once. needed: bytes that the block asks for, where it takes memory.
    """
    try:
        yield
    except Exception as found:
        if not type(found).__module__.startswith(DRIVERS):
            raise
        said = " ".join(str(found).split()) or type(found).__name__
        raise failure(name, batch, said, needed) from found


def failure(name: str, batch: int, said: str, needed: int | None = None) -> NetError:
    """The error for what the driver or the compiler said."""
    code = code_of(said)
    if code is not None:
        said = f"CUDA_ERROR_{code}"
    if code == OUT_OF_MEMORY:
        return out_of_memory(name, batch, wanting(needed, _free()) or said)
    if code in OLD_DRIVER:
        return error(
            "old-driver",
            f"the driver cannot load the kernels of {name}: {said}",
            help=f"the card needs {DRIVER}; `netdsl info` says what is here; --device cpu "
            "runs without",
        )
    if code in LOST:
        _let_go()
        return error(
            "card-lost",
            f"the card failed while it ran {name}: {said}",
            help="nothing on this side was changed; this process cannot use the card again: run "
            "anew, or with --device cpu",
        )
    return error(
        "cuda-failed",
        f"the card gave up on {name}: {said}",
        help="`netdsl info` says which driver and toolkit are here; --device cpu runs without",
    )


def out_of_memory(name: str, batch: int, said: str, fits: int = 0) -> NetError:
    """The error for a plan that does not fit the card. fits: a batch that would."""
    hint = "a smaller batch needs less" if batch > 1 else "--device cpu uses the machine's memory"
    if 0 < fits < batch:
        hint = f"--batch {fits} would fit"
    samples = "1 sample" if batch == 1 else f"{batch} samples"
    return error(
        "out-of-memory",
        f"{name} with {samples} at once does not fit the card's memory: {said}",
        help=hint,
    )


def wanting(needed: int | None, free: int | None) -> str:
    """How much is asked for and how much there is; nothing where neither is known."""
    asked = [f"{needed:,} bytes are needed"] if needed else []
    there = [f"{free:,} are free"] if free is not None else []
    return ", ".join(asked + there) if asked else ""


def _free() -> int | None:
    """Bytes that the card has left, where it still answers."""
    with suppress(Exception):
        from netdsl.cuda.launch import free_bytes

        return free_bytes()
    return None


def _let_go() -> None:
    """Leaves a card alone that is lost."""
    with suppress(Exception):
        from netdsl.cuda.launch import abandon

        abandon()
