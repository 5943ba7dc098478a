"""Runs the peers' tools on a graph: each returns its own figure for one sample.

Used by test_peers.py where the tools are installed (they are in no extra of the tests), and to
make peers.json: `python tests/cost/peers.py` prints it anew.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from as_torch import AsTorch

from netdsl import lang
from netdsl.graph import Graph

NETS = Path(__file__).with_name("peers.json")


def _torchinfo(model: AsTorch, x: torch.Tensor) -> int:
    import torchinfo

    return int(torchinfo.summary(model, input_data=x, verbose=0, depth=9).total_mult_adds)


def _thop(model: AsTorch, x: torch.Tensor) -> int:
    import thop

    return int(thop.profile(model, inputs=(x,), verbose=False)[0])


def _fvcore(model: AsTorch, x: torch.Tensor) -> int:
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    return int(FlopCountAnalysis(model, x).total())


def _ptflops(model: AsTorch, x: torch.Tensor) -> int:
    import ptflops

    found = ptflops.get_model_complexity_info(
        model,
        tuple(x.shape[1:]),
        as_strings=False,
        print_per_layer_stat=False,
        backend="pytorch",
    )
    return int(found[0])


def _torch(model: AsTorch, x: torch.Tensor) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(x)
    return int(counter.get_total_flops())


def _deepspeed(model: AsTorch, x: torch.Tensor) -> int:
    from deepspeed.profiling.flops_profiler import get_model_profile

    found = get_model_profile(
        model, input_shape=tuple(x.shape), print_profile=False, detailed=False, as_string=False
    )
    return int(found[0])


def _onnx_tool(model: AsTorch, x: torch.Tensor) -> int:
    import onnx_tool

    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/net.onnx"
        torch.onnx.export(model, (x,), file, dynamo=False)
        graph = onnx_tool.Model(file).graph
    graph.shape_infer(None)
    graph.profile()
    return int(graph.macs[0])


TOOLS: dict[str, Callable[[AsTorch, torch.Tensor], int]] = {
    "torchinfo": _torchinfo,
    "thop": _thop,
    "fvcore": _fvcore,
    "ptflops": _ptflops,
    "torch": _torch,
    "deepspeed": _deepspeed,
    "onnx-tool": _onnx_tool,
}


def figure(tool: str, graph: Graph) -> int:
    """The tool's own figure for a graph of one input."""
    x = torch.zeros(1, *graph[graph.inputs[0]].shape)
    return TOOLS[tool](AsTorch(graph).eval(), x)


def _measured(text: str) -> dict[str, int]:
    found = {}
    for tool in TOOLS:
        try:
            found[tool] = figure(tool, lang.load(text))
        except Exception as problem:  # a tool that cannot take the net has no figure for it
            print(f"{tool}: {text}: {str(problem)[:120]!r}")
    return found


if __name__ == "__main__":
    texts = json.loads(NETS.read_text(encoding="utf-8"))
    NETS.write_text(json.dumps({t: _measured(t) for t in texts}, indent=1) + "\n", encoding="utf-8")
