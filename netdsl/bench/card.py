"""The engines that are compared on an NVIDIA card: ours, and PyTorch op by op with cuDNN.

Inputs lie on the card before a run begins, for both; a run ends when its outputs are here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from netdsl.bench.case import Case
from netdsl.bench.engine import Engine, Outputs, Run, Unfit
from netdsl.bench.peers import Ours, Torch
from netdsl.runner import COMPUTES, PRECISIONS


class OursOnCard(Ours):
    """This package's CUDA engine."""

    precisions = COMPUTES["cuda"]

    @classmethod
    def load(cls, case: Case) -> Run:
        from netdsl.cuda.plan import Plan

        plan, names = case.runner().plan, case.graph.outputs
        assert isinstance(plan, Plan)
        plan.feed(case.inputs)
        return lambda: [found[name] for found in [plan.compute()] for name in names]


class TorchOnCard(Torch):
    """PyTorch on the card, op by op. cuDNN tries its algorithms first and takes the fastest."""

    precisions = PRECISIONS

    @classmethod
    def load(cls, case: Case) -> Run:
        import torch

        check_torch()
        kind = torch.bfloat16 if case.precision == "bf16" else torch.float32
        net, layout = cls.module(case.graph, case.weights)
        forward = cls.prepared(net.moved("cuda", kind).eval())
        inputs = {
            name: torch.from_numpy(x).to("cuda", kind).contiguous(memory_format=layout)
            for name, x in case.inputs.items()
        }

        def run() -> Outputs:
            with torch.inference_mode(), rounding(case.precision == "tf32"):
                return [y.float().cpu().numpy() for y in forward(inputs)]

        return run


class TorchChannelsLastOnCard(TorchOnCard):
    """The same with channels innermost, which tensor cores want."""

    name = "torch channels_last"
    channels_last = True


ENGINES: dict[str, tuple[type[Engine], ...]] = {"torch": (TorchOnCard, TorchChannelsLastOnCard)}
"""What --against takes on the card."""


def check_torch() -> None:
    """That PyTorch can use the card. Raises Unfit."""
    import torch

    if not torch.cuda.is_available():
        raise Unfit("this PyTorch has no CUDA, or finds no card")


@contextmanager
def rounding(allowed: bool) -> Iterator[None]:
    """Whether PyTorch may round float32 factors to TF32, within the block; cuDNN tries its
    algorithms there."""
    import torch

    settings: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [setting.allow_tf32 for setting in settings]
    benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    for setting in settings:
        setting.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
        for setting, kept in zip(settings, before, strict=True):
            setting.allow_tf32 = kept
