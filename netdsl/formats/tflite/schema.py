"""The tables of a .tflite file that we write, and its operators (tensorflow/lite's schema.fbs)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from netdsl.formats.tflite.flatbuffer import Field, Fields

IDENTIFIER = b"TFL3"
VERSION = 3
"""Of the schema; that is what the identifier says too."""


def fields(**kinds: tuple[int, str]) -> Fields:
    return {name: Field(*field) for name, field in kinds.items()}


MODEL = fields(
    version=(0, "I"),
    operator_codes=(1, "tables"),
    subgraphs=(2, "tables"),
    description=(3, "text"),
    buffers=(4, "tables"),
    signature_defs=(7, "tables"),
)
OPERATOR_CODE = fields(deprecated_builtin_code=(0, "b"), version=(2, "i"), builtin_code=(3, "i"))
SUBGRAPH = fields(
    tensors=(0, "tables"),
    inputs=(1, "i*"),
    outputs=(2, "i*"),
    operators=(3, "tables"),
    name=(4, "text"),
)
TENSOR = fields(shape=(0, "i*"), type=(1, "b"), buffer=(2, "I"), name=(3, "text"))
BUFFER = fields(data=(0, "blob"), offset=(1, "place"), size=(2, "Q"))
OPERATOR = fields(
    opcode_index=(0, "I"),
    inputs=(1, "i*"),
    outputs=(2, "i*"),
    builtin_options_type=(3, "B"),
    builtin_options=(4, "table"),
)
SIGNATURE = fields(
    inputs=(0, "tables"), outputs=(1, "tables"), signature_key=(2, "text"), subgraph_index=(4, "I")
)
TENSOR_MAP = fields(name=(0, "text"), tensor_index=(1, "I"))

TYPES = {np.dtype(np.float32): 0, np.dtype(np.int32): 2}
"""What a tensor holds."""
SAME, VALID = 0, 1
"""Paddings: an output of input / stride rounded up, and none at all."""
NO_ACTIVATION, RELU_ACTIVATION, RELU6_ACTIVATION = 0, 1, 3


class Kind(NamedTuple):
    """An operator: its code, its options' number in the union of all options, and their fields."""

    code: int
    union: int = 0
    options: Fields = {}  # noqa: RUF012 - never written to


ACTIVATED = fields(activation=(0, "b"))
POOL = fields(
    padding=(0, "b"),
    stride_w=(1, "i"),
    stride_h=(2, "i"),
    filter_width=(3, "i"),
    filter_height=(4, "i"),
)
REDUCER = fields(keep_dims=(0, "?"))

ADD = Kind(0, 11, ACTIVATED)
AVERAGE_POOL_2D = Kind(1, 5, POOL)
CONCATENATION = Kind(2, 10, fields(axis=(0, "i")))
CONV_2D = Kind(
    3,
    1,
    fields(
        padding=(0, "b"),
        stride_w=(1, "i"),
        stride_h=(2, "i"),
        activation=(3, "b"),
        dilation_w=(4, "i"),
        dilation_h=(5, "i"),
    ),
)
DEPTHWISE_CONV_2D = Kind(
    4,
    2,
    fields(
        padding=(0, "b"),
        stride_w=(1, "i"),
        stride_h=(2, "i"),
        depth_multiplier=(3, "i"),
        activation=(4, "b"),
        dilation_w=(5, "i"),
        dilation_h=(6, "i"),
    ),
)
FULLY_CONNECTED = Kind(9, 8, ACTIVATED)
LOCAL_RESPONSE_NORMALIZATION = Kind(
    13, 13, fields(radius=(0, "i"), bias=(1, "f"), alpha=(2, "f"), beta=(3, "f"))
)
LOGISTIC = Kind(14)
MAX_POOL_2D = Kind(17, 5, POOL)
MUL = Kind(18, 21, ACTIVATED)
RELU = Kind(19)
RELU6 = Kind(21)
RESHAPE = Kind(22, 17)
RESIZE_BILINEAR = Kind(23, 15, fields(half_pixel_centers=(3, "?")))
SOFTMAX = Kind(25, 9, fields(beta=(0, "f")))
TANH = Kind(28)
PAD = Kind(34, 22)
GATHER = Kind(36, 23, fields(axis=(0, "i")))
TRANSPOSE = Kind(39, 26)
MEAN = Kind(40, 27, REDUCER)
SUB = Kind(41, 28, ACTIVATED)
STRIDED_SLICE = Kind(45, 32, fields(begin_mask=(0, "i"), end_mask=(1, "i")))
SPLIT = Kind(49, 35, fields(num_splits=(0, "i")))
LOG_SOFTMAX = Kind(50, 36)
PRELU = Kind(54)
MINIMUM = Kind(57, 39)
PADV2 = Kind(60, 43)
TRANSPOSE_CONV = Kind(67, 49, fields(padding=(0, "b"), stride_w=(1, "i"), stride_h=(2, "i")))
RSQRT = Kind(76)
RESIZE_NEAREST_NEIGHBOR = Kind(97, 74)
LEAKY_RELU = Kind(98, 75, fields(alpha=(0, "f")))
SQUARED_DIFFERENCE = Kind(99, 76)
ELU = Kind(111)
HARD_SWISH = Kind(117, 91)
GELU = Kind(150, 116, fields(approximate=(0, "?")))
