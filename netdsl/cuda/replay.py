"""A list of launches that is run again and again: first one by one, then as one CUDA graph.

A launch costs the processor some microseconds, and a net has a hundred. Recorded once as a graph,
all of them start with one call. Where there is no graph to be had (in the simulator, with another
numba-cuda or cuda-core) they go on one by one, and `note` says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from netdsl.cuda import launch
from netdsl.cuda.layout import Call
from netdsl.cuda.sizes import SIMULATED

Launch = tuple[Any, np.int32]
"""A configured kernel, and where its descriptor begins."""


class Replay:
    """The launches of `calls` on a stream, in order, with the same arguments each time.

    arguments: what every kernel takes before the place of its descriptor. They are kept alive, as
    a graph does not. note: why there is no graph; empty until one was tried, or where there is.
    """

    def __init__(self, calls: Sequence[Call], arguments: tuple[Any, ...], stream: Any) -> None:
        self.calls, self.arguments, self.stream = tuple(calls), arguments, stream
        self.note = ""
        self._ready: tuple[Launch, ...] | None = None
        self._graph: Any = None

    @property
    def recorded(self) -> bool:
        """Whether the launches are a graph by now."""
        return self._graph is not None

    def start(self) -> None:
        """Starts all of them, without waiting for the end.

        The first time goes one by one: it loads the kernels, and many plans run only once.
        """
        if self._ready is None:
            self._ready = self._configured(self.stream)
        elif self._graph is None and not self.note:
            self._record()
        if self._graph is not None:
            self._graph.launch(self._core_stream)
        else:
            self.one_by_one(self._ready)

    def one_by_one(self, launches: Sequence[Launch]) -> None:
        """Starts each of these."""
        for kernel, at in launches:
            kernel(*self.arguments, at)

    def _configured(self, stream: Any) -> tuple[Launch, ...]:
        return tuple((launch.configured(call, stream), np.int32(call.at)) for call in self.calls)

    def _record(self) -> None:
        if SIMULATED:
            self.note = "the simulator has no CUDA graphs"
            return
        try:
            self._graph = self._captured()
        except Exception as problem:
            # Nothing depends on a graph; if the card itself has failed, the next launch says so.
            said = " ".join(str(problem).split()) or type(problem).__name__
            self.note = f"no CUDA graph, kernels are launched one by one: {said}"

    def _captured(self) -> Any:
        """The launches as a graph that is ready to run."""
        from cuda.core import Device, Stream
        from numba import cuda

        device = Device(int(cuda.get_current_device().id))
        device.set_current()
        builder = device.create_graph_builder()
        builder.begin_building()
        try:
            self.one_by_one(self._configured(builder))
        finally:
            builder.end_building()
        graph = builder.complete()
        self._core_stream = Stream.from_handle(int(self.stream.handle))
        return graph
