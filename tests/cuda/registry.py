"""Every CUDA kernel there is: found by being made, and by standing in the sources.

A kernel that is made in a loop, kept in a table of tables or bound to no name at all is found as
well as one at the top of its module, so that a new one cannot be left out of a check.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

PACKAGE = "netdsl.cuda"


def kernels() -> list[Any]:
    """Every kernel that the package makes when its modules are imported. To be asked before any of
    them is: only then can it be seen who makes what."""
    with _watched() as made:
        package = import_module(PACKAGE)
        for info in walk_packages(package.__path__, PACKAGE + "."):
            import_module(info.name)
    return [one for one in made if is_kernel(one)]


def is_kernel(made: Any) -> bool:
    """Whether it is one of the package's that is launched, not called by others."""
    own = made.py_func.__module__.startswith(PACKAGE)
    return own and not made.targetoptions.get("device")


@contextmanager
def _watched() -> Iterator[list[Any]]:
    """All that Numba's decorator makes within the block."""
    from numba.cuda.dispatcher import CUDADispatcher

    made: list[Any] = []
    begin = CUDADispatcher.__init__

    def noted(self: Any, *args: Any, **settings: Any) -> None:
        begin(self, *args, **settings)
        made.append(self)

    CUDADispatcher.__init__ = noted
    try:
        yield made
    finally:
        CUDADispatcher.__init__ = begin


def home(kernel: Any) -> str:
    """Where a kernel stands: module and name."""
    return f"{kernel.py_func.__module__}:{kernel.py_func.__name__}"


def written(folder: Path) -> set[str]:
    """Where the sources of the package in this folder have a kernel."""
    found = set()
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder).with_suffix("").parts
        module = ".".join([PACKAGE, *(part for part in inside if part != "__init__")])
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and any(map(_launched, node.decorator_list)):
                found.add(f"{module}:{node.name}")
    return found


def _launched(decorator: ast.expr) -> bool:
    """Whether it is `cuda.jit` of a kernel."""
    call = decorator.func if isinstance(decorator, ast.Call) else decorator
    if ast.unparse(call) != "cuda.jit":
        return False
    settings = decorator.keywords if isinstance(decorator, ast.Call) else []
    return not any(s.arg == "device" and ast.unparse(s.value) != "False" for s in settings)


def words(kernel: Any) -> str:
    """A kernel's name with the whole numbers it was made with, where there are any."""
    held = [cell.cell_contents for cell in kernel.py_func.__closure__ or ()]
    numbers = [f"{value:d}" for value in held if isinstance(value, int)]
    return " ".join([kernel.py_func.__name__, ",".join(numbers)] if numbers else [home(kernel)])
