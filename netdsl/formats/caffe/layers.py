"""What each type of Caffe layer means: from its settings and the shape that comes in to an op."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netdsl.formats.caffe.message import Message
from netdsl.formats.imported import Unsupported
from netdsl.ops import (
    Activation,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dropout,
    Elu,
    Flatten,
    GlobalAverage,
    GlobalMax,
    Leaky,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Multiply,
    Op,
    PRelu,
    Relu,
    Shape,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
    Window,
)

Take = Callable[[Message, tuple[Shape, ...]], Op | None]
"""Makes the op of a layer; None for one that changes nothing."""


def real(value: float) -> float:
    """A setting of single precision as a person wrote it: 0.75, or 1e-4 for 0.0000999999974."""
    return float(str(np.float32(value)))


def convolution(layer: Message, inputs: tuple[Shape, ...]) -> Op:
    settings = layer.message("convolution_param")
    window = _window(settings, len(inputs[0]) - 1)
    _axis(settings, "axis", 1)
    filters, groups = settings.integer("num_output", 0), settings.integer("group", 1)
    bias = settings.flag("bias_term", True)
    _positive(num_output=filters, group=groups)
    if filters % groups or inputs[0][0] % groups:
        raise Unsupported(f"{inputs[0][0]} channels and {filters} filters in {groups} groups")
    depthwise = groups > 1 and groups == inputs[0][0]
    return Conv(filters, window, groups, bias, depthwise)


def deconvolution(layer: Message, inputs: tuple[Shape, ...]) -> Op:
    op = convolution(layer, inputs)
    assert isinstance(op, Conv)
    return ConvTranspose(op.filters, op.window, (0,) * len(op.window.kernel), op.groups, op.bias)


def _window(settings: Message, rank: int) -> Window:
    if rank < 1:
        raise Unsupported("it slides over a vector, which has no axes")
    kernel = _axes(settings, "kernel_size", "kernel", rank, None)
    stride = _axes(settings, "stride", "stride", rank, 1)
    dilation = _axes(settings, "dilation", "dilation", rank, 1)
    pad = _axes(settings, "pad", "pad", rank, 0)
    _positive(kernel=min(kernel), stride=min(stride), dilation=min(dilation), pad=min(pad) + 1)
    return Window(kernel, stride, tuple((p, p) for p in pad), dilation)


def _axes(
    settings: Message, name: str, stem: str, rank: int, default: int | None
) -> tuple[int, ...]:
    """A size per axis: `pad: 1`, one for each axis, or pad_h and pad_w."""
    if f"{stem}_h" in settings or f"{stem}_w" in settings:
        if rank != 2:
            raise Unsupported(f"{stem}_h and {stem}_w on data of {rank} axes")
        return settings.integer(f"{stem}_h", 0), settings.integer(f"{stem}_w", 0)
    given = tuple(settings.integers(name))
    if not given and default is None:
        raise Unsupported(f"it has no {name}")
    given = given or (default or 0,)
    if len(given) not in (1, rank):
        raise Unsupported(f"{name} has {len(given)} sizes, the data {rank} axes")
    return given * rank if len(given) == 1 else given


def _positive(**values: int) -> None:
    for name, value in values.items():
        if not 1 <= value < 1 << 31:
            raise Unsupported(f"{name} is {value}")


def _axis(settings: Message, name: str, wanted: int, default: int | None = None) -> None:
    found = settings.integer(name, wanted if default is None else default)
    if found != wanted:
        raise Unsupported(f"it works along axis {found}")


def pooling(layer: Message, inputs: tuple[Shape, ...]) -> Op:
    settings = layer.message("pooling_param")
    method = settings.text("pool", "MAX")
    if method not in ("MAX", "AVE"):
        raise Unsupported(f"pooling of kind {method}")
    if settings.flag("global_pooling", False):
        return GlobalMax() if method == "MAX" else GlobalAverage()
    plain = _window(settings, len(inputs[0]) - 1)
    ceil = settings.text("round_mode", "CEIL") == "CEIL"
    for size, lo in zip(plain.kernel, plain.padding, strict=True):
        if max(lo) >= size:
            raise Unsupported(f"padding {max(lo)} is as wide as the kernel {size}")
    window = rounded(plain, inputs[0][1:], ceil)
    if method == "MAX":
        return MaxPool(window)
    return AveragePool(window, count_pad=any(p != (0, 0) for p in window.padding))


def rounded(plain: Window, spatial: Shape, ceil: bool) -> Window:
    """The window, spelled with `ceil` only where that makes a difference."""
    up = Window(plain.kernel, plain.stride, plain.padding, plain.dilation, ceil)
    if not ceil or plain.output(spatial) == up.output(spatial):
        _inside(plain, spatial, ceil)
        return plain
    _inside(up, spatial, ceil)
    return up


def _inside(window: Window, spatial: Shape, ceil: bool) -> None:
    """Caffe drops a last window beyond the data only where there is padding."""
    for i, found in enumerate(window.output(spatial)):
        room = spatial[i] + sum(window.padding[i]) - window.extent[i]
        steps = -(-room // window.stride[i]) if ceil else room // window.stride[i]
        if found != steps + 1 and not any(map(any, window.padding)):
            raise Unsupported("its last window lies beyond the data")


def inner_product(layer: Message, inputs: tuple[Shape, ...]) -> Op:
    settings = layer.message("inner_product_param")
    _axis(settings, "axis", 1)
    filters = settings.integer("num_output", 0)
    _positive(num_output=filters)
    return Linear(filters, settings.flag("bias_term", True))


def local_response(layer: Message, inputs: tuple[Shape, ...]) -> Op:
    settings = layer.message("lrn_param")
    if settings.text("norm_region", "ACROSS_CHANNELS") != "ACROSS_CHANNELS":
        raise Unsupported("the language's lrn goes across channels, not within one")
    size = settings.integer("local_size", 5)
    _positive(local_size=size)
    alpha, beta, k = (
        settings.number(n, d) for n, d in (("alpha", 1.0), ("beta", 0.75), ("k", 1.0))
    )
    return LocalResponseNorm(size, real(alpha), real(beta), real(k))


def relu(layer: Message, inputs: tuple[Shape, ...]) -> Op:
    slope = layer.message("relu_param").number("negative_slope", 0.0)
    return Leaky(real(slope)) if slope else Relu()


def elu(layer: Message, inputs: tuple[Shape, ...]) -> Op:
    return Elu(real(layer.message("elu_param").number("alpha", 1.0)))


def dropout(layer: Message, inputs: tuple[Shape, ...]) -> Op:
    rate = real(layer.message("dropout_param").number("dropout_ratio", 0.5))
    if not 0 <= rate < 1:
        raise Unsupported(f"dropout_ratio is {rate:g}")
    return Dropout(rate)


def softmax(layer: Message, inputs: tuple[Shape, ...]) -> Op:
    _axis(layer.message("softmax_param"), "axis", 1)
    return Softmax()


def concat(layer: Message, inputs: tuple[Shape, ...]) -> Op | None:
    settings = layer.message("concat_param")
    _axis(settings, "concat_dim" if "concat_dim" in settings else "axis", 1)
    return Concat() if len(inputs) > 1 else None


def eltwise(layer: Message, inputs: tuple[Shape, ...]) -> Op | None:
    settings = layer.message("eltwise_param")
    operation = settings.text("operation", "SUM")
    if any(c != 1 for c in settings.numbers("coeff")):
        raise Unsupported("a sum with coefficients")
    if operation not in ("SUM", "PROD"):
        raise Unsupported(f"the operation {operation}")
    if len(inputs) < 2:
        return None
    return Add() if operation == "SUM" else Multiply()


def power(layer: Message, inputs: tuple[Shape, ...]) -> Op | None:
    settings = layer.message("power_param")
    found = tuple(settings.number(n, d) for n, d in (("power", 1), ("scale", 1), ("shift", 0)))
    if found != (1, 1, 0):
        raise Unsupported("(shift + scale x) to a power")
    return None


def flatten(layer: Message, inputs: tuple[Shape, ...]) -> Op | None:
    settings = layer.message("flatten_param")
    _axis(settings, "axis", 1)
    if settings.integer("end_axis", -1) not in (-1, len(inputs[0])):
        raise Unsupported("it flattens only some axes")
    return Flatten() if len(inputs[0]) > 1 else None


def reshape(layer: Message, inputs: tuple[Shape, ...]) -> Op | None:
    dims = layer.message("reshape_param").message("shape").integers("dim")
    if len(dims) == 2 and dims[0] == 0 and dims[1] in (-1, int(np.prod(inputs[0]))):
        return Flatten() if len(inputs[0]) > 1 else None
    raise Unsupported(f"the shape {dims}")


def batch_norm(layer: Message, inputs: tuple[Shape, ...]) -> Op:
    return BatchNorm(real(layer.message("batch_norm_param").number("eps", 1e-5)), affine=False)


def plain(op: type[Activation]) -> Take:
    """A layer without settings."""
    return lambda layer, inputs: op()


def nothing(layer: Message, inputs: tuple[Shape, ...]) -> None:
    return None


TABLE: dict[str, Take] = {
    "Convolution": convolution,
    "Deconvolution": deconvolution,
    "Pooling": pooling,
    "InnerProduct": inner_product,
    "LRN": local_response,
    "ReLU": relu,
    "PReLU": plain(PRelu),
    "ELU": elu,
    "Sigmoid": plain(Sigmoid),
    "TanH": plain(Tanh),
    "Swish": plain(Silu),
    "Dropout": dropout,
    "Softmax": softmax,
    "Concat": concat,
    "Eltwise": eltwise,
    "Power": power,
    "Flatten": flatten,
    "Reshape": reshape,
    "BatchNorm": batch_norm,
    "Split": nothing,
}

DATA = frozenset(
    {"Data", "ImageData", "HDF5Data", "MemoryData", "DummyData", "WindowData", "Input"}
)
JUDGES = frozenset({"Accuracy", "Silence", "HDF5Output", "ArgMax"})
"""Layers that read a result and are no part of the net."""
