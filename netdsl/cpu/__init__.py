"""The CPU engine: a graph planned into one arena and run by compiled kernels."""

from netdsl.cpu.about import info
from netdsl.cpu.plan import Plan, compile  # noqa: A004 - called as cpu.compile
from netdsl.graph.timing import Timing

__all__ = ["Plan", "Timing", "compile", "info"]
