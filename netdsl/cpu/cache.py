"""Where compiled kernels are kept, so that only a first run pays for compiling them.

They lie in the user's cache folder, `netdsl/kernels-DIGEST`, the digest being that of the kernels'
sources and of the versions of Numba and LLVM (`kept.py`). NUMBA_CACHE_DIR, if set, is used instead
of the user's folder.
"""

from __future__ import annotations

import contextlib
import os
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from netdsl import kept
from netdsl.resources import user_folder


@cache
def folder() -> Path:
    """Where this version's compiled kernels lie. It may not exist, nor be writable."""
    here = Path(__file__).parent
    sources = [*kept.below(here), str(here.with_name("cook_toom.py"))]
    digest = kept.digest(sources, version("numba"), version("llvmlite"))
    given = os.environ.get("NUMBA_CACHE_DIR")
    base = Path(given) if given else user_folder() / "netdsl"
    return base / f"kernels-{digest}"


def version(package: str) -> bytes:
    """What says which version of a package is here: its file of that, for importing Numba would
    take longer than all the rest of a start."""
    spec = find_spec(package)
    if spec is not None and spec.origin is not None:
        with contextlib.suppress(OSError):
            return Path(spec.origin).with_name("_version.py").read_bytes()
    return str(import_module(package).__version__).encode()


def size() -> int:
    """Bytes that this version's kernels take."""
    with contextlib.suppress(OSError):
        return sum(path.stat().st_size for path in folder().rglob("*") if path.is_file())
    return 0
