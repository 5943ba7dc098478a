"""The table from op to how it goes back."""

from __future__ import annotations

from netdsl.cpu.backward import plans
from netdsl.cpu.backward.conv_plan import conv_back, conv_needs
from netdsl.cpu.backward.task import Back
from netdsl.ops import (
    AdaptiveAveragePool,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dropout,
    Flatten,
    GlobalAverage,
    GlobalMax,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool,
    Multiply,
    Op,
    Pad,
    PRelu,
    Shuffle,
    Softmax,
    Upsample,
)

CONV = Back(conv_back, conv_needs)
BENT = Back(plans.bent_back, over=True)
CURVED = Back(plans.curved_back, over=True)
NORM = Back(plans.norm_back, plans.norm_needs, over=True, forward=plans.norm_forward)
WINDOW = Back(plans.window_back)
SOFTMAX = Back(plans.softmax_back, over=True)

BACKS: dict[type[Op], Back] = {
    Conv: CONV,
    ConvTranspose: CONV,
    Linear: Back(plans.linear_back, plans.linear_needs, forward=plans.linear_forward),
    **dict.fromkeys(plans.BENDS, BENT),
    **dict.fromkeys(plans.CURVES, CURVED),
    PRelu: Back(plans.prelu_back, over=True),
    Softmax: SOFTMAX,
    LogSoftmax: SOFTMAX,
    BatchNorm: NORM,
    LayerNorm: NORM,
    InstanceNorm: NORM,
    GroupNorm: NORM,
    LocalResponseNorm: Back(plans.response_back, plans.response_needs),
    MaxPool: WINDOW,
    AveragePool: WINDOW,
    AdaptiveAveragePool: WINDOW,
    GlobalAverage: WINDOW,
    GlobalMax: WINDOW,
    Upsample: WINDOW,
    Pad: WINDOW,
    Flatten: Back(plans.flatten_back),
    Shuffle: Back(plans.shuffle_back),
    Concat: Back(plans.concat_back),
    Add: Back(plans.add_back, over=True),
    Multiply: Back(plans.multiply_back),
    Dropout: Back(plans.dropout_back, over=True, forward=plans.dropout_forward),
}
"""For each op its way back. Sums and products of more than two tensors are taken two at a time."""
