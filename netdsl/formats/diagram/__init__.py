"""Graphs as the text of diagrams: Graphviz's dot, and Mermaid."""

from netdsl.formats.diagram.dot import dot_text
from netdsl.formats.diagram.mermaid import mermaid_text

__all__ = ["dot_text", "mermaid_text"]
