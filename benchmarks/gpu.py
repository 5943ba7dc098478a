"""The CUDA engine on a card, beside PyTorch with cuDNN: right on every op, and how fast.

    python benchmarks/gpu.py [--parts ops,nets] [--json FILE]
    python benchmarks/gpu.py --dry-run

Says versions and card; compiles all kernels, on every core; compares every op forward and backward
with PyTorch in double precision, on inputs drawn anew; times whole nets, layers beside the card's
peak, passes over memory beside a copy, and training; runs compute-sanitizer on small shapes where
there is one; and ends with the table. It takes less than eight minutes: what there is no time for
is named. What fails is printed, and the rest goes on. Ends with status 2 where there is no card, 1
where something was wrong.

--dry-run does all of it on tiny shapes in Numba's simulator, to see that the script itself works;
no number that it prints is real.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent / "tests" / "cuda"

BUDGET = 450.0
"""Seconds for all. A part ends by its share of them, counted from the start."""

ENDS = {
    "compile": 0.2,
    "ops": 0.45,
    "nets": 0.76,
    "layers": 0.8,
    "passes": 0.87,
    "train": 0.94,
    "sanitizer": 1.0,
}
"""The parts in their order, and by when each ends."""

DRY = "DRY RUN in Numba's simulator: no number here is real."


@dataclass
class Report:
    """What was found so far."""

    dry: bool
    seed: int
    began: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def time_left(self, part: str) -> float:
        """Seconds until the part's end."""
        return BUDGET * ENDS[part] - (time.monotonic() - self.began)

    def cases(self, part: str, found: Any) -> Iterator[Any]:
        """Those that there is time for; the rest is named."""
        waiting = list(found)
        while waiting and self.time_left(part) > 0:
            yield waiting.pop(0)
        if waiting:
            self.say(f"{part}: no time for {len(waiting)} more, from {waiting[0]} on")

    def say(self, line: str) -> None:
        """A line for now and for the table."""
        self.lines.append(line)
        print(line, flush=True)

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Prints what goes wrong within the block, and goes on."""
        try:
            yield
        except Exception as problem:
            self.wrong.append(what)
            said = " ".join(str(problem).split()) or type(problem).__name__
            self.say(f"FAILED  {what}: {said[:300]}")
            traceback.print_exc(limit=-3, file=sys.stdout)


def versions(report: Report) -> None:
    """Packages, driver, card."""
    from importlib.metadata import PackageNotFoundError, version

    from netdsl import cuda

    for package in ("netdsl", "numba", "numba-cuda", "cuda-core", "numpy", "torch"):
        try:
            report.say(f"{package} {version(package)}")
        except PackageNotFoundError:
            report.say(f"{package} is not installed")
    for name, value in cuda.about().items():
        report.say(f"{name.replace('_', ' ')}: {value}")
    if not report.dry and find_spec("torch"):
        with report.guarded("torch's version of CUDA"):
            import torch

            report.say(f"torch's CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    report.say(f"seed {report.seed}")


def compile_all(report: Report) -> None:
    """Every kernel into the cache, a share of them by each of some processes."""
    if report.dry:
        return
    count = max(1, min(16, os.cpu_count() or 1))
    command = [sys.executable, str(Path(__file__)), "--share"]
    running = [subprocess.Popen([*command, f"{i}/{count}"]) for i in range(count)]
    for process in running:
        try:
            process.wait(max(report.time_left("compile"), 1))
        except subprocess.TimeoutExpired:
            process.kill()
    spent = time.monotonic() - report.began
    report.say(f"kernels compiled by {count} processes, {spent:.0f} s after the start")


def compile_share(share: str) -> None:
    """What one of those processes does."""
    import registry

    found = registry.kernels()
    from netdsl.cuda import launch

    part, parts = map(int, share.split("/"))
    for kernel in found[part::parts]:
        try:
            launch.prepare([kernel])
        except Exception as problem:
            print(f"FAILED  to compile {registry.home(kernel)}: {problem}", flush=True)


def check_ops(report: Report) -> None:
    """Every op forward, in every precision, and backward; layers with weights so in each."""
    import gpu_cases as cases
    import gpu_checks as checks

    found: list[tuple[str, str, Callable[[int], float]]] = []
    forward = cases.TINY_FORWARD if report.dry else cases.FORWARD
    backward = cases.TINY_BACKWARD if report.dry else cases.BACKWARD
    for precision in checks.precisions():
        # What rounds nothing is the same in all precisions.
        texts = [t for t in forward if precision == "fp32" or "conv" in t or "fc(" in t]
        found += [
            (precision, text, lambda batch, t=text, p=precision: checks.forward(t, batch, seed, p))
            for text in texts
        ]
    found += [
        ("back", text, lambda batch, t=text: checks.backward(t, batch, seed)) for text in backward
    ]
    rounded = cases.TINY_ROUNDED if report.dry else cases.ROUNDED
    found += [
        (f"back {p}", text, lambda batch, t=text, p=p: checks.backward(t, batch, seed, p))
        for p in checks.precisions()
        for text in (rounded if p != "fp32" else ())
    ]
    seed, right = report.seed, 0
    for kind, text, differs in report.cases("ops", found):
        with report.guarded(f"{kind} {text}"):
            apart = max(differs(batch) for batch in ((2,) if report.dry else (1, 9)))
            limit = checks.TOLERANCE.get(kind, checks.TOLERANCE["fp32"])
            fine = apart < limit
            right += fine
            print(f"{'ok   ' if fine else 'WRONG'} {apart:8.1e}  {kind} {text}", flush=True)
            report.rows.append({"part": "ops", "kind": kind, "text": text, "apart": apart})
            if not fine:
                report.wrong.append(text)
                report.lines.append(f"WRONG {apart:8.1e}  {kind} {text}")
    report.say(f"{right} of {len(found)} ops right")


def measure(report: Report, part: str, cases: Any) -> None:
    """Times of (what, function) pairs."""
    from gpu_speed import HEAD

    report.say(HEAD)
    for what, run in report.cases(part, cases):
        with report.guarded(what):
            found = run()
            report.say(f"{found}{'  (not real)' if report.dry else ''}")
            report.rows.append({"part": part, "real": not report.dry, **found._asdict()})


def time_nets(report: Report) -> None:
    import gpu_cases as cases
    import gpu_checks as checks
    import gpu_speed as speed

    import netdsl
    from netdsl.net import Net

    tiny = [Net.load(text=cases.TINY_NET)]
    nets = tiny if report.dry else [netdsl.load(name) for name in cases.NETS]
    batches = (1,) if report.dry else cases.BATCHES
    found: list[tuple[str, Callable[[], Any]]] = [
        (f"{net.name} {batch} {kind}", lambda n=net, b=batch, k=kind: speed.net(n, b, k))
        for kind in checks.precisions()
        for net in nets
        for batch in batches
    ]
    last = nets[-1]
    found.append((f"{last.name}, many batches", lambda: speed.copies(last, batches[-1], 3)))
    measure(report, "nets", found)


def time_layers(report: Report) -> None:
    """The card's peak, and the layers of a net beside it, in every precision."""
    import gpu_cases as cases
    import gpu_checks as checks
    import gpu_speed as speed

    import netdsl
    from netdsl.net import Net

    net = Net.load(text=cases.TINY_NET) if report.dry else netdsl.load(cases.LAYERED)
    batch = 2 if report.dry else cases.LAYERED_BATCH
    for precision in report.cases("layers", checks.precisions()):
        with report.guarded(f"layers in {precision}"):
            top, whole, timings = speed.layers(net, batch, precision)
            words = f"peak {precision} {top:,.0f} GFLOP/s; {net.name}, batch {batch}: {whole:.0%}"
            report.say(f"{words} of it{'  (not real)' if report.dry else ''}")
            for t in timings:
                share = f"{2 * t.macs / t.least_ms / 1e6 / top:7.1%}" if t.macs else ""
                print(f"    {t.name:24} {t.least_ms:9.4f} ms {share}", flush=True)
            row = {"precision": precision, "peak": top, "share": whole}
            report.rows.append({"part": "layers", "real": not report.dry, **row})


