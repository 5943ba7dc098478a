"""What a net's kernels should take on an H200, reckoned without a card.

    python benchmarks/gpu_reckon.py [vgg16 alexnet …] [--batch 1,8,64] [--precision fp32,tf32,bf16]
        [--layers]

Of every launch: its blocks, how many of them a multiprocessor holds by the registers and the shared
memory that ptxas says, and the least time by what it computes, by the bytes it moves, and by the
latency of one block. Instructions are counted in sm_90's code: those of the loop that multiplies
once a slice; of what tiles do before and after it those that a layer with a relu passes, counted by
hand (ENDS); of kernels without such a loop all once, so that where they have other loops they are
reckoned too fast. Needs numba-cuda and NVIDIA's compiler packages. Nothing of this was timed on a
card.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests" / "cuda"))

PROCESSORS, CLOCK = 132, 1.755e9
BYTES = 4.2e12 / PROCESSORS / CLOCK
"""That a multiprocessor moves in a tick, from memory."""
CACHED = 5.5e12 / PROCESSORS / CLOCK
"""From L2."""
PRODUCTS = {"fp32": 128, "tf32": 640, "bf16": 1280}
"""Multiply-adds of a multiprocessor in a tick, on tensor cores by mma.sync, whose rate on Hopper is
some 62% of wgmma's."""
GAP = 1.0e-6
"""Seconds from the end of a graph's kernel to the beginning of the next."""
FAR, NEAR = 650, 280
"""Ticks until a value has come: by an asynchronous copy, and by a load from L2."""
BARRIER = 60
ALONE = 4
"""Ticks of an instruction of a warp that has its scheduler for itself."""
ENDS = {"conv_tensor": (700, 9), "conv_tile": (450, 24), "winograd_product": (300, 8)}
"""Of tiles: instructions of a warp besides the loop, and for every sum of a thread."""
ADDING = {"conv_finish": 170, "conv_finish_fours": 190, "conv_finish_packed": 400}
"""Of kernels that add up parts."""


class Code(NamedTuple):
    """Of a kernel: registers, bytes of shared memory, instructions of the loop that multiplies, by
    kind, and of everything else."""

    registers: int
    shared: int
    loop: Counter[str]
    rest: int


class Launch(NamedTuple):
    """A launch: of which layer, by which kernel, blocks, of those a multiprocessor holds, and the
    seconds by products, by bytes, and all in all."""

    layer: str
    kernel: str
    blocks: int
    held: int
    products: float
    moved: float
    seconds: float


def named(kernel: Any) -> tuple[str, dict[str, Any]]:
    """A kernel's name, and the numbers that it was made with."""
    f = kernel.py_func
    cells = zip(f.__code__.co_freevars, f.__closure__ or (), strict=True)
    held = {name: cell.cell_contents for name, cell in cells}
    tile = f" {held['TM']}x{held['TN']}" if "TM" in held else ""
    return f.__name__ + tile, held


