"""`netdsl train`: from a .net file and data to weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from netdsl.cli.texts import net_and_data

Count = Optional[int]  # noqa: UP045
Number = Optional[float]  # noqa: UP045
Name = Optional[str]  # noqa: UP045
File = Optional[Path]  # noqa: UP045


def train(
    net: Annotated[
        Name, typer.Argument(metavar="NET", help="A zoo name, or a path to a .net file.")
    ] = None,
    data: Annotated[
        Name,
        typer.Argument(
            metavar="DATA",
            help="A folder (idx files, CIFAR's binary files, or pictures in class folders), a "
            ".npz file, or mnist or fashion_mnist.",
        ),
    ] = None,
    text: Annotated[
        Name, typer.Option("-e", metavar="TEXT", help="The net as text; the argument is DATA then.")
    ] = None,
    epochs: Annotated[Count, typer.Option(help="Times through the data. Default: 10.")] = None,
    batch: Annotated[Count, typer.Option(help="Examples a step. Default: 64.")] = None,
    optimiser: Annotated[
        Name,
        typer.Option(
            help="sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw. Default: momentum."
        ),
    ] = None,
    rate: Annotated[
        Number, typer.Option(help="Learning rate. Default: what suits the optimiser.")
    ] = None,
    momentum: Annotated[
        Number, typer.Option(help="How much of the last step stays. Default: 0.9.")
    ] = None,
    decay: Annotated[
        Number, typer.Option(help="Weight decay, not of norms and biases. Default: 0.0005.")
    ] = None,
    decay_all: Annotated[
        bool, typer.Option("--decay-all", help="Of norms and biases too.")
    ] = False,
    clip: Annotated[Number, typer.Option(help="The gradient's largest norm.")] = None,
    schedule: Annotated[
        Name,
        typer.Option(help="constant, step, cosine, linear or rsqrt. Default: cosine."),
    ] = None,
    warmup: Annotated[Count, typer.Option(help="Steps in which the rate climbs.")] = None,
    loss: Annotated[
        Name, typer.Option(help="cross_entropy, hinge, mse or bce. Default: cross_entropy.")
    ] = None,
    smoothing: Annotated[Number, typer.Option(help="Label smoothing of cross_entropy.")] = None,
    augment: Annotated[
        Name,
        typer.Option(
            help="As in crop=4,flip,jitter=0.2,scale=0.08,resize=1.14,lighting=0.1; or alexnet, "
            "cifar, digits, imagenet."
        ),
    ] = None,
    validation: Annotated[
        Number, typer.Option(help="Share of the training data held back to choose by.")
    ] = None,
    patience: Annotated[
        Count, typer.Option(help="Epochs without a better validation before stopping.")
    ] = None,
    init: Annotated[Name, typer.Option(help="he, xavier or normal. Default: he.")] = None,
    weights: Annotated[File, typer.Option(help="Weights to begin with, safetensors.")] = None,
    seed: Annotated[Count, typer.Option(help="Decides everything that is drawn.")] = None,
    threads: Annotated[Count, typer.Option(help="Threads. Default: one a core.")] = None,
    device: Annotated[
        Name, typer.Option(help="cpu, cuda, or auto: cuda where there is a card. Default: cpu.")
    ] = None,
    precision: Annotated[
        Name,
        typer.Option(help="What a card rounds factors to: fp32, tf32 or bf16. Default: fp32."),
    ] = None,
    out: Annotated[
        File, typer.Option(help="Where the weights go. Default: NET.safetensors here.")
    ] = None,
    save_every: Annotated[
        Count, typer.Option(help="Steps between checkpoints, besides each epoch's end.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint beside --out.")
    ] = False,
    metrics: Annotated[File, typer.Option(help="A row an epoch: a .csv or .jsonl file.")] = None,
    curves: Annotated[
        File, typer.Option(help="Loss and accuracy as a picture: .png, .svg or .pdf.")
    ] = None,
    broken: Annotated[
        str, typer.Option(help="Pictures that cannot be decoded: stop, or skip them.")
    ] = "stop",
    overfit: Annotated[
        Count,
        typer.Option(metavar="N", help="Debugging: N examples alone, which any net should learn."),
    ] = None,
    check_gradients: Annotated[
        bool,
        typer.Option("--check-gradients", help="Debugging: gradients against differences."),
    ] = False,
) -> None:
    """Train a net on data."""
    from netdsl.cli.training import Request, start
    from netdsl.net import Net

    name, where = net_and_data(net, data, text)
    given: dict[str, Any] = {
        "epochs": epochs,
        "batch": batch,
        "optimiser": optimiser,
        "rate": rate,
        "momentum": momentum,
        "decay": decay,
        "decay_all": decay_all or None,
        "clip": clip,
        "schedule": schedule,
        "warmup": warmup,
        "loss": loss,
        "smoothing": smoothing,
        "augment": augment,
        "validation": validation,
        "patience": patience,
        "init": init,
        "seed": seed,
        "threads": threads,
        "device": device,
        "precision": precision,
    }
    request = Request(
        {key: value for key, value in given.items() if value is not None},
        where,
        weights,
        out,
        save_every,
        resume,
        metrics,
        curves,
        broken,
        overfit,
        check_gradients,
    )
    start(Net.load(name, text=text), request)
