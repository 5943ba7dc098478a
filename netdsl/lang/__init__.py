"""The language of .net files: text in, graph or faults out."""

from netdsl.lang.format import format_text
from netdsl.lang.parse import parse
from netdsl.lang.read import Result, load, read
from netdsl.lang.show import render, show, to_dict
from netdsl.limits import DEFAULT, LIFTED, Limits

__all__ = [
    "DEFAULT",
    "LIFTED",
    "Limits",
    "Result",
    "format_text",
    "load",
    "parse",
    "read",
    "render",
    "show",
    "to_dict",
]
