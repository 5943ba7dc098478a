"""How others count: the same net in the figures of each well-known tool.

A convention is what it counts for one multiply-add and a list of terms for what it counts besides.
Each was read in the tool's source and checked against its own output: torchinfo 1.8, thop 0.1.1,
fvcore 0.1.5, ptflops 0.7 (its pytorch backend), torch 2.13's FlopCounterMode, DeepSpeed 0.19's
profiler, onnx-tool 1.0. For a PyTorch tool, the net is written with the modules of `torch.nn`,
sums and products as + and *. For onnx-tool it is the ONNX file that PyTorch exports of it, batch
norm folded into the convolution before it and dropout gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from netdsl.cost import tools
from netdsl.cost.count import Cost, Layer
from netdsl.faults import error
from netdsl.frozen import dataclass
from netdsl.ops import Conv
from netdsl.ops.base import nearest

Count = Callable[[Layer], int]


@dataclass(frozen=True)
class Convention:
    """A way to count a net's operations.

    unit: what the tool calls its figure. per_mac: what one multiply-add of conv, tconv or fc
    counts. terms: reason -> what one sample of a layer counts besides. says, leaves_out: in words.
    """

    name: str
    unit: str
    per_mac: int
    terms: Mapping[str, Count]
    says: str
    leaves_out: str
    folds_norms: bool = False

    def parts(self, layer: Layer) -> dict[str, int]:
        """What the convention counts for a layer beyond one for each multiply-add, by reason."""
        found = {reason: count(layer) * layer.batch for reason, count in self.terms.items()}
        if self.per_mac != 1:
            found = {DOUBLED: (self.per_mac - 1) * layer.macs} | found
        return {reason: amount for reason, amount in found.items() if amount}

    def of(self, layer: Layer) -> int:
        """What the convention counts for a layer, for the whole batch."""
        return layer.macs + sum(self.parts(layer).values())

    def layers(self, cost: Cost) -> tuple[tuple[Layer, dict[str, int]], ...]:
        """Each layer with its parts; a folded batch norm leaves a bias and no cost of its own."""
        folded = _folded(cost) if self.folds_norms else {}
        rows = []
        for layer in cost.layers:
            parts = {} if layer.name in folded.values() else self.parts(layer)
            if layer.name in folded and not layer.counts.bias:
                parts[tools.BIAS] = prod(layer.output) * layer.batch
            rows.append((layer, parts))
        return tuple(rows)

    def total(self, cost: Cost) -> int:
        """The convention's figure for the net, exact."""
        return cost.macs + sum(self.because(cost).values())

    def because(self, cost: Cost) -> dict[str, int]:
        """Why the figure is not the number of multiply-adds: reason -> amount, in order."""
        found: dict[str, int] = {}
        for _, parts in self.layers(cost):
            for reason, amount in parts.items():
                found[reason] = found.get(reason, 0) + amount
        return found


DOUBLED = "a multiply-add counts as two"


def _folded(cost: Cost) -> dict[str, str]:
    """Convolutions that a batch norm alone follows, each with that norm's name."""
    graph = cost.graph.without_aux()
    found = {}
    for layer in cost.layers:
        readers = graph.consumers[layer.name]
        takes = isinstance(layer.op, Conv) and layer.name not in graph.outputs
        if takes and len(readers) == 1 and graph[readers[0]].op.head == "bn":
            found[layer.name] = readers[0]
    return found


_NONE: dict[str, Count] = {}

CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention(
            "macs",
            "MACs",
            1,
            _NONE,
            "one for each multiply-add of conv, tconv and fc",
            "bias, normalisation, activations, pools, sums",
        ),
        Convention(
            "flops",
            "FLOPs",
            2,
            _NONE,
            "two for each multiply-add of conv, tconv and fc",
            "bias, normalisation, activations, pools, sums",
        ),
        Convention(
            "lecture",
            "FLOP",
            1,
            _NONE,
            "FLOP means a multiply-add; parameters without bias; KB = numbers x 4 / 1024",
            "bias, activations; pools count 0 in the totals",
        ),
        Convention(
            "torchinfo",
            "mult-adds",
            1,
            tools.TORCHINFO,
            "each parameter once for each position it is used at, the bias too",
            "activations, pools; scale and shift of a norm count once a sample, not a position",
        ),
        Convention(
            "thop",
            "MACs",
            1,
            tools.THOP,
            "multiply-adds, norms at 4 an element, average pools",
            "bias, activations but prelu and softmax, max pools, sums",
        ),
        Convention(
            "fvcore",
            "flop",
            1,
            tools.FVCORE,
            "one for each multiply-add, batch norm at 2 an element, adaptive pools of pictures",
            "bias, activations, other pools, sums",
        ),
        Convention(
            "ptflops",
            "MACs",
            1,
            tools.PTFLOPS,
            "multiply-adds and bias, norms at 2 an element; most activations and all pools twice, "
            "as a module and again as the function it calls",
            "sigmoid, tanh, hswish, hsigmoid, log_softmax, sums",
        ),
        Convention(
            "torch",
            "FLOPs",
            2,
            _NONE,
            "FlopCounterMode: two for each multiply-add of matrix products and convolutions",
            "bias, normalisation, activations, pools, sums",
        ),
        Convention(
            "deepspeed",
            "flops",
            2,
            tools.DEEPSPEED,
            "two for each multiply-add, the bias of convolutions, norms, activations, pools",
            "the bias of fc, sigmoid, tanh, hswish, hsigmoid, log_softmax, sums",
        ),
        Convention(
            "onnx-tool",
            "MACs",
            1,
            tools.ONNX_TOOL,
            "instructions of every ONNX op: an exponential is 32, a root 24, a division 4",
            "dropout and batch norm that an inference export folds away, moving data about",
            folds_norms=True,
        ),
    )
}


def convention(name: str) -> Convention:
    """The convention of this name. Raises NetError with the nearest name."""
    if name not in CONVENTIONS:
        guess = nearest(name, CONVENTIONS)
        known = ", ".join(CONVENTIONS)
        raise error(
            "no-such-convention",
            f"there is no convention `{name}`",
            help=f"did you mean `{guess}`?" if guess else f"one of {known}",
        )
    return CONVENTIONS[name]
