"""For each op the modules of PyTorch that compute it, in a row; see `extra` for what it lacks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

from netdsl.formats.source.parts import Module, Setting, Value
from netdsl.graph import Graph, Node
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

Made = tuple[Module, ...]

STATES = {"mean": "running_mean", "var": "running_var"}
"""What PyTorch calls parameters otherwise than we do."""


def modules(op: Op, shape: Shape) -> Made:
    """The modules of an op for an input of this shape, without names and states."""
    return LAYERS[type(op)](op, shape)


SIZES = frozenset(
    """in_channels out_channels in_features out_features num_features num_channels num_parameters
    normalized_shape groups""".split()  # noqa: SIM905 - a list of names
)


def _pos(name: str, value: Value) -> Setting:
    return Setting(name, value, size=name in SIZES)


def _key(name: str, value: Value, default: Value | None = None) -> Setting:
    return Setting(name, value, default, named=True, size=name in SIZES)


def _even(sizes: tuple[int, ...]) -> Value:
    """One number for equal ones."""
    return sizes[0] if len(set(sizes)) == 1 else sizes


def _rank(shape: Shape) -> int:
    return len(shape) - 1


def _ends(pairs: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """PyTorch's order: the last axis first."""
    return tuple(size for pair in reversed(pairs) for size in pair)


def _pad(pairs: tuple[tuple[int, int], ...], value: float) -> Module:
    """Padding, or cropping, before or after what cannot do it unevenly."""
    amounts = _even(_ends(pairs))
    if value == 0:
        return Module(f"nn.ZeroPad{len(pairs)}d", (_pos("padding", amounts),))
    return Module(f"nn.ConstantPad{len(pairs)}d", (_pos("padding", amounts), _pos("value", value)))


def _symmetric(window: Window) -> bool:
    return all(lo == hi for lo, hi in window.padding)


def _conv(op: Conv, shape: Shape) -> Made:
    w = op.window
    before: Made = ()
    padding: Value = _even(tuple(lo for lo, _ in w.padding))
    if not _symmetric(w):
        before, padding = (_pad(w.padding, 0.0),), 0
    conv = Module(
        f"nn.Conv{_rank(shape)}d",
        (
            _pos("in_channels", shape[0]),
            _pos("out_channels", op.filters),
            _key("kernel_size", _even(w.kernel)),
            _key("stride", _even(w.stride), 1),
            _key("padding", padding, 0),
            _key("dilation", _even(w.dilation), 1),
            _key("groups", op.groups, 1),
            _key("bias", op.bias, True),
        ),
    )
    return (*before, conv)


def _conv_transpose(op: ConvTranspose, shape: Shape) -> Made:
    w = op.window
    least = tuple(min(pair) for pair in w.padding)
    conv = Module(
        f"nn.ConvTranspose{_rank(shape)}d",
        (
            _pos("in_channels", shape[0]),
            _pos("out_channels", op.filters),
            _key("kernel_size", _even(w.kernel)),
            _key("stride", _even(w.stride), 1),
            _key("padding", _even(least), 0),
            _key("output_padding", _even(op.out_pad), 0),
            _key("dilation", _even(w.dilation), 1),
            _key("groups", op.groups, 1),
            _key("bias", op.bias, True),
        ),
    )
    if _symmetric(w):
        return (conv,)
    rest = tuple((p - lo, p - hi) for p, (lo, hi) in zip(least, w.padding, strict=True))
    return (conv, _pad(rest, 0.0))


def _linear(op: Linear, shape: Shape) -> Made:
    linear = Module(
        "nn.Linear",
        (
            _pos("in_features", prod(shape)),
            _pos("out_features", op.filters),
            _key("bias", op.bias, True),
        ),
    )
    return (linear,) if len(shape) == 1 else (*_flatten(op, shape), linear)


def _flatten(op: Op, shape: Shape) -> Made:
    return (Module("nn.Flatten", function="{}.flatten(1)"),)


def _pool_settings(w: Window, padding: tuple[int, ...]) -> tuple[Setting, ...]:
    alone = w.stride == w.kernel
    stride = () if alone else (_key("stride", _even(w.stride)),)
    kernel = Setting("kernel_size", _even(w.kernel), None, named=not alone)
    return (kernel, *stride, _key("padding", _even(padding), 0))


def _fits_torch(w: Window) -> bool:
    """PyTorch pads pools on both sides alike, by half of the kernel at most."""
    return _symmetric(w) and all(
        2 * lo <= k for (lo, _), k in zip(w.padding, w.kernel, strict=True)
    )


