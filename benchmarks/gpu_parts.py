"""The parts of gpu.py, each a list of cases, and the process that goes through one.

python gpu_parts.py PART FIRST SEED UNTIL ROWS [--dry]     a part's cases from FIRST on
python gpu_parts.py share I/N                              compiles a share of all kernels
python gpu_parts.py small                                  small shapes, for a sanitizer
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent

LOST = 3
"""The status with which a process ends whose card answers nothing any more."""


class Found(NamedTuple):
    """What a case came to: a line, what was measured, whether it is right, and whether the line
    belongs in the table."""

    line: str
    row: dict[str, Any]
    right: bool = True
    listed: bool = True


class Asked(NamedTuple):
    """How cases are made."""

    dry: bool
    seed: int


Case = tuple[str, Callable[[], Found]]


def versions(asked: Asked) -> list[Case]:
    """Packages, driver, card."""
    return [("packages", partial(_packages, asked)), ("torch's version of CUDA", _torch)]


def _packages(asked: Asked) -> Found:
    from importlib.metadata import PackageNotFoundError, version

    from netdsl import cuda

    said = {}
    for package in ("netdsl", "numba", "numba-cuda", "cuda-core", "cuda-bindings", "numpy"):
        try:
            said[package] = version(package)
        except PackageNotFoundError:
            said[package] = "not installed"
    said |= {name.replace("_", " "): str(value) for name, value in cuda.about().items()}
    said["seed"] = str(asked.seed)
    return Found("\n".join(f"{name}: {value}" for name, value in said.items()), said)


def _torch() -> Found:
    if find_spec("torch") is None:
        return Found("torch: not installed", {})
    import torch

    if not torch.cuda.is_available():
        return Found(f"torch {torch.__version__} has no CUDA, or finds no card", {})
    said = {
        "torch": torch.__version__,
        "torch's CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
    }
    return Found("; ".join(f"{name} {value}" for name, value in said.items()), said)


def kept(asked: Asked) -> list[Case]:
    """Every kernel out of the cache."""
    return [("the cache", _kept)]


def _kept() -> Found:
    import registry

    found = registry.kernels()
    from netdsl.cuda import launch

    began = time.perf_counter()
    anew = [kernel.py_func.__name__ for kernel in found if launch.prepare([kernel])]
    took = time.perf_counter() - began
    line = f"{len(found) - len(anew)} of {len(found)} kernels out of the cache, {took:.1f} s"
    return Found(line, {"seconds": took, "anew": anew}, right=not anew)


def ops(asked: Asked) -> list[Case]:
    """Every op forward, in every precision, and backward, whole steps, and batches in a row."""
    import gpu_cases as cases
    import gpu_checks as checks

    dry, seed = asked
    pick = cases.tiny if dry else cases.full
    batches, back_batches = pick("BATCHES_OF_CHECKS"), pick("BATCHES_OF_GRADIENTS")
    many = pick("BATCHES_OF_ROUNDED")
    found: list[Case] = []

    def add(kind: str, what: str, differs: Callable[[int], float]) -> None:
        found.append((f"{kind} {what}", partial(_checked, kind, what, differs, seed)))

    for p in checks.precisions():
        # What rounds nothing is the same in all precisions.
        for t in pick("FORWARD"):
            if p == "fp32" or "conv" in t or "fc(" in t:
                add(p, t, lambda s, t=t, p=p: max(checks.forward(t, b, s, p) for b in batches))
    for t in pick("FORWARD"):
        if "conv3x3" in t:  # what may go by Winograd's algorithm, without it
            add("exact", t, lambda s, t=t: max(checks.forward(t, b, s, "exact") for b in batches))
    for p in checks.precisions():
        for t in pick("PACKED") if p != "fp32" else ():
            kind = f"packed {p}"
            add(kind, t, lambda s, t=t, p=p: max(checks.packed(t, b, s, p) for b in batches))
    for t in pick("BACKWARD"):
        add("back", t, lambda s, t=t: max(checks.backward(t, b, s) for b in back_batches))
    for p in checks.precisions():
        for t in pick("ROUNDED") if p != "fp32" else ():
            kind = f"back {p}"
            add(kind, t, lambda s, t=t, p=p: max(checks.backward(t, b, s, p) for b in many))
    for p in checks.precisions():
        for t in pick("COPIED") if p != "fp32" else ():
            add(f"copied {p}", t, lambda s, t=t, p=p: max(checks.copied(t, b, s, p) for b in many))
    for t, batch, given, targets in pick("STEPS"):
        what = f"{t} {given}"
        add("step", what, lambda s, t=t, b=batch, g=given, k=targets: checks.steps(t, b, g, k, s))
    for t in pick("IN_A_ROW"):
        add("in a row", t, lambda s, t=t: checks.in_a_row(t, 3, 7, s))
    return found


KINKED = ("back", "step")
"""The kinds of checks that follow gradients."""


def _checked(kind: str, what: str, differs: Callable[[int], float], seed: int) -> Found:
    """Whether a difference is one of rounding. Near a kink rounding decides which way a whole
    gradient goes, so what is wrong with gradients must be so twice, on other numbers."""
    import gpu_checks as checks

    limit = checks.TOLERANCE.get(kind, checks.TOLERANCE["fp32"])
    apart, again = differs(seed), ""
    if not apart < limit and kind.split()[0] in KINKED:
        again = f" (first {apart:.1e})"
        apart = differs(seed + 1)
    right = apart < limit
    line = f"{'ok   ' if right else 'WRONG'} {apart:8.1e}{again}  {kind} {what}"
    row = {"kind": kind, "text": what, "apart": apart}
    return Found(line, row, right, listed=not right or bool(again))


def nets(asked: Asked) -> list[Case]:
    """Whole nets, those first that say most."""
    import gpu_cases as cases
    import gpu_checks as checks
    import gpu_speed as speed

    import netdsl
    from netdsl.net import Net

    tiny = [Net.load(text=cases.TINY_NET)]
    found = tiny if asked.dry else [netdsl.load(name) for name in cases.NETS]
    batches = (1,) if asked.dry else cases.BATCHES
    timed: list[tuple[str, Callable[[], speed.Speed]]] = [
        (f"{net.name} {batch} {kind}", partial(speed.net, net, batch, kind))
        for batch in batches
        for net in found
        for kind in checks.precisions()
    ]
    last, largest = found[-1], max(batches)
    timed.insert(12, (f"{last.name}, many batches", partial(speed.copies, last, largest, 3)))
    chunked, batch = tiny[0], 1
    if not asked.dry:
        chunked, batch = netdsl.load(cases.CHUNKED), cases.CHUNKED_BATCH
    timed[1:1] = [
        (f"{chunked.name} by chunks of {scratch}", partial(speed.chunked, chunked, batch, scratch))
        for scratch in cases.SCRATCH
    ]
    return measured(timed, asked.dry)


def measured(timed: Iterable[tuple[str, Callable[[], Any]]], dry: bool) -> list[Case]:
    """Cases of what gives a speed."""

    def case(run: Callable[[], Any]) -> Found:
        found = run()
        line = f"{found}{'  (not real)' if dry else ''}"
        return Found(line, {"real": not dry, **found._asdict()}, found.right)

    return [(what, partial(case, run)) for what, run in timed]


def layers(asked: Asked) -> list[Case]:
    """The card's peak, and the layers of a net beside it, in every precision."""
    import gpu_checks as checks

    return [(f"layers in {p}", partial(_layered, p, asked.dry)) for p in checks.precisions()]


