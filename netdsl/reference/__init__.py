"""A graph computed plainly, in float64: what every faster engine is measured against."""

from netdsl.graph.weights import initialise
from netdsl.reference.interpret import interpret

__all__ = ["initialise", "interpret"]
