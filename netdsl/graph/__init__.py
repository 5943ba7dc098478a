"""The graph of a network, and passes over it."""

from netdsl.graph.graph import Aux, Graph, Labels, Node

__all__ = ["Aux", "Graph", "Labels", "Node"]
