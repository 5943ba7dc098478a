"""GFLOP/s of single convolutions and fully connected layers, alone and with warm caches.

    python benchmarks/conv_layers.py [vgg16|googlenet|alexnet|resnet50|mobilenet …] [--threads 2]
        [--batch 1] [--exact]

Counted as direct convolutions (2 operations a multiply-add), so Winograd's may exceed the peak.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from netdsl.cpu import region
from netdsl.cpu.conv import conv_needs, plan_conv
from netdsl.cpu.dense import plan_dense
from netdsl.cpu.layout import Halo, aligned, fresh
from netdsl.cpu.task import Needs, Params, Places, Task
from netdsl.cpu.views import link
from netdsl.graph import Node
from netdsl.graph.fused import Fused
from netdsl.ops import Conv, Linear, Op, Relu, Window

Row = tuple[int, int, int, int, int, int, int]
"""Channels, size, filters, kernel, stride, padding, groups."""

LAYERS: dict[str, list[Row]] = {
    "vgg16": [
        (3, 224, 64, 3, 1, 1, 1),
        (64, 224, 64, 3, 1, 1, 1),
        (64, 112, 128, 3, 1, 1, 1),
        (128, 112, 128, 3, 1, 1, 1),
        (128, 56, 256, 3, 1, 1, 1),
        (256, 56, 256, 3, 1, 1, 1),
        (256, 28, 512, 3, 1, 1, 1),
        (512, 28, 512, 3, 1, 1, 1),
        (512, 14, 512, 3, 1, 1, 1),
        (512, 7, 4096, 0, 1, 0, 1),
        (4096, 1, 4096, 0, 1, 0, 1),
    ],
    "googlenet": [
        (3, 224, 64, 7, 2, 3, 1),
        (64, 56, 64, 1, 1, 0, 1),
        (64, 56, 192, 3, 1, 1, 1),
        (192, 28, 64, 1, 1, 0, 1),
        (192, 28, 16, 1, 1, 0, 1),
        (96, 28, 128, 3, 1, 1, 1),
        (16, 28, 32, 5, 1, 2, 1),
        (480, 14, 192, 1, 1, 0, 1),
        (96, 14, 208, 3, 1, 1, 1),
        (16, 14, 48, 5, 1, 2, 1),
        (832, 7, 384, 1, 1, 0, 1),
        (192, 7, 384, 3, 1, 1, 1),
        (48, 7, 128, 5, 1, 2, 1),
    ],
    "alexnet": [
        (3, 227, 96, 11, 4, 0, 1),
        (96, 27, 256, 5, 1, 2, 1),
        (256, 13, 384, 3, 1, 1, 1),
        (384, 13, 384, 3, 1, 1, 1),
        (384, 13, 256, 3, 1, 1, 1),
        (256, 6, 4096, 0, 1, 0, 1),
    ],
    "resnet50": [
        (3, 224, 64, 7, 2, 3, 1),
        (64, 56, 64, 1, 1, 0, 1),
        (64, 56, 64, 3, 1, 1, 1),
        (64, 56, 256, 1, 1, 0, 1),
        (256, 56, 128, 1, 1, 0, 1),
        (128, 56, 128, 3, 2, 1, 1),
        (128, 28, 512, 1, 1, 0, 1),
        (512, 28, 256, 1, 1, 0, 1),
        (256, 14, 256, 3, 1, 1, 1),
        (256, 14, 1024, 1, 1, 0, 1),
        (1024, 14, 512, 1, 1, 0, 1),
        (512, 7, 512, 3, 1, 1, 1),
        (512, 7, 2048, 1, 1, 0, 1),
        (2048, 7, 512, 1, 1, 0, 1),
    ],
    "mobilenet": [
        (3, 224, 32, 3, 2, 1, 1),
        (32, 112, 32, 3, 1, 1, 32),
        (96, 112, 96, 3, 2, 1, 96),
        (144, 56, 144, 3, 1, 1, 144),
        (192, 28, 192, 3, 1, 1, 192),
        (384, 14, 384, 3, 1, 1, 384),
        (960, 7, 960, 3, 1, 1, 960),
        (960, 7, 160, 1, 1, 0, 1),
        (32, 112, 16, 1, 1, 0, 1),
        (24, 56, 144, 1, 1, 0, 1),
    ],
}


def measure(row: Row, batch: int, count: int, exact: bool) -> tuple[float, int, str]:
    """The least seconds of a run, its multiply-adds, and the worker's name."""
    channels, size, filters, kernel, stride, padding, groups = row
    shape = (channels, size, size)
    op: Op = Linear(filters)
    if kernel:
        pads = ((padding, padding),) * 2
        op = Conv(filters, Window((kernel,) * 2, (stride,) * 2, pads, (1, 1)), groups)
    output = op.output((shape,))
    node = Node("layer", Fused(op, "layer", ("layer",), False, Relu()), ("x",), output)
    task = Task(node, (shape,), batch, count, exact)
    asked = conv_needs(task) if kernel else Needs((Halo(),))
    random = np.random.default_rng(0)
    source = fresh(batch, shape, asked.halos[0], lanes=1 if asked.planar else 16)
    target = fresh(batch, output, offset=-(-source.floats // 16) * 16)
    end = target.offset + target.floats
    params = Params()
    weights = {p.name: random.standard_normal(p.shape, np.float32) for p in op.parameters((shape,))}
    plan = plan_conv if kernel else plan_dense
    calls = [link(c) for c in plan(task, Places((source,), target, end, weights, params, {}))]
    packed, arena = params.joined(), aligned(end + asked.scratch)
    times = []
    # On one thread the processor's own time counts, which others' work does not stretch.
    clock = time.thread_time if count == 1 else time.perf_counter
    finish = time.perf_counter() + 0.3
    while len(times) < 5 or (time.perf_counter() < finish and len(times) < 200):
        start = clock()
        for kernel_, d in calls:
            kernel_(arena, packed, d)
        times.append(clock() - start)
    names = "+".join(
        c.kernel.name for c in plan(task, Places((source,), target, end, weights, params, {}))
    )
    return min(times), op.macs((shape,)) * batch, names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", default=list(LAYERS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--exact", action="store_true")
    args = parser.parse_args()
    region.use(args.threads)
    for net in args.nets:
        for row in LAYERS[net]:
            seconds, macs, name = measure(row, args.batch, args.threads, args.exact)
            channels, size, filters, kernel, stride, _, groups = row
            word = f"{kernel}x{kernel}s{stride}" + (f"g{groups}" if groups > 1 else "")
            what = f"{channels}x{size}x{size} {word if kernel else 'fc'} -> {filters}"
            print(f"{net:10} {what:32} {1e6 * seconds:9.0f} us {2e-9 * macs / seconds:7.0f} {name}")


if __name__ == "__main__":
    main()
