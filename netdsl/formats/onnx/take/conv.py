"""Conv and ConvTranspose."""

from __future__ import annotations

from netdsl.formats.onnx.call import Call, Value
from netdsl.formats.onnx.faults import Unsupported
from netdsl.formats.onnx.step import Array
from netdsl.formats.onnx.take.windows import axes, padding_mode, pairs, window
from netdsl.ops import Conv, ConvTranspose, Shape, Window
from netdsl.ops.base import Pair


def conv(call: Call) -> Value:
    weight = _weight(call)
    x = call.plain(rank=weight.ndim - 1)
    groups = int(call.attribute("group", 1))
    channels, count = x.shape[0], weight.shape[0]
    if groups < 1 or count % groups or weight.shape[1] * groups != channels:
        raise Unsupported(
            f"its weight {weight.shape} in {groups} groups does not fit {channels} channels"
        )
    bias = {"bias": call.parameter(2, "bias", (count,))} if call.given(2) else {}
    w = window(call, weight.shape[2:], x.shape[1:])
    depthwise = groups == channels and channels > 1
    return call.step(Conv(count, w, groups, bool(bias), depthwise), x, weight=weight, **bias)


def conv_transpose(call: Call) -> Value:
    weight = _weight(call)
    x = call.plain(rank=weight.ndim - 1)
    groups = int(call.attribute("group", 1))
    channels, count = x.shape[0], weight.shape[1] * max(groups, 1)
    if groups < 1 or channels % groups or weight.shape[0] != channels:
        raise Unsupported(
            f"its weight {weight.shape} in {groups} groups does not fit {channels} channels"
        )
    bias = {"bias": call.parameter(2, "bias", (count,))} if call.given(2) else {}
    w, out_pad = _transposed_window(call, weight.shape[2:], x.shape[1:])
    op = ConvTranspose(count, w, out_pad, groups, bool(bias))
    return call.step(op, x, weight=weight, **bias)


def _weight(call: Call) -> Array:
    weight = call.parameter(1, "weight")
    if weight.ndim < 3 or 0 in weight.shape:
        raise Unsupported(f"its weight has shape {weight.shape}")
    stated = call.ints("kernel_shape")
    if stated is not None and stated != weight.shape[2:]:
        raise Unsupported(f"its kernel is said to be {list(stated)}, its weight {weight.shape}")
    return weight


def _transposed_window(call: Call, kernel: Shape, spatial: Shape) -> tuple[Window, Shape]:
    rank = len(kernel)
    stride, dilation = axes(call, "strides", rank, 1), axes(call, "dilations", rank, 1)
    out_pad = axes(call, "output_padding", rank, 0)
    auto, size = padding_mode(call), call.ints("output_shape")
    if min((*stride, *dilation)) < 1 or min(out_pad) < 0:
        raise Unsupported("a stride, dilation or output padding is too small")
    if size is None and auto == "NOTSET":
        return Window(kernel, stride, pairs(call, rank), dilation), out_pad
    if size is None and auto == "VALID":
        return Window(kernel, stride, ((0, 0),) * rank, dilation), out_pad
    size = size or tuple(n * s for n, s in zip(spatial, stride, strict=True))
    size = size[-rank:]
    padding: list[Pair] = []
    extra = list(out_pad)
    for i, n in enumerate(spatial):
        full = (n - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 + out_pad[i]
        total = full - size[i]
        if total < 0:
            extra[i] -= total
            total = 0
        half = total // 2
        # The odd cell is cut off at the end for SAME_UPPER, at the start otherwise.
        padding.append((half, total - half) if auto == "SAME_UPPER" else (total - half, half))
    return Window(kernel, stride, tuple(padding), dilation), tuple(extra)


TAKE = {"Conv": conv, "ConvTranspose": conv_transpose}
