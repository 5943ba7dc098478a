"""The messages of caffe.proto that networks are made of: field numbers, names, kinds.

Facts of the format, as BVLC's Caffe 1.0 has it. What is not listed (solvers, fillers, training's
settings) is passed over when a file is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Scalar = Literal["int", "bool", "float", "double", "text", "floats", "doubles"]
"""The kinds of plain fields; floats and doubles are packed runs of weights."""


@dataclass(frozen=True, eq=False)
class Enum:
    """Names of numbers."""

    names: Mapping[int, str]


@dataclass(frozen=True, eq=False)
class Schema:
    """A message: for each field number its name and kind."""

    fields: Mapping[int, tuple[str, Kind]] = field(default_factory=dict)


Kind = Scalar | Enum | Schema


def enum(*names: str) -> Enum:
    return Enum(dict(enumerate(names)))


PHASE = enum("TRAIN", "TEST")
BLOB_SHAPE = Schema({1: ("dim", "int")})
BLOB = Schema(
    {
        1: ("num", "int"),
        2: ("channels", "int"),
        3: ("height", "int"),
        4: ("width", "int"),
        5: ("data", "floats"),
        7: ("shape", BLOB_SHAPE),
        8: ("double_data", "doubles"),
    }
)
RULE = Schema({1: ("phase", PHASE), 4: ("stage", "text"), 5: ("not_stage", "text")})
CONVOLUTION = Schema(
    {
        1: ("num_output", "int"),
        2: ("bias_term", "bool"),
        3: ("pad", "int"),
        4: ("kernel_size", "int"),
        5: ("group", "int"),
        6: ("stride", "int"),
        9: ("pad_h", "int"),
        10: ("pad_w", "int"),
        11: ("kernel_h", "int"),
        12: ("kernel_w", "int"),
        13: ("stride_h", "int"),
        14: ("stride_w", "int"),
        16: ("axis", "int"),
        18: ("dilation", "int"),
    }
)
POOLING = Schema(
    {
        1: ("pool", enum("MAX", "AVE", "STOCHASTIC")),
        2: ("kernel_size", "int"),
        3: ("stride", "int"),
        4: ("pad", "int"),
        5: ("kernel_h", "int"),
        6: ("kernel_w", "int"),
        7: ("stride_h", "int"),
        8: ("stride_w", "int"),
        9: ("pad_h", "int"),
        10: ("pad_w", "int"),
        12: ("global_pooling", "bool"),
        13: ("round_mode", enum("CEIL", "FLOOR")),
    }
)
LRN = Schema(
    {
        1: ("local_size", "int"),
        2: ("alpha", "float"),
        3: ("beta", "float"),
        4: ("norm_region", enum("ACROSS_CHANNELS", "WITHIN_CHANNEL")),
        5: ("k", "float"),
    }
)
INNER_PRODUCT = Schema(
    {
        1: ("num_output", "int"),
        2: ("bias_term", "bool"),
        5: ("axis", "int"),
        6: ("transpose", "bool"),
    }
)
CONCAT = Schema({1: ("concat_dim", "int"), 2: ("axis", "int")})
ELTWISE = Schema({1: ("operation", enum("PROD", "SUM", "MAX")), 2: ("coeff", "float")})
RELU = Schema({1: ("negative_slope", "float")})
PRELU = Schema({2: ("channel_shared", "bool")})
ELU = Schema({1: ("alpha", "float")})
DROPOUT = Schema({1: ("dropout_ratio", "float")})
BATCH_NORM = Schema({1: ("use_global_stats", "bool"), 3: ("eps", "float")})
SCALE = Schema({1: ("axis", "int"), 2: ("num_axes", "int"), 4: ("bias_term", "bool")})
SOFTMAX = Schema({2: ("axis", "int")})
POWER = Schema({1: ("power", "float"), 2: ("scale", "float"), 3: ("shift", "float")})
FLATTEN = Schema({1: ("axis", "int"), 2: ("end_axis", "int")})
RESHAPE = Schema({1: ("shape", BLOB_SHAPE), 2: ("axis", "int"), 3: ("num_axes", "int")})
INPUT = Schema({1: ("shape", BLOB_SHAPE)})
TRANSFORM = Schema(
    {
        1: ("scale", "float"),
        3: ("crop_size", "int"),
        4: ("mean_file", "text"),
        5: ("mean_value", "float"),
        7: ("force_gray", "bool"),
    }
)
MEMORY_DATA = Schema(
    {1: ("batch_size", "int"), 2: ("channels", "int"), 3: ("height", "int"), 4: ("width", "int")}
)

LAYER = Schema(
    {
        1: ("name", "text"),
        2: ("type", "text"),
        3: ("bottom", "text"),
        4: ("top", "text"),
        5: ("loss_weight", "float"),
        7: ("blobs", BLOB),
        8: ("include", RULE),
        9: ("exclude", RULE),
        100: ("transform_param", TRANSFORM),
        104: ("concat_param", CONCAT),
        106: ("convolution_param", CONVOLUTION),
        108: ("dropout_param", DROPOUT),
        110: ("eltwise_param", ELTWISE),
        117: ("inner_product_param", INNER_PRODUCT),
        118: ("lrn_param", LRN),
        119: ("memory_data_param", MEMORY_DATA),
        121: ("pooling_param", POOLING),
        122: ("power_param", POWER),
        123: ("relu_param", RELU),
        125: ("softmax_param", SOFTMAX),
        131: ("prelu_param", PRELU),
        133: ("reshape_param", RESHAPE),
        135: ("flatten_param", FLATTEN),
        139: ("batch_norm_param", BATCH_NORM),
        140: ("elu_param", ELU),
        142: ("scale_param", SCALE),
        143: ("input_param", INPUT),
    }
)

OLD_TYPES = {
    "ABSVAL": (35, "AbsVal"),
    "ACCURACY": (1, "Accuracy"),
    "ARGMAX": (30, "ArgMax"),
    "BNLL": (2, "BNLL"),
    "CONCAT": (3, "Concat"),
    "CONTRASTIVE_LOSS": (37, "ContrastiveLoss"),
    "CONVOLUTION": (4, "Convolution"),
    "DATA": (5, "Data"),
    "DECONVOLUTION": (39, "Deconvolution"),
    "DROPOUT": (6, "Dropout"),
    "DUMMY_DATA": (32, "DummyData"),
    "EUCLIDEAN_LOSS": (7, "EuclideanLoss"),
    "ELTWISE": (25, "Eltwise"),
    "EXP": (38, "Exp"),
    "FLATTEN": (8, "Flatten"),
    "HDF5_DATA": (9, "HDF5Data"),
    "HDF5_OUTPUT": (10, "HDF5Output"),
    "HINGE_LOSS": (28, "HingeLoss"),
    "IM2COL": (11, "Im2col"),
    "IMAGE_DATA": (12, "ImageData"),
    "INFOGAIN_LOSS": (13, "InfogainLoss"),
    "INNER_PRODUCT": (14, "InnerProduct"),
    "LRN": (15, "LRN"),
    "MEMORY_DATA": (29, "MemoryData"),
    "MULTINOMIAL_LOGISTIC_LOSS": (16, "MultinomialLogisticLoss"),
    "MVN": (34, "MVN"),
    "POOLING": (17, "Pooling"),
    "POWER": (26, "Power"),
    "RELU": (18, "ReLU"),
    "SIGMOID": (19, "Sigmoid"),
    "SIGMOID_CROSS_ENTROPY_LOSS": (27, "SigmoidCrossEntropyLoss"),
    "SILENCE": (36, "Silence"),
    "SLICE": (33, "Slice"),
    "SOFTMAX": (20, "Softmax"),
    "SOFTMAX_LOSS": (21, "SoftmaxWithLoss"),
    "SPLIT": (22, "Split"),
    "TANH": (23, "TanH"),
    "THRESHOLD": (31, "Threshold"),
    "WINDOW_DATA": (24, "WindowData"),
}
"""The types of layers of the old syntax (`layers { type: RELU }`): their number, and what the new
syntax calls them."""

OLD_LAYER = Schema(
    {
        2: ("bottom", "text"),
        3: ("top", "text"),
        4: ("name", "text"),
        5: ("type", Enum({number: name for name, (number, _) in OLD_TYPES.items()})),
        6: ("blobs", BLOB),
        9: ("concat_param", CONCAT),
        10: ("convolution_param", CONVOLUTION),
        12: ("dropout_param", DROPOUT),
        17: ("inner_product_param", INNER_PRODUCT),
        18: ("lrn_param", LRN),
        19: ("pooling_param", POOLING),
        21: ("power_param", POWER),
        22: ("memory_data_param", MEMORY_DATA),
        24: ("eltwise_param", ELTWISE),
        30: ("relu_param", RELU),
        32: ("include", RULE),
        33: ("exclude", RULE),
        35: ("loss_weight", "float"),
        36: ("transform_param", TRANSFORM),
        39: ("softmax_param", SOFTMAX),
    }
)

NET = Schema(
    {
        1: ("name", "text"),
        2: ("layers", OLD_LAYER),
        3: ("input", "text"),
        4: ("input_dim", "int"),
        8: ("input_shape", BLOB_SHAPE),
        100: ("layer", LAYER),
    }
)
