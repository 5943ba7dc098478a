"""What each tool counts besides multiply-adds: reason -> the amount for one sample of a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from netdsl.cost.count import Layer
from netdsl.ops import (
    AdaptiveAveragePool,
    AveragePool,
    ConvTranspose,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Norm,
    Upsample,
)

Count = Callable[[Layer], int]

BIAS = "bias"
WEIGHTED = frozenset({"conv", "dwconv", "tconv", "fc"})
NORMS = ("bn", "ln", "in", "gn")


def elements_in(layer: Layer) -> int:
    """Numbers in a sample's (first) input."""
    return prod(layer.inputs[0])


def elements_out(layer: Layer) -> int:
    """Numbers in a sample's output."""
    return prod(layer.output)


def bias(layer: Layer) -> int:
    """Additions of a bias, one an output."""
    return layer.counts.bias


def conv_bias(layer: Layer) -> int:
    """Additions of a bias in convolutions alone."""
    return 0 if isinstance(layer.op, Linear) else layer.counts.bias


def each(factors: Mapping[str, int]) -> Count:
    """So many an output element, by the op's head."""
    return lambda layer: factors.get(layer.kind, 0) * elements_out(layer)


def each_input(factors: Mapping[str, int]) -> Count:
    """So many an input element, by the op's head."""
    return lambda layer: factors.get(layer.kind, 0) * elements_in(layer)


def norm(affine: Mapping[str, int], plain: Mapping[str, int]) -> Count:
    """So many an element of a normalisation, with its learned scale and shift and without."""

    def count(layer: Layer) -> int:
        if not isinstance(layer.op, Norm):
            return 0
        table = affine if layer.op.affine else plain
        return table.get(as_module(layer), 0) * elements_in(layer)

    return count


def as_module(layer: Layer) -> str:
    """The head whose torch.nn module a norm is: ln over more than a vector is a gn of one group."""
    return "gn" if layer.kind == "ln" and len(layer.inputs[0]) > 1 else layer.kind


def adaptive(layer: Layer) -> bool:
    """Whether PyTorch writes this op as an adaptive average pool."""
    return layer.kind == "gap" or isinstance(layer.op, AdaptiveAveragePool)


def rank(layer: Layer) -> int:
    """Spatial axes of the input."""
    return len(layer.inputs[0]) - 1


# torchinfo


def transposed_at_outputs(layer: Layer) -> int:
    """A transposed convolution's weights at every output position, beyond its multiply-adds."""
    if not isinstance(layer.op, ConvTranspose):
        return 0
    return layer.weights * prod(layer.output[1:]) - layer.counts.macs


def scale_once(layer: Layer) -> int:
    """Learned numbers of norms and prelu, once."""
    return 0 if layer.kind in WEIGHTED else layer.params


TORCHINFO: dict[str, Count] = {
    BIAS: bias,
    "transposed convolutions at every output position": transposed_at_outputs,
    "scale and shift of norms and prelu, once": scale_once,
}

# thop


def thop_adaptive(layer: Layer) -> int:
    """Per output: the input's elements per output's (a true quotient), and a division."""
    if not adaptive(layer):
        return 0
    return elements_in(layer) + elements_out(layer)


def thop_softmax(layer: Layer) -> int:
    """Exponentials, additions and divisions over the channels of each position."""
    channels = layer.output[0]
    return elements_out(layer) // channels * (3 * channels - 1) if layer.kind == "softmax" else 0


def average(layer: Layer) -> int:
    """One an output of an average pool."""
    return elements_out(layer) if isinstance(layer.op, AveragePool) else 0


def thop_upsample(layer: Layer) -> int:
    """Nearest 1, linear 5, bilinear 11 an output; it knows no name for three axes."""
    if not isinstance(layer.op, Upsample):
        return 0
    linear = {1: 5, 2: 11}.get(rank(layer), 0)
    return elements_out(layer) * (1 if layer.op.mode == "nearest" else linear)


def thop_transposed(layer: Layer) -> int:
    """A transposed convolution as if it were a plain one over its outputs."""
    op = layer.op
    if not isinstance(op, ConvTranspose):
        return 0
    inside = layer.inputs[0][0] // op.groups * prod(op.window.kernel)
    return elements_out(layer) * inside - layer.counts.macs


THOP: dict[str, Count] = {
    "norms, 4 an element (2 without scale)": norm(
        {"bn": 4, "ln": 4, "in": 4}, {"bn": 2, "ln": 2, "in": 2}
    ),
    "adaptive pools": thop_adaptive,
    "average pools": average,
    "softmax, 3 an element": thop_softmax,
    "prelu": each({"prelu": 1}),
    "upsampling": thop_upsample,
    "transposed convolutions at every output position": thop_transposed,
}

# fvcore


def fvcore_adaptive(layer: Layer) -> int:
    """One an input element; its table has the pool of pictures alone."""
    return elements_in(layer) if adaptive(layer) and rank(layer) == 2 else 0


def fvcore_upsample(layer: Layer) -> int:
    """Nearest 1, bilinear 4 an output; its table has pictures alone."""
    if not isinstance(layer.op, Upsample) or rank(layer) != 2:
        return 0
    return elements_out(layer) * (1 if layer.op.mode == "nearest" else 4)