def _layered(precision: str, dry: bool) -> Found:
    import gpu_cases as cases
    import gpu_speed as speed

    import netdsl
    from netdsl.net import Net

    net = Net.load(text=cases.TINY_NET) if dry else netdsl.load(cases.LAYERED)
    batch = 2 if dry else cases.LAYERED_BATCH
    top, whole, timings = speed.layers(net, batch, precision)
    for t in timings:
        share = f"{2 * t.macs / t.least_ms / 1e6 / top:7.1%}" if t.macs else ""
        print(f"    {t.name:24} {t.least_ms:9.4f} ms {share}", flush=True)
    words = f"peak {precision} {top:,.0f} GFLOP/s; {net.name}, batch {batch}: {whole:.0%}"
    row = {"real": not dry, "precision": precision, "peak": top, "share": whole}
    row["layers"] = {t.name: t.least_ms for t in timings}
    return Found(f"{words} of it{'  (not real)' if dry else ''}", row)


def passes(asked: Asked) -> list[Case]:
    """Passes over memory beside a copy."""
    import gpu_cases as cases
    import gpu_speed as speed

    batch = 2 if asked.dry else 64
    texts = cases.TINY_PASSES if asked.dry else cases.PASSES
    return measured(((t, partial(speed.passed, t, batch)) for t in texts), asked.dry)


