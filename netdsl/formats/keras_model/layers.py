"""For each op the layers of Keras that compute it, in a row, channels last."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from netdsl.formats.imported import Unsupported
from netdsl.formats.source.parts import Module, Setting, Symbol, Value
from netdsl.ops import (
    AdaptiveAveragePool,
    AveragePool,
    BatchNorm,
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
    Op,
    Pad,
    PRelu,
    Relu,
    Relu6,
    Shape,
    Shuffle,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
    Upsample,
    Window,
)
from netdsl.ops.window import same_padding

Made = tuple[Module, ...]
Pairs = tuple[tuple[int, int], ...]


def modules(op: Op, shape: Shape, *, explicit: bool = False) -> Made:
    """The layers of an op for an input of this shape (C, *spatial), without names.

    explicit: a convolution's padding is a layer, even where the word `same` would do. Raises
    Unsupported for what Keras cannot say.
    """
    if explicit and isinstance(op, Conv):
        return _conv(op, shape, explicit=True)
    return LAYERS[type(op)](op, shape)


def pads(op: Op, shape: Shape) -> bool:
    """Whether a convolution's padding can only be a layer of its own."""
    if not isinstance(op, Conv) or not any(map(any, op.window.padding)):
        return False
    return op.window.padding != same_padding(op.window, shape[1:])


def _pos(name: str, value: Value, *, size: bool = False) -> Setting:
    return Setting(name, value, size=size)


def _key(name: str, value: Value, default: Value | None = None) -> Setting:
    return Setting(name, value, default, named=True)


def _even(sizes: tuple[int, ...]) -> Value:
    """One number for equal ones."""
    return sizes[0] if len(set(sizes)) == 1 else sizes


def _rank(shape: Shape) -> int:
    return len(shape) - 1


def _layer(name: str, *settings: Setting) -> Module:
    return Module(f"layers.{name}", settings)


# Padding ------------------------------------------------------------------------------------------


def _all(pairs: Pairs) -> Symbol:
    """Amounts for every axis, the batch's and the channels' included."""
    return Symbol(repr(((0, 0), *pairs, (0, 0))))


def _pad(pairs: Pairs, value: float = 0.0, mode: str = "constant") -> Made:
    """Cells around the spatial axes, and then those below 0 cropped."""
    more = tuple((max(lo, 0), max(hi, 0)) for lo, hi in pairs)
    less = tuple((max(-lo, 0), max(-hi, 0)) for lo, hi in pairs)
    found: Made = ()
    if any(map(any, more)):
        if mode == "constant" and value == 0:
            found = (_layer(f"ZeroPadding{len(pairs)}D", _pos("padding", _sides(more))),)
        else:
            how = _key("constant_values", value) if mode == "constant" else _key("mode", mode)
            found = (Module("ops.pad", (_pos("pad_width", _all(more)), how)),)
    if any(map(any, less)):
        found += (_layer(f"Cropping{len(pairs)}D", _pos("cropping", _sides(less))),)
    return found


def _sides(pairs: Pairs) -> Value:
    """As Keras takes it: one number, or a pair for each axis (one axis: a pair)."""
    flat = {size for pair in pairs for size in pair}
    if len(flat) == 1:
        return flat.pop()
    return pairs[0] if len(pairs) == 1 else Symbol(repr(pairs))


def _exact(w: Window, spatial: Shape) -> Pairs:
    """The padding of each axis that makes its windows fit to the cell."""
    sizes = zip(w.output(spatial), w.stride, w.extent, spatial, w.padding, strict=True)
    return tuple((lo, (n - 1) * s + e - size - lo) for n, s, e, size, (lo, _) in sizes)


# Layers with weights ------------------------------------------------------------------------------


def depthwise(op: Conv, shape: Shape) -> bool:
    """Whether Keras has a depthwise layer for the convolution."""
    return 1 < op.groups == shape[0] and _rank(shape) < 3


