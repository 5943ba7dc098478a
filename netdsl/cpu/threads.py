"""How many threads a plan may use, and which of Numba's threading layers they come from.

A parallel region costs about a microsecond with OpenMP or TBB and 20 times that with Numba's own
work queue, of which a network has a hundred. So one of the first two is chosen where it loads.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import sys
from functools import cache

from netdsl.faults import error

LAYERS = {"omp": "numba.np.ufunc.omppool", "tbb": "numba.np.ufunc.tbbpool"}
"""Layers in the order they are tried, and the module that fails to import without its library."""

GNU_OPENMP = "libgomp.so.1"
"""OpenMP's library on Linux."""


@cache
def layer() -> str:
    """The threading layer in use: omp, tbb, or workqueue where neither loads.

    NUMBA_THREADING_LAYER, if set, decides. Raises NetError where what it names does not load.
    """
    if "NUMBA_THREADING_LAYER" in os.environ:
        chosen = os.environ["NUMBA_THREADING_LAYER"].lower()
        if chosen in LAYERS and not loads(chosen):
            raise error(
                "no-threading-layer",
                f"{chosen}, which NUMBA_THREADING_LAYER names, does not load",
                help="unset it, and what there is is taken",
            )
        return chosen
    return next(filter(loads, LAYERS), "workqueue")


@cache
def openmp() -> ctypes.CDLL | None:
    """OpenMP's library, where threads are taken from it and it can be asked directly."""
    return _gnu_openmp() if layer() == "omp" else None


@cache
def _gnu_openmp() -> ctypes.CDLL | None:
    """OpenMP's library on Linux, where it is installed."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL(GNU_OPENMP)
    except OSError:
        return None


def address(library: ctypes.CDLL, name: str) -> int:
    """Where a library's function lies. Raises AttributeError where it has none of that name."""
    found = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    assert found is not None
    return found


def loads(name: str) -> bool:
    """Whether the library of a layer is here."""
    if name == "omp" and sys.platform.startswith("linux"):
        return _gnu_openmp() is not None
    if name == "tbb":
        _open_tbb()
    try:
        importlib.import_module(LAYERS[name])
    except ImportError:
        return False
    return True


def _open_tbb() -> None:
    """Opens PyPI's tbb, which lies in the environment's lib/, where no loader looks.

    Once it is open, Numba's layer finds it by its name.
    """
    from importlib import metadata

    try:
        files = metadata.files("tbb") or []
        found = next((file for file in files if file.name == "libtbb.so.12"), None)
        if found is not None:
            ctypes.CDLL(str(found.locate()), mode=ctypes.RTLD_GLOBAL)
    except (metadata.PackageNotFoundError, OSError):
        pass  # not installed, or not for this machine: the layer will not load either


def advice() -> str | None:
    """What to tell a person whose threads start slowly; None where all is well."""
    if layer() != "workqueue":
        return None
    return (
        "neither OpenMP nor TBB loads, so every layer starts its threads slowly: "
        "install libgomp1 (Debian, Ubuntu), libgomp (Fedora), or `pip install tbb`"
    )


@cache
def available() -> int:
    """The most threads a plan can have: the CPUs this process may use, or NUMBA_NUM_THREADS."""
    with contextlib.suppress(KeyError, ValueError):
        return max(1, int(os.environ["NUMBA_NUM_THREADS"]))
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count(asked: int | None) -> int:
    """The threads for a plan: as asked, but no more than there are. Raises NetError below 1, or
    for a layer that does not load."""
    layer()
    if asked is None:
        return available()
    if asked < 1:
        raise error(
            "no-threads",
            f"{asked} threads cannot run anything",
            help=f"--threads 1 to {available()}, or leave it out for all of them",
        )
    return min(asked, available())


def tell_numba() -> None:
    """Lets Numba take its threads from our layer; before it starts them."""
    from numba.core import config

    config.THREADING_LAYER = layer()


def use_numba(threads: int) -> None:
    """Lets this Python thread's parallel functions of Numba take that many threads."""
    import numba

    tell_numba()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
