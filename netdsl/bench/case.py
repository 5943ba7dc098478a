"""What every engine is given: a net with its weights, a batch of inputs, a number of threads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netdsl.formats.atomic import called
from netdsl.graph import Graph
from netdsl.net import Net
from netdsl.runner import Runner

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """One thing to time.

    folder: where files for other engines may be written; it is there while they load.
    precision: what factors are rounded to. device: "cpu" or "cuda". fc_weights: what we keep the
    weights of fully connected layers in; other engines do as the precision says.
    """

    net: Net
    batch: int
    threads: int
    folder: Path
    precision: str = "fp32"
    device: str = "cpu"
    fc_weights: str | None = None

    def runner(self) -> Runner:
        """Our engine made ready for it. Threads are the processor's."""
        return self.net.runner(
            self.batch,
            device=self.device,
            threads=self.threads if self.device == "cpu" else None,
            precision=self.precision,
            fc_weights=self.fc_weights,
        )

    @cached_property
    def graph(self) -> Graph:
        """The net without its auxiliary heads."""
        return self.net.graph.without_aux()

    @property
    def weights(self) -> Mapping[str, Floats]:
        return self.net.weights

    @cached_property
    def inputs(self) -> dict[str, Floats]:
        """Seeded noise, (batch, *shape) for each input by name."""
        random = np.random.default_rng(0)
        return {
            name: random.standard_normal((self.batch, *shape), np.float32)
            for name, shape in self.net.inputs.items()
        }

    @cached_property
    def onnx(self) -> Path:
        """The net as an ONNX file, written when first asked for. Raises NetError."""
        from netdsl.formats.onnx import write_onnx

        path = self.folder / called(self.net.name, ".onnx")
        if not path.exists():
            write_onnx(self.graph, self.weights, path)
        return path
