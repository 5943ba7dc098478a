"""How many threads a plan may use, and which of Numba's threading layers they come from.

A parallel region costs about a microsecond with OpenMP or TBB and 20 times that with Numba's own
work queue, of which a network has a hundred. So one of the first two is chosen where it loads.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from functools import cache
from importlib import metadata

import numba
from numba.core import config

from netdsl.faults import error

LAYERS = {"omp": "numba.np.ufunc.omppool", "tbb": "numba.np.ufunc.tbbpool"}
"""Layers in the order they are tried, and the module that fails to import without its library."""


@cache
def layer() -> str:
    """The threading layer in use: omp, tbb, or workqueue where neither loads.

    NUMBA_THREADING_LAYER, if set, decides. Raises NetError where what it names does not load.
    """
    if "NUMBA_THREADING_LAYER" in os.environ:
        chosen = str(config.THREADING_LAYER)
        if chosen in LAYERS and not loads(chosen):
            raise error(
                "no-threading-layer",
                f"{chosen}, which NUMBA_THREADING_LAYER names, does not load",
                help="unset it, and what there is is taken",
            )
        return chosen
    found = next(filter(loads, LAYERS), "workqueue")
    config.THREADING_LAYER = found
    return found


@cache
def openmp() -> ctypes.CDLL | None:
    """OpenMP's library, where threads are taken from it and it can be asked directly."""
    if layer() != "omp" or not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL("libgomp.so.1")
    except OSError:
        return None


def loads(name: str) -> bool:
    """Whether the library of a layer is here."""
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


def available() -> int:
    """The most threads a plan can have: the CPUs this process may use, or NUMBA_NUM_THREADS."""
    return int(config.NUMBA_NUM_THREADS)


def count(asked: int | None) -> int:
    """The threads for a plan: as asked, but no more than there are. Raises NetError below 1.

    The layer is settled here, since compiling a parallel function starts it already.
    """
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


def use_numba(threads: int) -> None:
    """Lets this Python thread's parallel functions of Numba take that many threads."""
    layer()
    numba.set_num_threads(threads)