FVCORE: dict[str, Count] = {
    "batch norm, 2 an element (1 without scale)": norm({"bn": 2}, {"bn": 1}),
    "other norms, 5 an element (4 without scale)": norm(
        {"ln": 5, "gn": 5, "in": 5}, {"ln": 4, "gn": 4, "in": 4}
    ),
    "adaptive pools": fvcore_adaptive,
    "upsampling": fvcore_upsample,
}

# ptflops


def pool(layer: Layer) -> int:
    """One an input element of any pool."""
    pools = isinstance(layer.op, AveragePool | MaxPool) or layer.kind == "gmp"
    return elements_in(layer) if pools or adaptive(layer) else 0


def inside_lrn(layer: Layer) -> int:
    """PyTorch's lrn is made of a square, a padded average pool, a product and a sum."""
    if not isinstance(layer.op, LocalResponseNorm):
        return 0
    channels, *spatial = layer.inputs[0]
    return 3 * elements_in(layer) + (channels + layer.op.size - 1) * prod(spatial)


PTFLOPS: dict[str, Count] = {
    BIAS: bias,
    "norms, 2 an element (1 without scale)": norm(
        dict.fromkeys(NORMS, 2) | {"ln": 1}, dict.fromkeys(NORMS, 1)
    ),
    "activations, twice": each({"relu": 2, "prelu": 2, "elu": 2, "gelu": 2}),
    "activations, once": each({"relu6": 1, "leaky": 1, "silu": 1, "softmax": 1}),
    "pools, twice": lambda layer: 2 * pool(layer),
    "lrn's own parts": inside_lrn,
    "upsampling, twice": each({"up": 2}),
}

# deepspeed

DEEPSPEED: dict[str, Count] = {
    "bias of convolutions": conv_bias,
    "batch norm, 2 an element (1 without scale)": norm({"bn": 2}, {"bn": 1}),
    "other norms, 5 an element (4 without scale)": norm(
        {"ln": 5, "gn": 5, "in": 5}, {"ln": 4, "gn": 4, "in": 4}
    ),
    "activations": each(
        dict.fromkeys(("relu", "prelu", "elu", "leaky", "silu", "gelu", "softmax"), 1)
    ),
    "pools": pool,
    "lrn's own parts": inside_lrn,
    "upsampling": each({"up": 1}),
}

# onnx-tool

ONNX_EACH = {
    "relu": 1,
    "relu6": 2,
    "leaky": 2,
    "prelu": 2,
    "elu": 35,
    "gelu": 34,
    "silu": 33,
    "hswish": 5,
    "hsigmoid": 4,
    "sigmoid": 32,
    "tanh": 76,
    "softmax": 36,
    "log_softmax": 80,
}


def onnx_pool(layer: Layer) -> int:
    """A window's cells an output, of a volume's window one edge; a global average's inputs and a
    division of 4."""
    op, spatial = layer.op, layer.inputs[0][1:]
    if layer.kind == "gap":
        return elements_in(layer) + 4 * elements_out(layer)
    if isinstance(op, AveragePool | MaxPool):
        kernel = op.window.kernel
    elif isinstance(op, AdaptiveAveragePool):
        kernel = tuple(size // to for size, to in zip(spatial, op.to, strict=True))
    elif layer.kind == "gmp":
        kernel = spatial
    else:
        return 0
    return elements_out(layer) * (prod(kernel) if len(kernel) < 3 else kernel[0])


def onnx_transposed(layer: Layer) -> int:
    """A transposed convolution's filters, where its input channels belong, at every output."""
    op = layer.op
    if not isinstance(op, ConvTranspose):
        return 0
    each_output = op.filters // op.groups * prod(op.window.kernel)
    return elements_out(layer) * each_output - layer.counts.macs


def onnx_lrn(layer: Layer) -> int:
    """A division, a power, a sum and a product for each channel of the window."""
    op = layer.op
    return (37 + op.size) * elements_out(layer) if isinstance(op, LocalResponseNorm) else 0


def onnx_upsample(layer: Layer) -> int:
    """Linear 4 an output, nearest 0."""
    op = layer.op
    return 4 * elements_out(layer) if isinstance(op, Upsample) and op.mode != "nearest" else 0


def onnx_joins(layer: Layer) -> int:
    """One an output for each sign between the branches of a sum or product."""
    signs = len(layer.inputs) - 1
    return signs * elements_out(layer) if layer.kind in ("add", "mul") else 0


def onnx_layer_norm(layer: Layer) -> int:
    """Of a vector: 7 an element and 29."""
    return 7 * elements_in(layer) + 29 if as_module(layer) == "ln" else 0


ONNX_TOOL: dict[str, Count] = {
    BIAS: bias,
    "batch norm that no convolution takes in, 31 an element": norm({"bn": 31}, {"bn": 31}),
    "other norms": norm({"in": 7, "gn": 9}, {"in": 7, "gn": 9}),
    "layer norm": onnx_layer_norm,
    "activations": each(ONNX_EACH),
    "pools": onnx_pool,
    "sums and products": onnx_joins,
    "lrn": onnx_lrn,
    "upsampling": onnx_upsample,
    "transposed convolutions by their filters": onnx_transposed,
}
