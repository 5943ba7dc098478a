"""The table from op to how it goes back."""

from __future__ import annotations

from netdsl.cuda.backward.conv import conv_back, transposed_back
from netdsl.cuda.backward.dense import dense_back, dense_forward
from netdsl.cuda.backward.task import Back
from netdsl.ops import Conv, ConvTranspose, Linear, Op

BACKS: dict[type[Op], Back] = {
    Conv: Back(conv_back, reads_output=False),
    ConvTranspose: Back(transposed_back, reads_output=False),
    Linear: Back(dense_back, forward=dense_forward, reads_output=False),
}
"""For each op its way back. Products of more than two tensors are taken two at a time, a fully
connected layer reads a vector, and a relu may be fused into a convolution."""