def _conv(op: Conv, shape: Shape, *, explicit: bool = False) -> Made:
    w, rank = op.window, _rank(shape)
    if max(w.stride) > 1 and max(w.dilation) > 1:
        raise Unsupported("Keras dilates no convolution that has a stride")
    explicit = explicit or pads(op, shape)
    before = _pad(w.padding) if explicit else ()
    padding = "same" if any(map(any, w.padding)) and not explicit else "valid"
    settings = (
        _pos("kernel_size", _even(w.kernel)),
        _key("strides", _even(w.stride), 1),
        _key("padding", padding, "valid"),
        _key("dilation_rate", _even(w.dilation), 1),
    )
    bias = _key("use_bias", op.bias, True)
    if depthwise(op, shape):
        if len(set(w.stride)) > 1:
            raise Unsupported("Keras has one stride for a depthwise convolution")
        each = _key("depth_multiplier", op.filters // shape[0], 1)
        return (*before, _layer(f"DepthwiseConv{rank}D", *settings, each, bias))
    filters = _pos("filters", op.filters, size=True)
    groups = _key("groups", op.groups, 1)
    return (*before, _layer(f"Conv{rank}D", filters, *settings, groups, bias))


def _conv_transpose(op: ConvTranspose, shape: Shape) -> Made:
    w, rank = op.window, _rank(shape)
    if op.groups > 1:
        raise Unsupported("Keras has no transposed convolution in groups")
    if max(w.dilation) > 1:
        raise Unsupported("Keras dilates no transposed convolution alike on every backend")
    ends = [hi - out for out, (_, hi) in zip(op.out_pad, w.padding, strict=True)]
    # Without output_padding, Keras widens the output where the stride is beyond the kernel.
    wider = [max(s - k, 0) for s, k in zip(w.stride, w.kernel, strict=True)]
    if all(end + more >= 0 for end, more in zip(ends, wider, strict=True)):
        more = (0,) * rank
        ends = [end + extra for end, extra in zip(ends, wider, strict=True)]
    else:
        more = tuple(max(-end, 0) for end in ends)
    crop = tuple((-lo, -max(end, 0)) for (lo, _), end in zip(w.padding, ends, strict=True))
    settings = (
        _pos("filters", op.filters, size=True),
        _pos("kernel_size", _even(w.kernel)),
        _key("strides", _even(w.stride), 1),
        _key("output_padding", _even(more), 0),
        _key("use_bias", op.bias, True),
    )
    conv = _layer(f"Conv{rank}DTranspose", *settings)
    return (conv, *_pad(crop))


def _linear(op: Linear, shape: Shape) -> Made:
    units, bias = _pos("units", op.filters, size=True), _key("use_bias", op.bias, True)
    flat = _flatten(op, shape) if len(shape) > 1 else ()
    return (*flat, _layer("Dense", units, bias))


def _flatten(op: Op, shape: Shape) -> Made:
    """Channel by channel, as the weights of what follows are ordered."""
    rank = _rank(shape)
    if rank == 0 or prod(shape[1:]) == 1 or shape[0] == 1:
        return (_layer("Flatten"),)
    order = (rank + 1, *range(1, rank + 1))
    return (_layer("Permute", _pos("dims", order)), _layer("Flatten"))


def _batch_norm(op: BatchNorm, shape: Shape) -> Made:
    affine = (_key("center", op.affine, True), _key("scale", op.affine, True))
    momentum = _key("momentum", round(1 - op.momentum, 10), 0.99)
    return (_layer("BatchNormalization", momentum, _key("epsilon", op.eps, 1e-3), *affine),)


def _group_norm(op: GroupNorm | LayerNorm | InstanceNorm, shape: Shape) -> Made:
    groups = {LayerNorm: 1, InstanceNorm: -1}.get(type(op), getattr(op, "groups", 1))
    settings = (
        _key("epsilon", op.eps, 1e-3),
        _key("center", op.affine, True),
        _key("scale", op.affine, True),
    )
    if len(shape) > 1:
        return (_layer("GroupNormalization", _pos("groups", groups), *settings),)
    if groups != 1:
        raise Unsupported("Keras normalises no groups of a vector")
    return (_layer("LayerNormalization", *settings),)


def _prelu(op: PRelu, shape: Shape) -> Made:
    axes = tuple(range(1, len(shape)))
    # A list, as a tuple of one axis is a sequence too.
    return (_layer("PReLU", *((_key("shared_axes", axes),) if axes else ())),)


# Pools --------------------------------------------------------------------------------------------


def _pool(kind: str, w: Window, before: Made, padding: str = "valid") -> Made:
    alone = w.stride == w.kernel
    strides = () if alone else (_key("strides", _even(w.stride)),)
    settings = (_pos("pool_size", _even(w.kernel)), *strides, _key("padding", padding, "valid"))
    return (*before, _layer(f"{kind}Pooling{len(w.kernel)}D", *settings))


def _undilated(w: Window) -> None:
    if max(w.dilation) > 1:
        raise Unsupported("Keras dilates no pool")


def _max_pool(op: MaxPool, shape: Shape) -> Made:
    w = op.window
    _undilated(w)
    more = tuple((lo, max(hi, 0)) for lo, hi in _exact(w, shape[1:]))
    if not any(map(any, more)):
        return _pool("Max", w, ())
    if more == same_padding(w, shape[1:]):
        return _pool("Max", w, (), "same")
    return _pool("Max", w, _pad(more, float("-inf")))


def _average_pool(op: AveragePool, shape: Shape) -> Made:
    w = op.window
    _undilated(w)
    exact = tuple((lo, max(hi, 0)) for lo, hi in _exact(w, shape[1:]))
    if not any(map(any, exact)):
        return _pool("Average", w, ())
    counted = tuple(
        (min(lo, p), min(hi, q)) for (lo, hi), (p, q) in zip(exact, w.padding, strict=True)
    )
    if op.count_pad and counted == exact:
        return _pool("Average", w, _pad(exact))
    counted = counted if op.count_pad else ((0, 0),) * len(exact)
    rest = tuple((lo - p, hi - q) for (lo, hi), (p, q) in zip(exact, counted, strict=True))
    settings = (
        _pos("pool_size", w.kernel),
        _pos("strides", w.stride),
        _key("counted", _all(counted)),
        _key("uncounted", _all(rest)),
    )
    return (Module("mean_pool", settings),)


def _adaptive(op: AdaptiveAveragePool, shape: Shape) -> Made:
    spatial = shape[1:]
    if all(size % to == 0 for size, to in zip(spatial, op.to, strict=True)):
        each = tuple(size // to for size, to in zip(spatial, op.to, strict=True))
        return (_layer(f"AveragePooling{len(each)}D", _pos("pool_size", _even(each))),)
    return (_layer(f"AdaptiveAveragePooling{len(spatial)}D", _pos("output_size", _even(op.to))),)


def _global(op: GlobalAverage, shape: Shape) -> Made:
    kind = "Max" if isinstance(op, GlobalMax) else "Average"
    return (_layer(f"Global{kind}Pooling{_rank(shape)}D", _key("keepdims", True, False)),)


# The rest -----------------------------------------------------------------------------------------


def _response(op: LocalResponseNorm, shape: Shape) -> Made:
    settings = (
        _pos("size", op.size),
        _key("alpha", op.alpha, 1e-4),
        _key("beta", op.beta, 0.75),
        _key("k", op.k, 2.0),
    )
    return (Module("response_norm", settings),)


def _upsample(op: Upsample, shape: Shape) -> Made:
    rank = _rank(shape)
    size = _pos("size", _even(op.factor))
    if op.mode == "nearest":
        return (_layer(f"UpSampling{rank}D", size),)
    if rank != 2:
        raise Unsupported("Keras interpolates images alone")
    return (_layer("UpSampling2D", size, _key("interpolation", "bilinear")),)


def _padding(op: Pad, shape: Shape) -> Made:
    if op.mode == "edge":
        raise Unsupported("Keras repeats no edge")
    if op.mode == "reflect" and len(op.amount) > 2:
        raise Unsupported("Keras mirrors no volumes")
    return _pad(op.amount, op.value, op.mode)


def _shuffle(op: Shuffle, shape: Shape) -> Made:
    return (Module("shuffle", (_pos("groups", op.groups),)),)


def _hard_sigmoid(op: HardSigmoid, shape: Shape) -> Made:
    if op == HardSigmoid():
        return _activation("hard_sigmoid")(op, shape)
    return (Module("hard_sigmoid", (_pos("slope", op.slope), _pos("offset", op.offset))),)


def _gelu(op: Gelu, shape: Shape) -> Made:
    if op.form == "erf":
        return _activation("gelu")(op, shape)
    return (Module("ops.gelu", (_key("approximate", True),)),)


def _activation(name: str) -> Callable[[Any, Shape], Made]:
    return lambda op, shape: (_layer("Activation", _pos("activation", name)),)


def _plain(
    name: str, settings: Callable[[Any], tuple[Setting, ...]] = lambda op: ()
) -> Callable[[Any, Shape], Made]:
    return lambda op, shape: (_layer(name, *settings(op)),)


LAYERS: dict[type[Op], Callable[[Any, Shape], Made]] = {
    Conv: _conv,
    ConvTranspose: _conv_transpose,
    Linear: _linear,
    Flatten: _flatten,
    Dropout: _plain("Dropout", lambda op: (_pos("rate", op.rate),)),
    MaxPool: _max_pool,
    AveragePool: _average_pool,
    AdaptiveAveragePool: _adaptive,
    GlobalAverage: _global,
    GlobalMax: _global,
    BatchNorm: _batch_norm,
    LayerNorm: _group_norm,
    InstanceNorm: _group_norm,
    GroupNorm: _group_norm,
    LocalResponseNorm: _response,
    Upsample: _upsample,
    Pad: _padding,
    Shuffle: _shuffle,
    PRelu: _prelu,
    HardSigmoid: _hard_sigmoid,
    Gelu: _gelu,
    Relu: _plain("ReLU"),
    Relu6: _plain("ReLU", lambda op: (_key("max_value", 6.0),)),
    Leaky: _plain("LeakyReLU", lambda op: (_key("negative_slope", op.slope),)),
    Elu: _plain("ELU", lambda op: (_key("alpha", op.alpha, 1.0),)),
    Silu: _activation("silu"),
    HardSwish: _activation("hard_silu"),
    Sigmoid: _activation("sigmoid"),
    Tanh: _activation("tanh"),
    Softmax: _plain("Softmax"),
    LogSoftmax: _activation("log_softmax"),
}
"""What writes each class of op: (op, its input's shape)."""