@cache
def code_of(kernel: Any) -> Code:
    """What the assembler makes of a kernel for sm_90."""
    import test_offline
    from numba import cuda
    from numba.cuda import dispatcher

    from netdsl.cuda.launch import SIGNATURE

    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=(9, 0))
    assembler = test_offline.ptxas()
    assert assembler is not None, "ptxas is not installed"
    shown = next(p for e in sys.path for p in (Path(e) / "nvidia").glob("**/bin/nvdisasm"))
    ptx, _ = cuda.compile_ptx(kernel.py_func, SIGNATURE, cc=(9, 0))
    with TemporaryDirectory() as folder:
        source, made = Path(folder) / "k.ptx", Path(folder) / "k.cubin"
        source.write_text(ptx, encoding="utf-8")
        most = kernel.targetoptions.get("max_registers")
        limit = [] if most is None else [f"-maxrregcount={most}"]
        command = [str(assembler), "-v", "-arch=sm_90", *limit, str(source), "-o", str(made)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        command = [str(shown), "-c", str(made)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, shared = (
        sum(map(int, re.findall(p, said))) for p in (r"Used (\d+) reg", r"(\d+) bytes smem")
    )
    words, loop = loop_of(text)
    return Code(registers, shared, loop, len(words) - loop.total())


def loop_of(text: str) -> tuple[list[str], Counter[str]]:
    """All instructions, and those of the innermost loop with the most products."""
    places: dict[str, int] = {}
    words: list[str] = []
    jumps: list[tuple[str, int]] = []
    for line in text.splitlines():
        if label := re.match(r"^(\.L_\w+):", line):
            places[label[1]] = len(words)
        elif found := re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([\w.]+)(.*);", line):
            if found[1] == "BRA" and (to := re.search(r"`\((\.L_\w+)\)", found[2])):
                jumps.append((to[1], len(words)))
            words.append(found[1].partition(".")[0])
    loops = [Counter(words[places[to] : at + 1]) for to, at in jumps if places.get(to, at) < at]
    best = max(loops, key=lambda c: c["HMMA"] + c["FFMA"], default=Counter())
    return words, best if best["HMMA"] + best["FFMA"] >= 16 else Counter()


class Plan:
    """A net's plan for a card that is not there."""

    def __init__(self, name: str, batch: int, precision: str) -> None:
        import netdsl
        from netdsl.cuda import launch
        from netdsl.cuda.ahead import Sizes
        from netdsl.cuda.plan import _Making
        from netdsl.cuda.table import takes
        from netdsl.graph.fused import fuse
        from netdsl.graph.passes import lowered

        launch.processors = lambda: PROCESSORS
        launch.bandwidth = lambda: launch.H200
        graph, zero = netdsl.load(name).graph.without_aux(), np.float32(0)
        weights = {n: np.broadcast_to(zero, p.shape) for n, p in graph.all_parameters().items()}
        low, folded = lowered(graph, weights, lambda g: fuse(g, takes))
        self.batch, self.precision = batch, precision
        self.made = _Making(low, folded, batch, frozenset(low.outputs), False, precision, Sizes())
        self.graph, self.ints = self.made.graph, self.made.ints.joined()
        self.nodes = {s.name: node for node in self.graph for s in [self._step(node)] if s}

    def _step(self, node: Any) -> Any:
        from netdsl.graph.fused import parts

        return next((s for s in self.made.steps if s.name == parts(node).source), None)

    def launches(self) -> Iterator[Launch]:
        """Every launch of a run."""
        for step in self.made.steps:
            for call in step.calls:
                yield self.reckoned(step, call)

    def reckoned(self, step: Any, call: Any) -> Launch:
        name, held = named(call.kernel)
        code = code_of(call.kernel)
        blocks, warps = int(np.prod(call.grid)), call.block // 32
        by_registers = 65536 // (-(-code.registers // 8) * 8 * call.block)
        resident = max(min(by_registers, 2048 // call.block, 227 * 1024 // (code.shared + 1024)), 1)
        here = ceil(blocks / PROCESSORS)
        together = min(resident, here)
        rounds = here / together
        slices, products, data = 0, 0, 0
        if code.loop and "TM" in held:
            from netdsl.cuda import sums, winograd_product

            winograd = name.startswith("winograd")
            field = winograd_product.SLICES if winograd else sums.SLICES
            slices = int(self.ints[call.at + field])
            tensor = "STAGE" in held
            deep = 16 * PER[self.precision] if tensor else held["TK"]
            products = held["TM"] * held["TN"] * deep
            # Of positions what neighbouring cells share is read from L2 once.
            data = (
                64 * (held["TM"] / 3 + held["TN"])
                if tensor
                else 4 * deep * (held["TM"] + held["TN"])
            )
            ahead = held.get("AHEAD", 2) if tensor else 1
            chain = FAR / ahead if tensor else (1 if winograd else 2) * NEAR
            slice_ticks = max(
                together * products / PRODUCTS[self.precision],
                together * code.loop.total() * warps / 4,
                together * shared_ticks(code.loop, held, warps),
                together * data / CACHED,
                chain + BARRIER,
            )
        else:
            slice_ticks = 0.0
        rest = ADDING.get(name, code.rest)
        if slices:
            once, every = ENDS[name.partition(" ")[0]]
            rest = once + every * held["TM"] * held["TN"] // call.block
        ends = rest * max(together * warps / 4, ALONE)
        ticks = rounds * (slices * slice_ticks + ends)
        moved = self.moved(step, call, name) / BYTES / PROCESSORS
        whole = step.macs * self.batch if slices else 0
        if name.startswith("winograd"):
            whole = blocks * slices * products
        ideal = whole / PROCESSORS / PRODUCTS[self.precision]
        seconds = GAP + max(ticks, moved) / CLOCK
        return Launch(
            step.name, name, blocks, resident, ideal / CLOCK, moved / CLOCK, max(seconds, 2e-6)
        )

    def moved(self, step: Any, call: Any, name: str) -> float:
        """Bytes that a launch reads and writes."""
        from netdsl.cuda import sums

        node = self.nodes[step.name]
        if name.startswith("conv_finish"):
            field = self.ints[call.at : call.at + sums.FIELDS].astype(np.int64)
            outputs = field[sums.POSITIONS] * field[sums.FILTERS] * field[sums.GROUPS]
            return float(4 * outputs * (field[sums.SPLITS] + 1))
        if name.startswith("winograd"):
            return self.transformed(call, name, node, len(step.calls) // 3)
        if name.startswith("pack_"):
            return 2.0 * self.size(node.inputs[0])
        weights = sum(int(np.prod(p.shape)) for p in self.graph.parameters(node))
        each = 4 / PER[self.precision] if name.startswith("conv_tensor") else 4
        if name.startswith("dense"):
            each = 4 / held_per(call.kernel)
        return float(sum(map(self.size, (*node.inputs, node.name))) + each * weights)

    def transformed(self, call: Any, name: str, node: Any, chunks: int) -> float:
        """Bytes that a step of Winograd's algorithm reads and writes, for one of so many chunks."""
        from netdsl.cuda import winograd_product as fields

        point, made = (
            144.0 * self.ints[call.at + field] for field in (fields.INNER_POINT, fields.MADE_POINT)
        )
        if name == "winograd_inputs":
            return point + self.size(node.inputs[0]) / chunks
        if name == "winograd_outputs":
            return made + self.size(node.name) / chunks
        weights = sum(int(np.prod(p.shape)) for p in self.graph.parameters(node))
        return point + made + 16.0 * weights

    def size(self, tensor: str) -> int:
        """Bytes of a tensor, however it lies."""
        there = self.made.packed.get(tensor) or self.made.buffers[tensor]
        return 4 * there.batch * int(np.prod(there.shape))


PER = {"fp32": 1, "tf32": 1, "bf16": 2}


def held_per(kernel: Any) -> int:
    """Weights of a word that a kernel for few samples reads."""
    return int(named(kernel)[1].get("PER", 1))


def shared_ticks(loop: Counter[str], held: dict[str, Any], warps: int) -> float:
    """Ticks that a slice's reads and copies keep shared memory busy, 128 bytes a tick."""
    if "STAGE" in held:
        return 4 * warps * (loop["LDSM"] + loop["LDGSTS"])
    # Vectors of A are read by lanes side by side, of B by few lanes: two ticks and one.
    return 1.5 * warps * loop["LDS"]


def table(name: str, batch: int, precision: str, layers: bool) -> None:
    """Prints a net's times by layer and in all."""
    found = list(Plan(name, batch, precision).launches())
    total = sum(each.seconds for each in found)
    least = sum(max(each.products, each.moved) for each in found)
    print(
        f"{name}, batch {batch}, {precision}: {1e3 * total:.3f} ms in {len(found)} launches, "
        f"{least / total:.0%} of the ideal {1e3 * least:.3f}"
    )
    for each in found if layers else ():
        print(
            f"  {each.layer:22} {each.kernel:22} {each.blocks:6} blocks, {each.held} held: "
            f"products {1e6 * each.products:8.1f}, bytes {1e6 * each.moved:8.1f}, "
            f"reckoned {1e6 * each.seconds:8.1f} us"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*")
    parser.add_argument("--batch", default="1,8,64")
    parser.add_argument("--precision", default="fp32,tf32,bf16")
    parser.add_argument("--layers", action="store_true")
    given = parser.parse_args()
    for name in given.nets or ("vgg16", "alexnet", "googlenet_torchvision", "resnet50"):
        for batch in map(int, given.batch.split(",")):
            for precision in given.precision.split(","):
                table(name, batch, precision, given.layers)


if __name__ == "__main__":
    main()