def train(asked: Asked) -> list[Case]:
    """Training steps in every precision."""
    import gpu_cases as cases
    import gpu_checks as checks
    import gpu_speed as speed

    import netdsl
    from netdsl.net import Net

    found = [(Net.load(text=cases.TINY_NET), 2)]
    if not asked.dry:
        found = [(netdsl.load(name), batch) for name, batch in cases.TRAINED]
    timed = [
        (f"{net.name} trains in {p}", partial(speed.trained, net, batch, p))
        for net, batch in found
        for p in checks.precisions()
    ]
    return measured(timed, asked.dry)


PARTS: dict[str, Callable[[Asked], list[Case]]] = {
    "versions": versions,
    "compile": kept,
    "ops": ops,
    "nets": nets,
    "layers": layers,
    "passes": passes,
    "train": train,
}


def serve(part: str, first: int, seed: int, until: float, rows: Path, *, dry: bool) -> int:
    """Goes through a part's cases, writing down what each comes to. Gives the exit status."""
    with rows.open("a", encoding="utf-8") as file:

        def tell(**told: Any) -> None:
            file.write(json.dumps({"part": part, **told}) + "\n")
            file.flush()

        def take(what: str, found: Found) -> None:
            print(found.line, flush=True)
            said = {"line": found.line, "right": found.right, "listed": found.listed}
            tell(**{**found.row, "name": what, **said})

        cases = PARTS[part](Asked(dry, seed))
        for i, (what, run) in enumerate(cases[first:], first):
            if time.time() > until:
                line = f"{part}: no time for {len(cases) - i} more, from {what} on"
                take(part, Found(line, {"left": len(cases) - i}))
                return 0
            tell(case=i, begins=what)
            try:
                take(what, run())
            except Exception as problem:
                said = " ".join(str(problem).split()) or type(problem).__name__
                take(what, Found(f"FAILED  {what}: {said[:300]}", {}, right=False))
                traceback.print_exc(limit=-3, file=sys.stdout)
                if not answers():
                    return LOST
    return 0


def answers() -> bool:
    """Whether the card still does."""
    from netdsl.cuda import launch

    try:
        launch.wait()
    except Exception:
        return False
    return True


def share(which: str) -> int:
    """Compiles a share of all kernels into the cache."""
    import registry

    found = registry.kernels()
    from netdsl.cuda import launch

    part, parts = map(int, which.split("/"))
    for kernel in found[part::parts]:
        try:
            launch.prepare([kernel])
        except Exception as problem:
            print(f"FAILED  to compile {registry.home(kernel)}: {problem}", flush=True)
    return 0


def cpu(which: str) -> int:
    """A step on the CPU, which compiles what it takes."""
    import gpu_cases as cases
    import gpu_checks as checks

    text, batch, given, kind = cases.STEPS[int(which)]
    checks.ran_back(text, batch, device="cpu", kind=kind, **given)
    return 0


def small() -> int:
    """What the sanitizer looks at: small shapes forward and backward."""
    import gpu_cases as cases
    import gpu_checks as checks

    for precision in reversed(checks.precisions()):
        more = (*cases.TINY_FORWARD, *cases.SMALL_WINOGRAD) if precision == "fp32" else ()
        for text in (*cases.SMALL_ROUNDED, *more):
            checks.ran(text, 2, precision)
            print(f"small: {precision} {text}", flush=True)
    for text in cases.TINY_BACKWARD:
        checks.ran_back(text, 2)
        print(f"small: back {text}", flush=True)
    for precision in checks.precisions():
        for text in cases.TINY_ROUNDED:
            checks.ran_back(text, 17, precision=precision)
            print(f"small: back {precision} {text}", flush=True)
    return 0


def simulate() -> None:
    """Has Numba simulate a card. To be called before Numba is imported."""
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
    import simulated

    simulated.poisonous()
    import gpu_speed

    gpu_speed.ROUNDS = gpu_speed.REPEATS = 1


def main() -> int:
    sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests" / "cuda")]
    part, *words = sys.argv[1:]
    if part in ("share", "cpu"):
        return {"share": share, "cpu": cpu}[part](words[0])
    if part == "small":
        return small()
    first, seed, until, rows, *dry = words
    if dry:
        simulate()
    return serve(part, int(first), int(seed), float(until), Path(rows), dry=bool(dry))


if __name__ == "__main__":
    sys.exit(main())
