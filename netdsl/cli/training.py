"""How `netdsl train` goes: data, a trainer, a display, and what is said at the end."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console

from netdsl.cli.learning import Curves, Display, Metrics
from netdsl.cli.progress import bar
from netdsl.cli.texts import wanted
from netdsl.cuda import devices
from netdsl.faults import error
from netdsl.formats.atomic import called, check_place
from netdsl.net import Net
from netdsl.train import Callback, Data, Examples, Settings, Trainer, open_data
from netdsl.train.checkpoint import Checkpoint, read_checkpoint
from netdsl.train.engine import on_card
from netdsl.train.loop import Result, checkpoint_of
from netdsl.train.settings import PLACE

INTERRUPTED = 130


@dataclass(frozen=True)
class Request:
    """The flags of `netdsl train`. `given`: the settings that were set, by name."""

    given: dict[str, Any]
    data: str | None
    weights: Path | None
    out: Path | None
    save_every: int | None
    resume: bool
    metrics: Path | None
    curves: Path | None
    broken: str
    overfit: int | None
    check_gradients: bool


def start(net: Net, request: Request) -> None:
    """Trains a net as asked. Raises NetError."""
    # Threads that spin while they wait save some microseconds a kernel; but training goes on for
    # long, and where another program wants the cores they slow it many times over. OpenMP reads
    # this when it is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    say = Console(highlight=False, soft_wrap=True)
    if request.check_gradients:
        _check(net, request, say)
        return
    out = request.out or called(net.name, ".safetensors")
    _check_flags(request)
    _check_places(out, request)
    found = read_checkpoint(checkpoint_of(out), net.graph) if request.resume else None
    settings = _settings(request, found)
    card = on_card(settings.device, settings.precision)
    data = open_data(wanted(request.data), request.broken)
    train, validation, held_back = _parts(data, settings, request.overfit)
    _announce(say, net, train, validation, data)
    if card:
        say.print(f"on {', '.join(devices()[:1]) or 'a simulated card'}")
    with bar(f"making {net.name} ready") as compiling:
        trainer = Trainer(
            net.graph,
            settings,
            train,
            validation,
            weights=_first(net, request),
            out=out,
            save_every=request.save_every,
            keep_best=held_back,
            progress=compiling.to,
        )
    if found is not None:
        trainer.take(found, checkpoint_of(out))
        say.print(f"going on after epoch {trainer.at.epoch}, step {trainer.at.step}")
    told: list[Callback] = [Display(say, settings.epochs, sys.stdout.isatty())]
    told += [Metrics(request.metrics, trainer.history)] if request.metrics else []
    told += [Curves(request.curves, trainer.history)] if request.curves else []
    try:
        result = trainer.run(told)
    finally:
        told[0].close()  # type: ignore[attr-defined]
    _conclude(say, result, trainer, out, request)


def _check_flags(request: Request) -> None:
    if request.broken not in ("stop", "skip"):
        raise error("wrong-value", f"--broken is stop or skip, not {request.broken}")
    for name, number in (("--save-every", request.save_every), ("--overfit", request.overfit)):
        if number is not None and number < 1:
            raise error("out-of-range", f"{name} is {number}, it must be at least 1")
    if request.metrics is not None and request.metrics.suffix not in (".csv", ".jsonl"):
        raise error("wrong-ending", f"{request.metrics}: metrics go to a .csv or .jsonl file")
    if request.curves is not None:
        Curves.check(request.curves)
    if request.resume and request.weights is not None:
        raise error("two-weights", "--resume has its own weights: leave --weights out")


def _check_places(out: Path, request: Request) -> None:
    """That all that is to be written can be, before hours go by."""
    check_place(out)
    if out == checkpoint_of(out):
        raise error(
            "wrong-ending",
            f"{out} is where checkpoints go, weights need another name",
            help=f"--out {out.with_suffix('.safetensors')}",
        )
    for file in (checkpoint_of(out), request.metrics, request.curves):
        if file is not None:
            check_place(file)


def _settings(request: Request, found: Checkpoint | None) -> Settings:
    """What was asked for, or what the checkpoint was made with."""
    if found is None:
        settings = Settings(**request.given)
        if request.overfit is not None:
            settings = _overfitting(settings, request)
        settings.check()
        return settings
    own = {name: request.given[name] for name in PLACE if name in request.given}
    kept = Settings.from_dict(found.facts["settings"], **own)
    kept.check()
    for name, value in request.given.items():
        if getattr(kept, name) != value:
            raise error(
                "wrong-setting",
                f"the checkpoint trains with {name} {getattr(kept, name)}, not {value}",
                help="--resume takes all settings from the checkpoint",
            )
    return kept


def _overfitting(settings: Settings, request: Request) -> Settings:
    """A batch that fits, nothing that hinders learning by heart."""
    assert request.overfit is not None
    batch = min(settings.batch, request.overfit)
    epochs = settings.epochs if "epochs" in request.given else 100
    return replace(settings, batch=batch, epochs=epochs, decay=0.0, augment="", validation=0.0)


def _parts(
    data: Data, settings: Settings, overfit: int | None
) -> tuple[Examples, Examples | None, bool]:
    """What to train on, what to try on, and whether that was held back from training."""
    train = data.train
    if overfit is not None:
        if overfit > len(train):
            raise error(
                "too-few-examples", f"--overfit {overfit}: {train.name} has {len(train):,} examples"
            )
        rng = np.random.default_rng(settings.seed)
        return train.take(rng.permutation(len(train))[:overfit]), None, False
    if settings.validation:
        kept, held = train.split(settings.validation, settings.seed)
        return kept, held, True
    return train, data.test, False


def _first(net: Net, request: Request) -> Any:
    if request.weights is None:
        return None
    net.load_weights(request.weights)
    return net.weights


def _announce(
    say: Console, net: Net, train: Examples, validation: Examples | None, data: Data
) -> None:
    for note in data.notes:
        say.print(note, style="yellow")
    tried = f", tried on {len(validation):,}" if validation is not None else ""
    say.print(f"{net.name} on {len(train):,} examples of {train.name}{tried}")
    balance = train.balance()
    if not balance:
        return
    least, most = min(balance, key=balance.__getitem__), max(balance, key=balance.__getitem__)
    say.print(
        f"{len(balance)} classes, from {balance[least]:,} ({least}) to {balance[most]:,} ({most})"
    )
    if balance[most] > 10 * max(balance[least], 1):
        say.print("the classes are far from even: accuracy will tell little", style="yellow")


def _conclude(say: Console, result: Result, trainer: Trainer, out: Path, request: Request) -> None:
    if result.reason == "interrupted":
        say.print(
            f"stopped in epoch {trainer.at.epoch + 1} after step {trainer.at.step}; saved in "
            f"{trainer.checkpoint_path}"
        )
        say.print("the same command with --resume goes on from there")
        raise typer.Exit(INTERRUPTED)
    if result.reason == "stopped early":
        say.print(
            f"no better validation for {trainer.settings.patience} epochs: stopped after epoch "
            f"{len(result.history)}"
        )
    say.print(f"weights in {out}")
    if request.overfit is not None:
        _judge_overfit(say, result)


def _judge_overfit(say: Console, result: Result) -> None:
    accuracy = result.history[-1].accuracy
    if accuracy is not None and accuracy < 1.0:
        say.print(
            f"{accuracy:.1%} of a handful of examples: a net that learns gets 100%, so look at the "
            "rate, the labels and the first layers",
            style="yellow",
        )


def _check(net: Net, request: Request, say: Console) -> None:
    """The gradient check: a line a parameter."""
    from netdsl.train.central import check_gradients
    from netdsl.train.initial import first_weights

    settings = Settings(**request.given)
    if settings.precision != "fp32":
        said = f"--check-gradients is of exact products, {settings.precision} rounds their factors"
        raise error("two-precisions", said)
    settings.check()
    weights = _first(net, request) or first_weights(net.graph, settings.init, settings.seed)
    batch = settings.batch if "batch" in request.given else 2
    found = check_gradients(net.graph, weights, replace(settings, batch=batch))
    wide = max((len(one.name) for one in found), default=9)
    for one in found:
        mark = "" if one.apart < 1e-2 else "   <- apart"
        say.print(
            f"{one.name:{wide}}  {one.ours:+.6e}  {one.differences:+.6e}  {one.apart:.1e}{mark}"
        )
    worst = max(found, key=lambda one: one.apart, default=None)
    if worst is not None and worst.apart >= 1e-2:
        raise error(
            "wrong-gradient",
            f"the gradient of {worst.name} is {worst.apart:.1%} from what differences say",
        )
    say.print(f"{len(found)} gradients agree with central differences")
