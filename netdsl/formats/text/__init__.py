"""Graphs written as .net text."""

from netdsl.formats.text.write import write_net

__all__ = ["write_net"]
