"""Where compiled kernels are kept, so that a later process does not compile them again.

What is kept of a kernel is the card's own code (a cubin) with a head that says what it is; nothing
that this side would run. Each lies in a file of its own in the user's cache folder, beside those of
the CPU: `netdsl/kernels-cuda-DIGEST`, the digest being that of the kernels' sources and of the
versions that compile them. NUMBA_CACHE_DIR, if set, is used instead of the user's folder.

Files are written aside and renamed, so processes may share the folder; one that cannot be read or
written costs time and nothing else. Files and folders that others own or could write to are not
read. Numba's own cache is not used: processes that write at once may leave a kernel of one tile
under the name of another there, and what it reads it lets run.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from netdsl.resources import user_folder

PACKAGES = ("numba", "numba-cuda", "cuda-core", "cuda-bindings", "nvidia-nvvm", "nvidia-nvjitlink")
"""What has a hand in the code that comes out."""

DAY = 24 * 3600

MAGIC = b"netdsl kernel 1\n"

OTHERS = stat.S_IWGRP | stat.S_IWOTH


@cache
def folder() -> Path:
    """Where the kernels of this version and these compilers lie. It may not exist."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        digest.update(f"{package} {_version(package)}\n".encode())
    here = Path(__file__).parent
    for source in [*sorted(here.rglob("*.py")), here.with_name("cook_toom.py")]:
        digest.update(source.read_bytes())
    given = os.environ.get("NUMBA_CACHE_DIR")
    base = Path(given) if given else user_folder() / "netdsl"
    return base / f"kernels-cuda-{digest.hexdigest()[:12]}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def own(found: os.stat_result) -> bool:
    """Whether nobody but this user could have written it, or change it."""
    if os.name == "nt":
        return True
    return found.st_uid == os.geteuid() and not found.st_mode & OTHERS


def read(name: str) -> tuple[dict[str, Any], bytes] | None:
    """What was kept under a name: its head, and the code. None where there is none, or where it
    is damaged, or others could have written it."""
    path = folder() / name
    try:
        if not own(path.parent.lstat()):
            return None
        with path.open("rb") as file:
            if not own(os.fstat(file.fileno())):
                return None
            if file.read(len(MAGIC)) != MAGIC:
                return None
            head, code = json.loads(file.readline()), file.read()
        whole = hashlib.sha256(code).hexdigest() == head["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (head, code) if whole else None


def write(name: str, head: dict[str, Any], code: bytes) -> None:
    """Keeps code under a name, where that is possible."""
    head = head | {"sha256": hashlib.sha256(code).hexdigest()}
    path = folder() / name
    aside = path.with_name(f".{name}.{os.getpid()}-{time.monotonic_ns()}")
    try:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(MAGIC + json.dumps(head).encode() + b"\n" + code)
        aside.replace(path)
    except OSError:
        with suppress(OSError):
            aside.unlink()


def used() -> None:
    """Marks the folder as used today: those that long have not been go, as the CPU's do."""
    with suppress(OSError):
        if time.time() - folder().stat().st_mtime > DAY:
            os.utime(folder())


def described(function: Callable[..., Any]) -> str | None:
    """What tells a kernel from others of the same sources: its name, and what was put into it.
    None where that cannot be put into words."""
    held = [cell.cell_contents for cell in function.__closure__ or ()]
    parts = [_described(value) for value in held]
    if None in parts:
        return None
    return f"{function.__module__}.{function.__qualname__}({', '.join(filter(None, parts))})"


def _described(value: Any) -> str | None:
    # A kernel or a device function: what counts is the function in it.
    value = getattr(value, "py_func", value)
    if isinstance(value, FunctionType):
        return described(value)
    if isinstance(value, bool | int | float | str | np.generic):
        return repr(value)
    if isinstance(value, tuple):
        parts = [_described(each) for each in value]
        return None if None in parts else f"({', '.join(filter(None, parts))})"
    if type(value).__module__.startswith("numba") and hasattr(value, "bitwidth"):
        return str(value)
    return None


class KernelCache:
    """The kept code of one kernel, in the place of Numba's cache of it.

    Numba asks it before it compiles (`load_overload`), and hands it what it compiled. compiled: how
    often it did.
    """

    cache_path = None
    compiled = 0

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name, self._what = function.__name__, described(function)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The kernel ready to launch, or None."""
        found = self._what and read(self._file(sig))
        if not found:
            return None
        head, code = found
        try:
            kernel = rebuilt(self._name, sig, head["entry"], code)
            kernel.bind()
        except Exception:
            # Numba's insides are another's, or the driver wants other code: it is compiled then.
            return None
        used()
        return kernel

    def save_overload(self, sig: Any, kernel: Any) -> None:
        self.compiled += 1
        library = kernel.library
        if not self._what or library._linking_files or kernel.cooperative:
            return
        write(self._file(sig), {"entry": kernel.entry_name}, bytes(library.get_cubin().code))

    def _file(self, sig: Any) -> str:
        said = f"{self._what} {sig} {_card()}"
        return f"{self._name}-{hashlib.sha256(said.encode()).hexdigest()[:24]}"


def _card() -> str:
    """What the code is for."""
    from numba import cuda

    major, minor = cuda.get_current_device().compute_capability
    return f"sm_{major}{minor}"


def rebuilt(name: str, sig: Any, entry: str, code: bytes) -> Any:
    """The kernel that Numba would make of this code, as its own cache makes them."""
    from cuda.core import ObjectCode
    from numba.cuda.codegen import CUDACodeLibrary
    from numba.cuda.dispatcher import _Kernel

    library = CUDACodeLibrary(None, name, entry_name=entry)
    library._cubin_cache[library._ensure_cc(None)] = ObjectCode.from_cubin(code)
    library._finalized = True
    return _Kernel._rebuild(
        cooperative=False,
        name=entry,
        signature=sig,
        codelibrary=library,
        debug=False,
        lineinfo=False,
        call_helper=None,
        extensions=[],
    )


def keep(kernel: Any) -> KernelCache:
    """Has Numba use the kept code of a kernel, and keep what it compiles."""
    if not isinstance(kernel._cache, KernelCache):
        kernel._cache = KernelCache(kernel.py_func)
    kept: KernelCache = kernel._cache
    return kept


def size() -> int:
    """Bytes of all kernels that are kept."""
    with suppress(OSError):
        return sum(path.stat().st_size for path in folder().iterdir())
    return 0
