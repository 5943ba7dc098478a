"""The table from op to how it goes back."""

from __future__ import annotations

from netdsl.cuda.backward import activation, arrange, conv, dense, join, norm, response, window
from netdsl.cuda.backward.task import Back
from netdsl.cuda.conv import conv_packs
from netdsl.cuda.packing import PASSES
from netdsl.cuda.transposed import transposed_packs
from netdsl.ops import (
    Activation,
    AdaptiveAveragePool,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dropout,
    Elu,
    Flatten,
    Gelu,
    GlobalAverage,
    GlobalMax,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    InstanceNorm,
    LayerNorm,
    Leaky,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool,
    Multiply,
    Norm,
    Op,
    Pad,
    PRelu,
    Relu,
    Shuffle,
    Silu,
    Softmax,
    Upsample,
)

FROM_OUTPUT = Back(activation.activation_back, over=True, reads_input=False)
FROM_INPUT = Back(activation.activation_back, over=True, reads_output=False)
SOFTMAX = Back(activation.softmax_back, over=True, reads_input=False)
NORM = Back(
    norm.norm_back, norm.norm_kept, over=True, forward=norm.norm_forward, reads_output=False
)
LINEAR = Back(window.linear_back, reads_input=False, reads_output=False)

CONV = Back(
    conv.conv_back,
    reads_output=False,
    reads_packed=conv.weights_from_packed,
    relu_packed=conv.relu_from_packed,
)

BACKS: dict[type[Op], Back] = {
    Conv: CONV._replace(packs=conv_packs),
    ConvTranspose: CONV._replace(packs=transposed_packs),
    Linear: Back(
        dense.dense_back,
        forward=dense.dense_forward,
        reads_output=False,
        packs=dense.dense_packs,
        reads_packed=dense.weights_from_packed,
    ),
    **dict.fromkeys(activation.FROM_OUTPUT, FROM_OUTPUT),
    **dict.fromkeys((Leaky, HardSigmoid, HardSwish, Elu, Gelu, Silu), FROM_INPUT),
    PRelu: Back(
        activation.slopes_back, over=True, forward=activation.slopes_forward, reads_output=False
    ),
    Softmax: SOFTMAX,
    LogSoftmax: SOFTMAX,
    BatchNorm: NORM,
    LayerNorm: NORM,
    InstanceNorm: NORM,
    GroupNorm: NORM,
    LocalResponseNorm: Back(response.response_call, reads_output=False),
    MaxPool: Back(
        window.max_pool_back,
        window.max_kept,
        forward=window.max_forward,
        reads_input=False,
        reads_output=False,
    ),
    GlobalMax: Back(window.global_max_back),
    AveragePool: LINEAR,
    AdaptiveAveragePool: LINEAR,
    GlobalAverage: LINEAR,
    Upsample: LINEAR,
    Pad: LINEAR,
    Flatten: Back(arrange.flatten_back, reads_input=False, reads_output=False),
    Shuffle: Back(arrange.shuffle_back, reads_input=False, reads_output=False),
    Concat: Back(
        arrange.concat_back, reads_input=False, reads_output=False, packs=lambda task: PASSES
    ),
    Add: Back(join.sum_back, over=True, reads_input=False, reads_output=False),
    Multiply: Back(join.product_back, reads_output=False),
    Dropout: Back(
        arrange.dropout_back,
        over=True,
        forward=arrange.dropout_forward,
        reads_input=False,
        reads_output=False,
    ),
}
"""For each op its way back. Products of more than two tensors are taken two at a time, a fully
connected layer reads a vector, and a relu may be fused into a layer before it, see `takes`."""


def takes(base: Op, residual: bool, act: Activation | None) -> bool:
    """Whether in training the kernels of this op also apply this activation: a relu."""
    layer = isinstance(base, Conv | ConvTranspose | Norm)
    return layer and not residual and isinstance(act, Relu)
