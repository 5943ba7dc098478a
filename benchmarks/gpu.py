"""The CUDA engine on a card, beside PyTorch with cuDNN: right on every op, and how fast.

    python benchmarks/gpu.py [--parts ops,nets] [--seconds N] [--json FILE]
    python benchmarks/gpu.py --dry-run

Says versions and card; compiles all kernels, on every core; compares every op forward and backward
with PyTorch in double precision, on inputs drawn anew, and whole training steps with the CPU's;
times whole nets, layers beside the card's peak, passes over memory beside a copy, and training;
runs compute-sanitizer on small shapes where there is one; and ends with the table. It takes less
than eight minutes: what there is no time for is named.

Each part is a process of its own. A case that fails is printed, and the next goes on; so it does in
a new process where a case has lost the card, ended the process, or did not end. --json FILE gets a
line for each case as it begins and one for what came out, so that what was found is there whatever
happens. Ends with status 2 where there is no card, 1 where something was wrong.

--dry-run does all of it on tiny shapes in Numba's simulator, to see that the script itself works;
no number that it prints is real.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent / "tests" / "cuda"

BUDGET = 450.0
"""Seconds for all. A part ends by its share of them, counted from the start."""

ENDS = {
    "versions": 0.05,
    "compile": 0.15,
    "ops": 0.4,
    "nets": 0.69,
    "layers": 0.73,
    "passes": 0.78,
    "train": 0.87,
    "sanitizer": 1.0,
}
"""The parts in their order, and by when each ends."""

PATIENCE = 75.0
"""Seconds in which a case must end: a kernel whose threads wait for each other never does."""

GRACE = 15.0
"""Seconds that the last case of a part may take longer than the part."""

SANITIZERS = {
    # Libraries ask the driver for what it may not have, which is no error of ours.
    "memcheck": ["--report-api-errors", "no"],
    "racecheck": [],
    "synccheck": [],
}
"""The tools, and what each is told besides."""

SAID = re.compile(r"========= +(?:Invalid|Misaligned|Barrier|Error|.*hazard)")
"""How they begin to tell of an error."""

DRY = "DRY RUN in Numba's simulator: no number here is real."


@dataclass
class Report:
    """What was found so far. rows: the file that parts write what they find to."""

    dry: bool
    seed: int
    budget: float
    rows: Path
    began: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    counts: dict[str, list[bool]] = field(default_factory=dict)
    seen: int = 0

    def time_left(self, part: str) -> float:
        """Seconds until the part's end."""
        return self.budget * ENDS[part] - (time.monotonic() - self.began)

    def say(self, line: str) -> None:
        """A line for now and for the table."""
        self.lines.append(line)
        print(line, flush=True)

    def news(self) -> list[dict[str, Any]]:
        """What was written since, of whole lines."""
        with self.rows.open("rb") as file:
            file.seek(self.seen)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self.seen += len(text)
        return [json.loads(line) for line in text.splitlines()]

    def take(self, found: dict[str, Any]) -> None:
        """What a case came to, which its process has printed."""
        if "left" not in found:
            self.counts.setdefault(found["part"], []).append(found["right"])
        if found["listed"]:
            self.lines.append(found["line"])
        if not found["right"]:
            self.wrong.append(found["name"])

    def fail(self, what: str, line: str) -> None:
        """What went wrong with the process of a case."""
        self.wrong.append(what)
        self.say(f"FAILED  {what}: {line}")


def attend(report: Report, part: str) -> None:
    """All cases of a part, in as many processes as it takes."""
    first: int | None = 0
    while first is not None:
        first = attended(report, part, first)
    if part == "ops":
        found = report.counts.get(part, [])
        report.say(f"{sum(found)} of {len(found)} checks right")


def attended(report: Report, part: str, first: int) -> int | None:
    """A process for the cases from `first` on: where the next one should go on, if at all."""
    command = [sys.executable, str(HERE / "gpu_parts.py"), part, str(first), str(report.seed)]
    command += [str(time.time() + report.time_left(part)), str(report.rows)]
    process = subprocess.Popen([*command, *(["--dry"] if report.dry else [])])
    at, what, heard = first - 1, f"the start of {part}", time.monotonic()
    while True:
        ended = process.poll() is not None
        for found in report.news():
            heard = time.monotonic()
            if "begins" in found:
                at, what = found["case"], found["begins"]
            else:
                report.take(found)
        late = report.time_left(part) < -GRACE
        hangs = time.monotonic() - heard > PATIENCE * (20 if report.dry else 1)
        if ended or late or hangs:
            break
        time.sleep(0.05)
    if not ended:
        process.kill()
        with suppress(subprocess.TimeoutExpired):  # one that waits for the driver does not even die
            process.wait(20)
    from gpu_parts import LOST

    if process.returncode == 0:
        return None
    if not ended and hangs:
        report.fail(what, f"did not end within {PATIENCE:.0f} s")
    elif not ended:
        report.say(f"{part}: no time to end {what}")
    elif process.returncode != LOST:
        report.fail(what, f"its process ended with status {process.returncode}")
    more = at >= first and report.time_left(part) > 0
    return at + 1 if more else None


