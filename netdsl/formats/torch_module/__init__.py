"""Graphs written as Python source for PyTorch."""

from netdsl.formats.torch_module.write import torch_source, write_torch

__all__ = ["torch_source", "write_torch"]
