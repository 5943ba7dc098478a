"""Darknet's files in and out: .cfg, the net, and .weights, numbers in the order of its layers."""

from netdsl.formats.darknet.read import read_darknet
from netdsl.formats.darknet.weights import read_weights
from netdsl.formats.darknet.write import write_darknet

__all__ = ["read_darknet", "read_weights", "write_darknet"]
