"""What a person sees of training: a live line, a row an epoch, files of numbers, a picture."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic

from rich.console import Console

from netdsl.faults import error
from netdsl.formats.atomic import replacing
from netdsl.train import Callback, EpochReport, StepReport

EVERY = 10.0
"""Seconds between lines where there is no terminal."""
ENDINGS = (".png", ".svg", ".pdf")


class Display(Callback):
    """A bar with loss, accuracy, images/s and time left on a terminal; plain lines elsewhere."""

    def __init__(self, say: Console, epochs: int, live: bool) -> None:
        self._say, self._epochs = say, epochs
        self._last = monotonic()
        self._progress = _progress(say) if live else None
        if self._progress is not None:
            self._task = self._progress.add_task("", total=None, what="")
            self._progress.start()

    def on_step(self, report: StepReport) -> None:
        """Moves the bar; or a line now and then."""
        what = f"loss {report.loss:.4f}{_percent(report.accuracy)}"
        if report.images_per_second:
            left = _clock(report.seconds_left)
            what += f"  {report.images_per_second:,.0f} images/s, {left} left"
        if self._progress is not None:
            self._progress.update(
                self._task,
                description=f"epoch {report.epoch}/{self._epochs}",
                completed=report.step,
                total=report.steps,
                what=what,
            )
        elif monotonic() - self._last > EVERY:
            self._last = monotonic()
            self._print(f"epoch {report.epoch}  step {report.step}/{report.steps}  {what}")

    def on_epoch(self, report: EpochReport) -> None:
        """A line that stays."""
        line = f"epoch {report.epoch}/{self._epochs}  loss {report.loss:.4f}"
        line += _percent(report.accuracy)
        if report.validation_loss is not None:
            line += f"  tried: loss {report.validation_loss:.4f}"
            line += _percent(report.validation_accuracy) + (" *" if report.best else "")
        self._print(f"{line}  {report.seconds:.1f} s")

    def close(self) -> None:
        """Takes the bar off the screen."""
        if self._progress is not None:
            self._progress.stop()

    def _print(self, line: str) -> None:
        to = self._say if self._progress is None else self._progress.console
        to.print(line)
        to.file.flush()


def _progress(say: Console):  # type: ignore[no-untyped-def]
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    what = TextColumn("{task.fields[what]}")
    return Progress(*columns, what, console=say, transient=True)


def _percent(share: float | None) -> str:
    return "" if share is None else f"  {share:.2%} right"


def _clock(seconds: float) -> str:
    whole = int(seconds)
    minutes = f"{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{whole // 3600}:{minutes}" if whole >= 3600 else minutes


class Metrics(Callback):
    """A row an epoch in a .csv or .jsonl file, written anew each time, so it is always whole."""

    def __init__(self, path: Path, before: Sequence[EpochReport] = ()) -> None:
        self._path, self._rows = path, list(before)

    def on_epoch(self, report: EpochReport) -> None:
        """Adds a row."""
        self._rows.append(report)
        rows = [asdict(row) for row in self._rows]
        with replacing(self._path) as file:
            if self._path.suffix == ".jsonl":
                file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
                return
            lines: list[str] = []

            class Lines:
                """What csv writes to."""

                @staticmethod
                def write(text: str) -> int:
                    lines.append(text)
                    return len(text)

            writer = csv.DictWriter(Lines, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            file.write("".join(lines).encode())


class Curves(Callback):
    """Loss and accuracy by epoch as a picture, drawn anew after each."""

    def __init__(self, path: Path, before: Sequence[EpochReport] = ()) -> None:
        self._path, self._rows = path, list(before)

    @staticmethod
    def check(path: Path) -> None:
        """That curves can be drawn there. Raises NetError: an unknown ending, no matplotlib."""
        if path.suffix not in ENDINGS:
            raise error("wrong-ending", f"{path}: curves are {', '.join(ENDINGS)} files")
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            raise error(
                "missing-package",
                "curves need matplotlib",
                help="pip install 'netdsl[plot]'",
            ) from None

    def on_epoch(self, report: EpochReport) -> None:
        """Draws."""
        from matplotlib.figure import Figure

        self._rows.append(report)
        epochs = [row.epoch for row in self._rows]
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        losses, shares = figure.subplots(1, 2)
        losses.plot(epochs, [row.loss for row in self._rows], label="training")
        shares.plot(epochs, [_hundredfold(row.accuracy) for row in self._rows], label="training")
        if report.validation_loss is not None:
            losses.plot(epochs, [row.validation_loss for row in self._rows], label="tried")
            tried = [_hundredfold(row.validation_accuracy) for row in self._rows]
            shares.plot(epochs, tried, label="tried")
        for axes, title in ((losses, "loss"), (shares, "% right")):
            axes.set_xlabel("epoch")
            axes.set_title(title)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
            axes.legend()
        with replacing(self._path) as file:
            figure.savefig(file, format=self._path.suffix[1:], dpi=120)


def _hundredfold(share: float | None) -> float:
    return float("nan") if share is None else 100 * share