def _exact(w: Window, spatial: Shape) -> tuple[tuple[int, int], ...]:
    """The padding of each axis that makes its windows fit to the cell."""
    sizes = zip(w.output(spatial), w.stride, w.extent, spatial, w.padding, strict=True)
    return tuple((lo, (n - 1) * s + e - size - lo) for n, s, e, size, (lo, _) in sizes)


def _max_pool(op: MaxPool, shape: Shape) -> Made:
    w, rank = op.window, _rank(shape)
    before: Made = ()
    padding, ceil = tuple(lo for lo, _ in w.padding), w.ceil
    if not _fits_torch(w):
        before = (_pad(_exact(w, shape[1:]), float("-inf")),)
        padding, ceil = (0,) * rank, False
    settings = (
        *_pool_settings(w, padding),
        _key("dilation", _even(w.dilation), 1),
        _key("ceil_mode", ceil, False),
    )
    return (*before, Module(f"nn.MaxPool{rank}d", settings))


def _average_pool(op: AveragePool, shape: Shape) -> Made:
    w, rank = op.window, _rank(shape)
    if _fits_torch(w) and set(w.dilation) == {1}:
        padding = tuple(lo for lo, _ in w.padding)
        settings = (
            *_pool_settings(w, padding),
            _key("ceil_mode", w.ceil, False),
            _key("count_include_pad", op.count_pad or not any(padding), True),
        )
        return (Module(f"nn.AvgPool{rank}d", settings),)
    counted = w.padding if op.count_pad else ((0, 0),) * rank
    exact = _exact(w, shape[1:])
    rest = tuple((lo - a, hi - b) for (lo, hi), (a, b) in zip(exact, counted, strict=True))
    settings = (
        _key("kernel_size", w.kernel),
        _key("stride", w.stride),
        _key("dilation", w.dilation),
        _key("counted", _ends(counted)),
        _key("uncounted", _ends(rest)),
    )
    return (Module(f"MeanPool{rank}d", settings),)


def _adaptive(op: AdaptiveAveragePool, shape: Shape) -> Made:
    settings = (_pos("output_size", _even(op.to)),)
    return (Module(f"nn.AdaptiveAvgPool{_rank(shape)}d", settings),)


def _global(op: GlobalAverage, shape: Shape) -> Made:
    kind = "Max" if isinstance(op, GlobalMax) else "Avg"
    return (Module(f"nn.Adaptive{kind}Pool{_rank(shape)}d", (_pos("output_size", 1),)),)


def _batch_norm(op: BatchNorm, shape: Shape) -> Made:
    settings = (
        _pos("num_features", shape[0]),
        _key("eps", op.eps, 1e-5),
        _key("momentum", op.momentum, 0.1),
        _key("affine", op.affine, True),
    )
    return (Module(f"nn.BatchNorm{max(_rank(shape), 1)}d", settings),)


def _group_norm(op: GroupNorm | LayerNorm | InstanceNorm, shape: Shape) -> Made:
    groups = {LayerNorm: 1, InstanceNorm: shape[0]}.get(type(op), getattr(op, "groups", 1))
    eps, affine = _key("eps", op.eps, 1e-5), _key("affine", op.affine, True)
    rank = _rank(shape)
    if isinstance(op, LayerNorm) and rank == 0:
        affine = affine._replace(name="elementwise_affine")
        return (Module("nn.LayerNorm", (_pos("normalized_shape", shape[0]), eps, affine)),)
    if prod(shape) == groups:
        # PyTorch refuses to normalise single numbers.
        return (Module("LoneNorm", (_pos("num_channels", shape[0]), affine)),)
    if isinstance(op, InstanceNorm):
        affine = affine._replace(default=False)
        return (Module(f"nn.InstanceNorm{rank}d", (_pos("num_features", shape[0]), eps, affine)),)
    sizes = (_pos("num_groups", groups), _pos("num_channels", shape[0]))
    return (Module("nn.GroupNorm", (*sizes, eps, affine)),)


def _response(op: LocalResponseNorm, shape: Shape) -> Made:
    torch = op.size % 2 == 1 and len(shape) > 1
    settings = (
        _pos("size", op.size),
        _key("alpha", op.alpha, 1e-4),
        _key("beta", op.beta, 0.75),
        _key("k", op.k, 1.0),
    )
    return (Module("nn.LocalResponseNorm" if torch else "ResponseNorm", settings),)


