"""The CPU engine: a graph planned into one arena and run by compiled kernels."""

from netdsl.cpu.about import info
from netdsl.cpu.plan import Plan, Timing, compile  # noqa: A004 - called as cpu.compile

__all__ = ["Plan", "Timing", "compile", "info"]