def compile_all(report: Report) -> None:
    """Every kernel into the cache, a share of them by each of some processes, and the CPU's for the
    steps that ours are compared with; then all of the card's out of the cache again."""
    if report.dry:
        return
    from gpu_cases import STEPS

    count = max(1, min(16, os.cpu_count() or 1))
    wanted = [("share", f"{i}/{count}") for i in range(count)]
    wanted += [("cpu", str(i)) for i in range(len(STEPS))]
    script = [sys.executable, str(HERE / "gpu_parts.py")]
    running = [subprocess.Popen([*script, *words]) for words in wanted]
    for process in running:
        try:
            process.wait(max(report.time_left("compile"), 1))
        except subprocess.TimeoutExpired:
            process.kill()
    spent = time.monotonic() - report.began
    report.say(f"kernels compiled by {len(running)} processes, {spent:.0f} s after the start")
    attend(report, "compile")


def sanitize(report: Report) -> None:
    """compute-sanitizer's tools over small shapes, side by side, where they are installed."""
    tool = shutil.which("compute-sanitizer", path=f"{os.environ.get('PATH')}:/usr/local/cuda/bin")
    if tool is None or report.dry:
        report.say("compute-sanitizer is not here")
        return
    with tempfile.TemporaryDirectory() as folder:
        running = {}
        for kind, more in SANITIZERS.items():
            command = [tool, "--tool", kind, "--error-exitcode", "9", *more]
            command += [sys.executable, str(HERE / "gpu_parts.py"), "small"]
            log = Path(folder) / kind
            with log.open("wb") as out:
                running[kind] = (
                    log,
                    subprocess.Popen(
                        command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
                    ),
                )
        for kind, (log, process) in running.items():
            how = "no time for more"
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(max(report.time_left("sanitizer"), 1))
                how = "nothing found" if code == 0 else f"status {code}"
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            text = log.read_text(errors="replace")
            found = SAID.search(text)
            report.say(f"{kind}: {how}, {text.count('small: ')} cases done")
            if found or how.startswith("status"):
                report.wrong.append(kind)
                print(text[found.start() if found else -6000 :][:6000], flush=True)


OWN: dict[str, Callable[[Report], None]] = {"compile": compile_all, "sanitizer": sanitize}
"""Parts that are more than cases of one process."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(ENDS), help="of " + ", ".join(ENDS))
    parser.add_argument("--seconds", type=float, default=BUDGET, help=f"{BUDGET:.0f} unless given")
    parser.add_argument("--json", type=Path, help="a file for all that is found, a line each")
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    parts = args.parts.split(",")
    if not set(parts) <= set(ENDS):
        parser.error(f"parts are {', '.join(ENDS)}")
    sys.path[:0] = [str(HERE), str(HERE.parent), str(TESTS)]
    if args.dry_run:
        os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
    from netdsl import cuda

    fault = cuda.missing()
    if fault is not None:
        print(f"nothing was measured: {fault.message} ({fault.help})", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        rows = args.json or Path(folder) / "rows"
        rows.write_bytes(b"")
        return everything(parts, Report(args.dry_run, time.time_ns() % 2**31, args.seconds, rows))


def everything(parts: list[str], report: Report) -> int:
    if report.dry:
        report.say(DRY)
    for name in ENDS:
        if name in parts or name == "versions":
            print(f"\n{name}", flush=True)
            try:
                OWN.get(name, lambda report, name=name: attend(report, name))(report)
            except Exception as problem:
                report.fail(name, " ".join(str(problem).split()) or type(problem).__name__)
    print("\n" + "\n".join(report.lines))
    print(
        f"\n{time.monotonic() - report.began:.0f} s; wrong: {', '.join(report.wrong) or 'nothing'}"
    )
    if report.dry:
        print(DRY)
    return int(bool(report.wrong))


if __name__ == "__main__":
    sys.exit(main())
