"""The table from op to how it goes back."""

from __future__ import annotations

from netdsl.cuda.backward.task import Back
from netdsl.ops import Op

BACKS: dict[type[Op], Back] = {}
"""For each op its way back. Products of more than two tensors are taken two at a time, a fully
connected layer reads a vector, and a relu may be fused into a convolution."""