def time_passes(report: Report) -> None:
    import gpu_cases as cases
    import gpu_speed as speed

    texts, batch = (cases.TINY_PASSES, 2) if report.dry else (cases.PASSES, 64)
    measure(report, "passes", [(t, lambda t=t: speed.passed(t, batch)) for t in texts])


def time_training(report: Report) -> None:
    import gpu_cases as cases
    import gpu_checks as checks
    import gpu_speed as speed

    import netdsl
    from netdsl.net import Net

    net = Net.load(text=cases.TINY_NET) if report.dry else netdsl.load(cases.TRAINED)
    batch = 2 if report.dry else cases.TRAINED_BATCH
    found: list[tuple[str, Callable[[], Any]]] = [
        (f"{net.name} trains", lambda: speed.trained(net, batch))
    ]
    large = net if report.dry else netdsl.load(cases.STEPPED)
    steps = batch if report.dry else cases.STEPPED_BATCH
    exact: list[float] = []
    for precision in checks.precisions():
        what = f"{large.name} trains in {precision}"
        found.append((what, lambda p=precision: speed.stepped(large, steps, p, exact)))
    measure(report, "train", found)


def sanitize(report: Report) -> None:
    """compute-sanitizer over small shapes, where it is installed."""
    tool = shutil.which("compute-sanitizer", path=f"{os.environ.get('PATH')}:/usr/local/cuda/bin")
    if tool is None or report.dry:
        report.say("compute-sanitizer is not here")
        return
    for kind in ("memcheck", "racecheck"):
        left = report.time_left("sanitizer")
        if left < 10:
            report.say(f"{kind}: no time left")
            continue
        command = [tool, "--tool", kind, "--error-exitcode", "9"]
        command += [sys.executable, str(Path(__file__)), "--small"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=left, check=False
            )
        except subprocess.TimeoutExpired:
            report.say(f"{kind}: stopped after {left:.0f} s, nothing found until then")
            continue
        report.say(f"{kind}: {'nothing found' if done.returncode == 0 else 'ERRORS'}")
        if done.returncode:
            report.wrong.append(kind)
            print(done.stdout[-6000:], flush=True)


