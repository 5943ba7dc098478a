"""The CUDA engine on a card, beside PyTorch with cuDNN: right on every op, and how fast.

    python benchmarks/gpu.py [--quick]

Says versions and card, compares every op forward with the float64 reference on fresh inputs,
measures passes over memory against a copy on the device, times whole nets, and ends with the
table. TF32 is off in PyTorch. Ends with status 2 where there is no card, 1 where an op is wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import netdsl
from netdsl import cuda
from netdsl.faults import NetError
from netdsl.graph.weights import initialise
from netdsl.lang import load
from netdsl.reference import interpret

NETS = ("vgg16", "alexnet", "googlenet_torchvision", "resnet50")
BATCHES = (1, 8, 64)
BUDGET = 400.0
"""Seconds after which no further net is timed."""

OPS = (
    "input 37x29x31; conv3x3p1(70) -> relu",
    "input 64x28x28; conv3x3s2p1(128) -> relu6",
    "input 256x14x14; conv1x1(512) -> leaky",
    "input 512x7x7; conv3x3p1(512)",
    "input 3x56x56; conv7x7s2p3(64) -> relu",
    "input 24x100; conv5p2d2(48)",
    "input 8x9x20x21; conv3p1(24)",
    "input 96x14x14; dwconv5x5p2",
    "input 64x14x14; conv3x3p1g4(128)",
    "input 32x15x17; tconv3x3s2p1(48)",
    "input 16x7x8x9; tconv2s2(8)",
    "input 512x7x7; fc(300) -> relu",
    "input 33x27x25; maxpool3s2p1ceil",
    "input 33x27x25; avgpool3s2p1(count_pad=yes)",
    "input 33x27x25; avgpool(to=7x6)",
    "input 130x29x31; gap",
    "input 130x29x31; gmp",
    "input 48x27x25; [bn + prelu] -> relu",
    "input 48x27x25; ln",
    "input 48x27x25; in",
    "input 48x27x25; gn6",
    "input 1000; softmax",
    "input 21x40x41; log_softmax",
    "input 96x27x27; lrn",
    "input 50x33; elu -> gelu -> silu -> hswish -> hsigmoid -> tanh -> sigmoid",
    "input 50x33; gelu(tanh)",
    "input 24x17x19; up2(bilinear) -> up2",
    "input 24x17x19; pad(3, mode=reflect) -> shuffle(4)",
    "input 24x17x19; [relu | tanh] -> [id * gap]",
)

PASSES = (
    "input 64x112x112; maxpool3s2p1",
    "input 64x112x112; avgpool2",
    "input 64x112x112; bn -> relu",
    "input 64x112x112; gelu",
    "input 64x112x112; in",
    "input 64x112x112; gn8",
    "input 96x55x55; lrn",
    "input 1000x14x14; softmax",
    "input 512x14x14; gap",
)

# A float32 sum of a few thousand products, against one in float64.
TOLERANCE = 1e-4


def differs(text: str, batch: int, seed: int) -> float:
    """The largest difference from the reference, against 1 + size."""
    random = np.random.default_rng(seed)
    graph = load(text)
    weights = initialise(graph, seed)
    inputs = {n: random.standard_normal((batch, *graph[n].shape), np.float32) for n in graph.inputs}
    found = cuda.compile(graph, weights, batch=batch).run(inputs)
    wanted = interpret(graph, weights, inputs)
    return max(
        float(np.max(np.abs(found[n] - wanted[n]) / (1 + np.abs(wanted[n])))) for n in wanted
    )


def seconds(start: Callable[[], Any], wait: Callable[[], Any], least: float = 0.3) -> float:
    """Seconds of a call, the median of five rounds, each some calls long."""
    start()
    wait()
    began = time.perf_counter()
    start()
    wait()
    calls = max(1, min(200, int(least / 5 / max(time.perf_counter() - began, 1e-6))))
    rounds = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(calls):
            start()
        wait()
        rounds.append((time.perf_counter() - began) / calls)
    return sorted(rounds)[2]


def plan_of(text_or_name: str, batch: int, *, name: bool) -> Any:
    """A plan whose arena holds noise."""
    graph = netdsl.load(text_or_name).graph if name else load(text_or_name)
    plan = cuda.compile(graph, initialise(graph, 0), batch=batch)
    random = np.random.default_rng(0)
    plan.run({p.name: random.standard_normal((batch, *p.shape), np.float32) for p in plan.inputs})
    return plan


def torch_seconds(name: str, batch: int, shape: tuple[int, ...]) -> float | None:
    """The same net of torchvision's, in eager mode with cuDNN; None where it is not installed."""
    try:
        import torch
        import torchvision
    except ImportError:
        return None
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    more = {"aux_logits": False, "init_weights": False} if name.startswith("googlenet") else {}
    model = (
        getattr(torchvision.models, name.removesuffix("_torchvision"))(weights=None, **more)
        .eval()
        .cuda()
    )
    x = torch.randn(batch, *shape, device="cuda")
    with torch.inference_mode():
        return seconds(lambda: model(x), torch.cuda.synchronize)


def say_versions() -> None:
    from importlib.metadata import PackageNotFoundError, version

    for package in ("netdsl", "numba", "numba-cuda", "numpy", "torch", "torchvision"):
        try:
            print(f"{package} {version(package)}")
        except PackageNotFoundError:
            print(f"{package} is not installed")
    print("card:", ", ".join(cuda.devices()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only check the ops")
    args = parser.parse_args()
    began = time.perf_counter()
    try:
        cuda.check()
    except NetError as problem:
        print(f"nothing was measured: {problem}", file=sys.stderr)
        return 2
    say_versions()
    seed = time.time_ns() % 2**31
    print(f"seed {seed}")
    wrong = 0
    for text in OPS:
        apart = max(differs(text, batch, seed) for batch in (1, 9))
        wrong += not apart < TOLERANCE
        print(f"{'ok   ' if apart < TOLERANCE else 'WRONG'} {apart:8.1e}  {text}", flush=True)
    if wrong or args.quick:
        return int(wrong > 0)
    from netdsl.cuda import launch

    rows = []
    for text in PASSES:
        plan = plan_of(text, 64, name=False)
        moved = sum(port.buffer.floats for port in (*plan.inputs, *plan.outputs))
        one, two = launch.room(moved // 2), launch.room(moved // 2)
        copied = seconds(lambda one=one, two=two: two.copy_to_device(one), launch.wait)
        taken = seconds(plan.start, launch.wait)
        rows.append(f"{text:45} {1e3 * taken:9.3f} ms {copied / taken:6.0%} of a copy")
    for name in NETS:
        for batch in BATCHES:
            if time.perf_counter() - began > BUDGET:
                rows.append(f"{name:21} batch {batch:3}: no time left")
                continue
            plan = plan_of(name, batch, name=True)
            ours, shape = seconds(plan.start, launch.wait), plan.inputs[0].shape
            del plan
            theirs = torch_seconds(name, batch, shape)
            beside = f"torch {1e3 * theirs:9.3f} ms {theirs / ours:6.2f}x" if theirs else "no torch"
            rows.append(f"{name:21} batch {batch:3} fp32 {1e3 * ours:9.3f} ms   {beside}")
    print("\n" + "\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
