"""The attributes that convolutions and pools share."""

from __future__ import annotations

from netdsl.formats.onnx.call import Call
from netdsl.formats.onnx.faults import Unsupported
from netdsl.ops import Shape, Window
from netdsl.ops.base import Pair
from netdsl.ops.window import same_padding


def window(call: Call, kernel: Shape, spatial: Shape, *, ceil: bool = False) -> Window:
    """The window of a node whose input has these spatial axes. Raises Unsupported."""
    rank = len(spatial)
    stride = axes(call, "strides", rank, 1)
    dilation = axes(call, "dilations", rank, 1)
    if min((*kernel, *stride, *dilation), default=1) < 1:
        raise Unsupported("a kernel, stride or dilation is below 1")
    plain = Window(kernel, stride, ((0, 0),) * rank, dilation, ceil)
    auto = padding_mode(call)
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        padding = same_padding(plain, spatial)
        if auto == "SAME_LOWER":
            padding = tuple((hi, lo) for lo, hi in padding)
    else:
        padding = pairs(call, rank) if auto == "NOTSET" else plain.padding
    return Window(kernel, stride, padding, dilation, ceil)


def padding_mode(call: Call) -> str:
    auto = call.attribute("auto_pad", "NOTSET") or "NOTSET"
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise Unsupported(f"its auto_pad {auto!r} is unknown")
    return str(auto)


def axes(call: Call, name: str, rank: int, default: int) -> Shape:
    """An attribute with a number per spatial axis."""
    found = call.ints(name) or (default,) * rank
    if len(found) != rank:
        raise Unsupported(f"its {name} {list(found)} are not one for each of {rank} axes")
    return found


def pairs(call: Call, rank: int) -> tuple[Pair, ...]:
    """`pads`: all that come before, then all that come after."""
    found = call.ints("pads") or (0,) * (2 * rank)
    if len(found) != 2 * rank:
        raise Unsupported(f"its pads {list(found)} are not two for each of {rank} axes")
    if min(found, default=0) < 0:
        raise Unsupported("its padding is below 0")
    return tuple(zip(found[:rank], found[rank:], strict=True))
