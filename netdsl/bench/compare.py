"""One net on several engines: first whether they agree, then how long they take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from netdsl.bench.case import Case
from netdsl.bench.choose import ours
from netdsl.bench.engine import Engine, Run, Unfit
from netdsl.bench.peers import OURS
from netdsl.bench.quiet import Watch
from netdsl.bench.rounds import ROUNDS, Times, rounds
from netdsl.bench.truth import TOLERANCE, error_of, truth
from netdsl.faults import error
from netdsl.net import Net
from netdsl.runner import Profiled, check_fc_weights, check_precision

if TYPE_CHECKING:
    from netdsl.graph.timing import Timing

LAYER_REPEATS = 15

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One engine's result. ratio: its least time over ours; max_error: see `truth.error_of`;
    precision: what factors are rounded to; fc_weights: what we keep the weights of fully connected
    layers in, where that is not as the precision says."""

    net: str
    batch: int
    threads: int
    engine: str
    min_ms: float
    median_ms: float
    ratio: float
    max_error: float
    precision: str = "fp32"
    device: str = "cpu"
    fc_weights: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """The rows of a net and batch, ours first.

    left_out: why engines are missing. layers: our layers' times, where they were asked for.
    against: a sentence on what errors are of, where it is not of double precision. busy: the share
    of the cores that others took meanwhile, where it is known.
    """

    rows: tuple[Row, ...]
    left_out: dict[str, str]
    layers: tuple[Timing, ...] = ()
    against: str = ""
    busy: float | None = None


def compare(
    net: Net,
    engines: Sequence[type[Engine]],
    *,
    batch: int = 1,
    threads: int | None = None,
    count: int = ROUNDS,
    layers: bool = False,
    cpu_time: bool = False,
    patience: float = 0.0,
    precision: str = "fp32",
    device: str = "cpu",
    fc_weights: str | None = None,
    tell: Tell = lambda what: None,
) -> Comparison:
    """Runs a net on our engine and others.

    threads: all that there are unless given. count: rounds. cpu_time: the processor's time counts,
    which others' work hardly stretches; for one thread only, since waiting threads use it too.
    patience: seconds to wait in all for others to be done. precision: what factors are rounded to.
    device: "cpu", or "cuda" for an NVIDIA card. fc_weights: what we, and nobody else, keep the
    weights of fully connected layers in. tell: told what is being done.

    Raises NetError where our engine does not know the precision or its outputs are wrong; another
    engine's wrong outputs, or one that cannot run the net, only leave it out.
    """
    from netdsl.cpu.plan import thread_count

    if batch < 1:
        raise error("out-of-range", f"batch is {batch}, it must be at least 1")
    check_precision(precision, device, exact=False)
    check_fc_weights(fc_weights, device, exact=False)
    check_device(device, threads, cpu_time)
    used = thread_count(threads)
    if cpu_time and used != 1:
        raise error(
            "not-one-thread",
            f"the processor's time of {used} threads counts their waiting too",
            help="give --threads 1 as well",
        )
    with TemporaryDirectory(prefix="netdsl-bench-") as folder:
        case = Case(net, batch, used, Path(folder), precision, device, fc_weights)
        runs, left_out = _loaded(case, [ours(device), *engines], tell)
    tell("comparing outputs")
    errors, exact = _errors(case, runs, left_out)
    fit = {name: run for name, run in runs.items() if name in errors}
    watch, clock = Watch(patience), process_time if cpu_time else perf_counter
    done = iter(range(1, count + 1))
    tell(f"round 1 of {count}")

    def advance() -> None:
        tell(f"round {min(next(done) + 1, count)} of {count}")

    times = rounds(fit, count, watch, clock=clock, advance=advance)
    timings = _layers(case) if layers else ()
    against = "" if exact else "Errors are against the first engine after ours."
    return Comparison(_rows(case, times, errors), left_out, timings, against, watch.busy)


def check_device(device: str, threads: int | None, cpu_time: bool) -> None:
    """That nothing is asked of a card that only a processor has. Raises NetError."""
    asked = {"threads": threads is not None, "cpu-time": cpu_time}
    if device != "cpu" and any(asked.values()):
        flag = next(name for name, given in asked.items() if given)
        raise error("two-views", f"--{flag} is for the cpu, not for {device}")


def _loaded(
    case: Case, engines: Sequence[type[Engine]], tell: Tell
) -> tuple[dict[str, Run], dict[str, str]]:
    """Every engine's run, and why there is none."""
    runs, left_out = {}, {}
    for engine in engines:
        tell(f"loading {engine.name}")
        try:
            runs[engine.name] = engine.ready(case)
        except Unfit as reason:
            left_out[engine.name] = str(reason)
    return runs, left_out


def _errors(
    case: Case, runs: dict[str, Run], left_out: dict[str, str]
) -> tuple[dict[str, float], bool]:
    """Each engine's error; those that are wrong move to `left_out`. Whether against the truth."""
    outputs = {name: run() for name, run in runs.items()}
    exact = truth(case)
    # Without the truth the first peer stands for it; if that one errs, all but it seem to.
    against = exact or next((o for name, o in outputs.items() if name != OURS.name), None)
    if against is None:
        return {OURS.name: 0.0}, False
    errors = {name: error_of(found, against) for name, found in outputs.items()}
    tolerance = TOLERANCE[case.precision]
    if errors[OURS.name] > max(tolerance, TOLERANCE[case.fc_weights or case.precision]):
        other = "double precision" if exact else next(n for n in outputs if n != OURS.name)
        raise error(
            "wrong-outputs",
            f"{case.net.name}: our outputs differ from those of {other} by "
            f"{errors[OURS.name]:.1e} of the largest value; nothing was timed",
        )
    for name in [name for name, found in errors.items() if found > tolerance]:
        left_out[name] = f"its outputs are off by {errors.pop(name):.1e} of the largest value"
    return errors, exact is not None


def _layers(case: Case) -> tuple[Timing, ...]:
    plan = case.runner().plan
    assert isinstance(plan, Profiled)
    return tuple(plan.profile(case.inputs, LAYER_REPEATS))


def _rows(case: Case, times: dict[str, Times], errors: dict[str, float]) -> tuple[Row, ...]:
    least = times[OURS.name].least
    return tuple(
        Row(
            case.net.name,
            case.batch,
            case.threads,
            name,
            figures(found.least),
            figures(found.middle),
            figures(found.least / least),
            figures(errors[name]),
            case.precision,
            case.device,
            case.fc_weights if name == OURS.name else None,
        )
        for name, found in times.items()
    )


def figures(value: float) -> float:
    """To five figures: more say nothing."""
    return float(f"{value:.5g}")
