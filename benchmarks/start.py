"""From the start of a process to its first result, beside onnxruntime, and the memory that takes.

    python benchmarks/start.py [lenet5 vgg16 googlenet] [--rounds 5] [--threads 2] [--command]

Both sides are Python processes that import their engine, read a file of weights (ours safetensors,
theirs .onnx) and run one sample; they take turns, and read their files once before that, so that
these are in memory and both sides' bytecode is kept. Weights are random. `--command` starts
`netdsl run` in place of Python: what reads arguments and prints classes is counted then. Times are
the least of all rounds, from outside the process; memory is the largest that a process held at once
(its resident set).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

OURS = """
import sys, numpy, netdsl
name, weights, x, threads = sys.argv[1:]
net = netdsl.load(name)
net.load_weights(weights)
print(net.run(numpy.load(x), threads=int(threads)).shape)
"""

THEIRS = """
import sys, numpy, onnxruntime
path, x, threads = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(threads)
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
print(session.run(None, {session.get_inputs()[0].name: numpy.load(x)})[0].shape)
"""


class Spent(NamedTuple):
    """What one process took: seconds, and MB of memory at most."""

    seconds: float
    memory: float


UNKEPT = "PYTHONDONTWRITEBYTECODE"
"""Where this is set, every process compiles the modules of a source tree anew, while packages have
their bytecode from pip. So it does not hold for the processes that are timed."""


def spent(command: list[str]) -> Spent:
    """Runs a command to its end."""
    start = time.perf_counter()
    settings = {name: value for name, value in os.environ.items() if name != UNKEPT}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=settings)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{command[0]} ended with status {os.waitstatus_to_exitcode(status)}")
    return Spent(seconds, used.ru_maxrss / 1024)


def commands(name: str, folder: Path, threads: int, whole: bool) -> dict[str, list[str]]:
    """What to start for each side, its files written before."""
    import numpy as np

    import netdsl
    from netdsl.formats.exchange import write_foreign

    net = netdsl.load(name)
    weights, x = folder / f"{name}.safetensors", folder / f"{name}.npy"
    net.save(weights)
    (onnx,) = write_foreign(net.graph, net.weights, "onnx", folder / f"{name}.onnx")
    np.save(x, np.random.default_rng(0).normal(size=(1, *net.graph["input"].shape)).astype("f4"))
    if whole:
        start = "from netdsl.cli import main; main()"
        program = [sys.executable, "-c", start, "run", name, str(x)]
        ours = [*program, "--weights", str(weights), "--threads", str(threads)]
    else:
        ours = [sys.executable, "-c", OURS, name, str(weights), str(x), str(threads)]
    theirs = [sys.executable, "-c", THEIRS, str(onnx), str(x), str(threads)]
    return {"netdsl": ours, "onnxruntime": theirs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("nets", nargs="*", default=["lenet5", "vgg16", "googlenet"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--command", action="store_true", help="`netdsl run`, not Python")
    settings = parser.parse_args()
    print(f"{'net':<14}{'netdsl':>10}{'onnxruntime':>14}{'ratio':>8}{'MB':>8}{'MB':>8}")
    for name in settings.nets:
        with tempfile.TemporaryDirectory() as folder:
            # In a process of its own, whose memory the ones to come do not inherit.
            with ProcessPoolExecutor(1, get_context("spawn")) as apart:
                asked = (name, Path(folder), settings.threads, settings.command)
                sides = apart.submit(commands, *asked).result()
            for command in sides.values():
                spent(command)
            rounds = [
                [spent(command) for command in sides.values()] for _ in range(settings.rounds)
            ]
        ours, theirs = (min(one[i].seconds for one in rounds) for i in (0, 1))
        held = [min(one[i].memory for one in rounds) for i in (0, 1)]
        ratio = theirs / ours
        print(f"{name:<14}{ours:>8.2f} s{theirs:>12.2f} s{ratio:>8.2f}", end="")
        print(f"{held[0]:>8.0f}{held[1]:>8.0f}", flush=True)


if __name__ == "__main__":
    main()
