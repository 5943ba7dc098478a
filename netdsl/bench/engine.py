"""What an engine is to a comparison: a name, what must be installed, and a net made ready."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import metadata
from typing import Any, ClassVar

from numpy.typing import NDArray

from netdsl.bench.case import Case

Outputs = list[NDArray[Any]]
Run = Callable[[], Outputs]
"""Computes a case's outputs, in the graph's order, from arrays to arrays."""


class Unfit(Exception):  # noqa: N818 - the net does not fit the engine; nobody erred
    """An engine cannot run this net; the message says why."""


class Engine(ABC):
    """One way to run a net."""

    name: ClassVar[str]
    package: ClassVar[str]
    """What is installed and imported."""
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    """Those that it computes in here."""

    @classmethod
    def installed(cls) -> bool:
        return importlib.util.find_spec(cls.package) is not None

    @classmethod
    def version(cls) -> str:
        return metadata.version(cls.package)

    @classmethod
    @abstractmethod
    def load(cls, case: Case) -> Run:
        """The net made ready. Raises Unfit where the engine cannot run it."""

    @classmethod
    def ready(cls, case: Case) -> Run:
        """The same, once it is known that the engine computes in the case's precision."""
        if case.precision not in cls.precisions:
            raise Unfit(f"it is not run in {case.precision} here")
        return cls.load(case)