def _upsample(op: Upsample, shape: Shape) -> Made:
    linear = ("linear", "bilinear", "trilinear")[_rank(shape) - 1]
    mode = "nearest" if op.mode == "nearest" else linear
    settings = (_key("scale_factor", _even(op.factor)), _key("mode", mode, "nearest"))
    return (Module("nn.Upsample", settings),)


def _padding(op: Pad, shape: Shape) -> Made:
    if op.mode == "constant":
        return (_pad(op.amount, op.value),)
    kind = "Reflection" if op.mode == "reflect" else "Replication"
    more = tuple((max(lo, 0), max(hi, 0)) for lo, hi in op.amount)
    less = tuple((min(lo, 0), min(hi, 0)) for lo, hi in op.amount)
    settings = (_pos("padding", _even(_ends(more))),)
    pad = Module(f"nn.{kind}Pad{_rank(shape)}d", settings)
    return (pad, _pad(less, 0.0)) if any(map(any, less)) else (pad,)


def _shuffle(op: Shuffle, shape: Shape) -> Made:
    callee = "nn.ChannelShuffle" if len(shape) > 1 else "Shuffle"
    return (Module(callee, (_pos("groups", op.groups),)),)


def _dropout(op: Dropout, shape: Shape) -> Made:
    return (Module("nn.Dropout", (_pos("p", op.rate),)),)


def _prelu(op: PRelu, shape: Shape) -> Made:
    return (Module("nn.PReLU", (_pos("num_parameters", shape[0]),)),)


def _hard_sigmoid(op: HardSigmoid, shape: Shape) -> Made:
    if op == HardSigmoid():
        return (Module("nn.Hardsigmoid", function="F.hardsigmoid({})"),)
    settings = (_pos("slope", op.slope), _pos("offset", op.offset))
    return (Module("HardSigmoid", settings),)


def _gelu(op: Gelu) -> tuple[Setting, ...]:
    return (_key("approximate", "tanh" if op.form == "tanh" else "none", "none"),)


def _plain(
    callee: str,
    function: str = "",
    settings: Callable[[Any], tuple[Setting, ...]] = lambda op: (),
) -> Callable[[Any, Shape], Made]:
    return lambda op, shape: (Module(callee, settings(op), function=function),)


LAYERS: dict[type[Op], Callable[[Any, Shape], Made]] = {
    Conv: _conv,
    ConvTranspose: _conv_transpose,
    Linear: _linear,
    Flatten: _flatten,
    Dropout: _dropout,
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
    Relu: _plain("nn.ReLU", "F.relu({})"),
    Relu6: _plain("nn.ReLU6", "F.relu6({})"),
    Silu: _plain("nn.SiLU", "F.silu({})"),
    HardSwish: _plain("nn.Hardswish", "F.hardswish({})"),
    Sigmoid: _plain("nn.Sigmoid", "torch.sigmoid({})"),
    Tanh: _plain("nn.Tanh", "torch.tanh({})"),
    Softmax: _plain("nn.Softmax", "F.softmax({}, dim=1)", lambda op: (_key("dim", 1),)),
    LogSoftmax: _plain("nn.LogSoftmax", "F.log_softmax({}, dim=1)", lambda op: (_key("dim", 1),)),
    Leaky: _plain("nn.LeakyReLU", "", lambda op: (Setting("negative_slope", op.slope, 0.01),)),
    Elu: _plain("nn.ELU", "", lambda op: (Setting("alpha", op.alpha, 1.0),)),
    Gelu: _plain("nn.GELU", "", _gelu),
}
"""What writes each class of op: (op, its input's shape)."""


def layers(graph: Graph, node: Node, name: str) -> Made:
    """The modules of a node, called by this name, its parameters in the one that has them."""
    shapes = (graph[node.inputs[0]].shape, node.shape)
    made = modules(node.op, shapes[0])
    holder = next((i for i, m in enumerate(made) if HOLDERS.match(m.callee)), 0)
    own = (parameter.name for parameter in graph.parameters(node))
    states = tuple((STATES.get(p, p), f"{node.name}.{p}") for p in own)
    kind = node.op.head if re.fullmatch(rf"{node.op.head}\d+", name) else ""
    return tuple(
        replace(
            module,
            name=name,
            kind=kind,
            op=node.op,
            shapes=shapes,
            states=states if i == holder else (),
        )
        for i, module in enumerate(made)
    )


HOLDERS = re.compile(r"nn\.(Conv|Linear)")
"""The modules with weights among those of one op."""