def small() -> int:
    """What the sanitizer looks at: small shapes forward and backward."""
    import gpu_cases as cases
    import gpu_checks as checks

    for text in cases.TINY_FORWARD:
        for precision in checks.precisions():
            checks.forward(text, 2, 0, precision)
    for text in cases.TINY_BACKWARD:
        checks.backward(text, 2, 0)
    for text in cases.TINY_ROUNDED:
        for precision in checks.precisions():
            checks.backward(text, 2, 0, precision)
    return 0


PARTS: dict[str, Callable[[Report], None]] = {
    "compile": compile_all,
    "ops": check_ops,
    "nets": time_nets,
    "layers": time_layers,
    "passes": time_passes,
    "train": time_training,
    "sanitizer": sanitize,
}


def simulate() -> None:
    """Has Numba simulate a card. To be called before Numba is imported."""
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
    import simulated

    simulated.poisonous()
    import gpu_speed

    gpu_speed.ROUNDS = gpu_speed.REPEATS = 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="of " + ", ".join(PARTS))
    parser.add_argument("--json", type=Path, help="a file for all that was measured")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--share", help=argparse.SUPPRESS)
    parser.add_argument("--small", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    parts = args.parts.split(",")
    if not set(parts) <= set(PARTS):
        parser.error(f"parts are {', '.join(PARTS)}")
    sys.path[:0] = [str(HERE), str(HERE.parent), str(TESTS)]
    if args.share:
        compile_share(args.share)
        return 0
    if args.dry_run:
        simulate()
    from netdsl import cuda

    fault = cuda.missing()
    if fault is not None:
        print(f"nothing was measured: {fault.message} ({fault.help})", file=sys.stderr)
        return 2
    return small() if args.small else everything(parts, args)


def everything(parts: list[str], args: argparse.Namespace) -> int:
    report = Report(args.dry_run, time.time_ns() % 2**31)
    if report.dry:
        report.say(DRY)
    with report.guarded("versions"):
        versions(report)
    for name in PARTS:
        if name in parts:
            print(f"\n{name}", flush=True)
            with report.guarded(name):
                PARTS[name](report)
    print("\n" + "\n".join(report.lines))
    print(
        f"\n{time.monotonic() - report.began:.0f} s; wrong: {', '.join(report.wrong) or 'nothing'}"
    )
    if report.dry:
        print(DRY)
    if args.json:
        args.json.write_text(json.dumps(report.rows, indent=1), encoding="utf-8")
    return int(bool(report.wrong))


if __name__ == "__main__":
    sys.exit(main())
