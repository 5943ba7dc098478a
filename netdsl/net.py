"""Net: what a person holds. A graph, its weights, and what can be done with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from netdsl import find
from netdsl.faults import error
from netdsl.graph import Graph
from netdsl.ops import Input, Shape, show
from netdsl.runner import (
    AUTO,
    DEVICES,
    Array,
    Arrays,
    Plan,
    Progress,
    Reference,
    Runner,
    check_fc_weights,
    check_inputs,
    check_precision,
    roomy_batch,
)
from netdsl.scores import Guess, is_classifier, labels_of, probabilities, top

if TYPE_CHECKING:
    from netdsl.cost import Cost
    from netdsl.train.loop import Callback, Result
    from netdsl.train.start import TrainingData

Weights = dict[str, NDArray[np.float32]]

LARGE = 1 << 30
"""Bytes of new weights from which on it is asked whether there is so much memory."""


class Net:
    """A convolutional network.

    graph: its ops and shapes. Weights come from `load_weights`, from a file with the net's stem
    beside its .net file, or from `initialise`; whichever is asked for first.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.trained = False
        """Whether the weights in use were loaded: without, predictions mean nothing."""
        self.weights_source = "none yet"
        """Where the weights in use come from: a file, or "random, seed N"."""
        self._weights: Weights | None = None
        self._seed: int | None = None
        """Of random weights that are not drawn yet."""
        self._runner: tuple[tuple[Any, ...], Runner] | None = None

    @classmethod
    def load(cls, name: str | Path | None = None, *, text: str | None = None) -> Net:
        """A zoo net by name, a file by path, or a net from its text. Raises NetError."""
        if (name is None) == (text is None):
            raise error(
                "no-net" if name is None else "two-nets",
                "no net was given" if name is None else "both a net and a text were given",
                help="a zoo name, a .net file, or a text",
            )
        return cls(find.graph_of(name) if name is not None else find.graph_of_text(text or ""))

    def __repr__(self) -> str:
        shapes = ", ".join(show(shape) for shape in self.inputs.values())
        gives = ", ".join(show(self.graph[name].shape) for name in self.graph.outputs)
        return f"<Net {self.name}: {shapes} -> {gives}>"

    @property
    def name(self) -> str:
        return self.graph.name

    @property
    def inputs(self) -> dict[str, Shape]:
        """The shape of one sample of each input, by name: channels first, no batch axis."""
        return {name: self.graph[name].shape for name in self.graph.inputs}

    def outputs(self, *, aux: bool = False) -> tuple[str, ...]:
        """The names of what `run` returns, the auxiliary heads' last."""
        heads = tuple(head.output for head in self.graph.aux) if aux else ()
        return self.graph.outputs + heads

    def is_classifier(self, output: str) -> bool:
        """Whether an output is a score a class: no spatial axis but of size 1."""
        return is_classifier(self.graph[output].shape)

    @cached_property
    def labels(self) -> tuple[str, ...] | None:
        """The class names, in index order; None for a net without. Raises NetError."""
        return labels_of(self.graph)

    def cost(self) -> Cost:
        """Parameters, multiply-adds, memory and receptive fields, as a whole and by layer."""
        from netdsl.cost import count

        return count(self.graph)

    # Weights

    @property
    def weights(self) -> Weights:
        """The weights by name (`conv1.weight`), float32; loaded or initialised when first asked
        for. Raises NetError when the file beside the net does not fit."""
        if self._weights is None:
            self._weights = dict(self._found())
        return self._weights

    @weights.setter
    def weights(self, values: Mapping[str, Array]) -> None:
        """Takes arrays by the net's own names. Raises NetError where they do not fit."""
        from netdsl.formats.match import match

        pairs = match(self.graph, {n: v.shape for n, v in values.items()}, name="what was given")
        taken = {o: np.ascontiguousarray(values[t], np.float32) for o, t in pairs.names.items()}
        self._take(taken, "arrays", trained=True)

    def _found(self) -> Mapping[str, Array]:
        """The weights; those that nobody has seen yet are drawn only as they are asked for."""
        if self._weights is None and self._seed is None:
            self.find_weights()
        if self._weights is not None:
            return self._weights
        from netdsl.graph.weights import Drawn

        return Drawn(self.graph, self._seed or 0)

    def load_weights(self, path: str | Path) -> None:
        """Reads weights from a file: safetensors, PyTorch's (.pth, .pt), Caffe's (.caffemodel),
        Darknet's (.weights), or "pretrained" for those published for a net of the zoo.

        Tensors go by our names, those of a name map, or others where shapes leave one
        possibility; Darknet's by their order. Raises NetError: no such file, another format,
        broken off, not finite, or of another net, with the first tensor that does not fit and
        what is left over. The old weights stay then.
        """
        from netdsl.formats.weights import load

        weights, source = load(self.graph, path)
        self._take(weights, source, trained=True)

    def find_weights(self, seed: int = 0) -> None:
        """Loads the file with the net's stem beside its .net file (`vgg16.safetensors`), or, where
        there is none, draws random ones. Raises NetError when the file does not fit."""
        beside = self._beside(".safetensors")
        if beside is not None:
            self.load_weights(beside)
        else:
            self.initialise(seed)

    def initialise(self, seed: int = 0) -> None:
        """Draws new weights (He et al. 2015: normal, variance 2 / fan-in; biases 0). The same
        seed gives the same weights."""
        _check_room(self.graph)
        self._take(None, f"random, seed {seed}", trained=False)
        self._seed = seed

    def save(self, path: str | Path) -> None:
        """Writes the weights as a safetensors file by our names, beside and renamed.

        Raises NetError where it cannot be written.
        """
        from netdsl.formats.safetensors import save

        save(Path(path), self.weights, {"net": self.name})

    def _take(self, weights: Weights | None, source: str, *, trained: bool) -> None:
        self._weights, self.weights_source, self.trained = weights, source, trained
        self._seed = None
        self._runner = None

    def _beside(self, ending: str) -> Path | None:
        """The file with the net's stem beside its .net file, where there is one."""
        if self.graph.file is None:
            return None
        path = Path(self.graph.file).with_suffix(ending)
        return path if path.is_file() else None

    @property
    def samples(self) -> Path | None:
        """The file of sample inputs that lies beside the net: arrays `inputs` and, where known,
        `labels`."""
        return self._beside(".samples.npz")

    # Training

    def train(
        self,
        data: TrainingData,
        *,
        validation: TrainingData | None = None,
        out: str | Path | None = None,
        resume: bool = False,
        fresh: bool = False,
        callbacks: Iterable[Callback] = (),
        **settings: Any,
    ) -> Result:
        """Trains the net, which then has the trained weights.

        data: what `netdsl train` takes (a set's name, a folder, a .npz file), an `Examples`, or a
        pair of arrays (inputs, targets): uint8 pictures or float32 tensors (N, *shape), class
        numbers (N,) or floats. validation: the same, or the data's own test part. out: where
        weights and checkpoints go, if anywhere. resume: go on from the checkpoint there. fresh:
        begin from new weights, not from loaded ones. settings: those of `netdsl.train.Settings`, as
        in `net.train("mnist", epochs=5, rate=0.02)`. For a loop of one's own see
        `netdsl.train.Stepper`.

        Raises NetError: data that cannot be read or does not fit, settings out of range, a loss
        that is not finite (the weights stay as they were).
        """
        from netdsl.train.start import make_trainer

        weights = None if fresh or not self.trained else self.weights
        trainer = make_trainer(self.graph, data, validation, settings, weights, out)
        if resume:
            trainer.resume()
        result = trainer.run(callbacks)
        self._take(trainer.stepper.weights(), "trained here", trained=True)
        return result

    # Running

    def run(
        self,
        x: Array | Mapping[str, Array],
        *,
        device: str = "cpu",
        batch: int | None = None,
        threads: int | None = None,
        exact: bool = False,
        precision: str = "fp32",
        fc_weights: str | None = None,
        aux: bool = False,
    ) -> Array | Arrays:
        """Outputs for inputs.

        x: (N, C, *spatial), or an array per input by name for a net with several.
        device: "cpu", "cuda" for an NVIDIA card, "auto" for the card where there is one, or
        "reference", the slow interpreter in float64. batch: samples at once, 0 computes none.
        threads: as many as the machine has unless given; the card has its own. exact: only
        algorithms that keep float32's accuracy. precision: what factors are rounded to, "fp32",
        "tf32" or "bf16", where the device can; sums are float32's. fc_weights: what the weights of
        fully connected layers are kept in, "fp32", "bf16" or "int8" (CPU only); as `precision` says
        unless given. The runner's plan tells in `rounding` by how much they are off. aux: the
        auxiliary heads' outputs too.

        Returns (N, *shape) for a net with one output, else and with `aux` a dict by name. No
        samples give an empty result. Raises NetError: wrong shapes (both are said), an unknown
        device or one that is not here, a precision that it has not, threads or batch out of range,
        weights that do not fit.
        """
        named = x if isinstance(x, Mapping) else {self.graph.inputs[0]: x}
        checked, count = check_inputs(self.graph, named)
        size = roomy_batch(self.graph, count) if batch is None else batch
        runner = self.runner(
            size,
            device=device,
            threads=threads,
            exact=exact,
            precision=precision,
            fc_weights=fc_weights,
            aux=aux,
        )
        outputs = runner.run(checked)
        return outputs[runner.outputs[0]] if len(runner.outputs) == 1 and not aux else outputs

    def runner(
        self,
        batch: int,
        *,
        device: str = "cpu",
        threads: int | None = None,
        exact: bool = False,
        precision: str = "fp32",
        fc_weights: str | None = None,
        aux: bool = False,
        progress: Progress | None = None,
    ) -> Runner:
        """The net made ready for `batch` samples at once; the last one is kept for the next call.

        Raises NetError as `run` does.
        """
        check_settings(device, batch, threads, exact, precision, fc_weights)
        device = chosen(device)
        key = (batch, device, threads, exact, precision, fc_weights, aux)
        if self._runner is None or self._runner[0] != key:
            outputs = self.outputs(aux=aux)
            if aux:
                self._check_aux()
            self._runner = None  # so that two plans' memory is not taken at once
            plan = self._plan(batch, device, threads, exact, precision, fc_weights, aux, progress)
            self._runner = (key, Runner(self.graph, plan, batch, outputs))
        return self._runner[1]

    def _plan(
        self,
        batch: int,
        device: str,
        threads: int | None,
        exact: bool,
        precision: str,
        fc_weights: str | None,
        aux: bool,
        progress: Progress | None,
    ) -> Plan | None:
        if batch == 0:
            return None
        if device == "reference":
            return Reference(self.graph, self.weights, aux)
        if device == "cuda":
            from netdsl import cuda

            return cuda.compile(
                self.graph,
                self.weights,
                batch=batch,
                aux=aux,
                exact=exact,
                precision=precision,
                progress=progress,
            )
        from netdsl import cpu

        return cpu.compile(
            self.graph,
            self._found(),
            batch=batch,
            threads=threads,
            exact=exact,
            precision=precision,
            fc_weights=fc_weights,
            aux=aux,
            progress=progress,
        )

    def _check_aux(self) -> None:
        missing = [n for n in self.graph.all_parameters() if n not in self.weights]
        if missing:
            raise error(
                "no-aux-weights",
                f"{self.weights_source} has no weights of the auxiliary heads: {missing[0]} is "
                f"the first of {len(missing)} missing",
            )

    # Pictures in, classes out

    def read(self, picture: str | Path) -> NDArray[np.float32]:
        """A picture file as one sample (C, H, W), prepared as the net's `input` settings say.

        Raises NetError: unreadable, not a picture, or a net that no picture fits.
        """
        from netdsl.formats.pictures import read_picture

        return read_picture(Path(picture), self.picture_input)

    @property
    def picture_input(self) -> Input:
        """The input that pictures fill: the net's only one. Raises NetError for several."""
        if len(self.graph.inputs) != 1:
            raise error(
                "wrong-input",
                f"{self.name} has {len(self.graph.inputs)} inputs, a picture fills one",
                help=f"give a .npz file with arrays {', '.join(self.graph.inputs)}",
            )
        return self.graph.input_op(self.graph.inputs[0])

    def top(
        self, outputs: Array, k: int = 5, *, raw: bool = False, output: str | None = None
    ) -> list[list[Guess]]:
        """The k likeliest classes of each row of a classifier's outputs (N, classes), best first.

        Scores are probabilities, by softmax where the net ends without; `raw` keeps the numbers.
        output: which one they come from, the first unless given.
        """
        name = output or self.graph.outputs[0]
        values = np.asarray(outputs).reshape(len(outputs), self.graph[name].shape[0])
        if not raw:
            values = probabilities(self.graph, name, values)
        fits = self.graph[name].shape[0] == self.graph[self.graph.outputs[0]].shape[0]
        return top(values, k, self.labels if fits else None)


def _check_room(graph: Graph) -> None:
    """That there is memory for new weights. Raises NetError."""
    needed = 4 * sum(parameter.size for parameter in graph.all_parameters().values())
    if needed < LARGE:
        return
    from netdsl.cpu import memory

    room = memory.available()
    if room is not None and needed > room:
        raise error(
            "out-of-memory",
            f"the weights of {graph.name} take {needed:,} bytes, and {room:,} are available",
        )


def chosen(device: str) -> str:
    """The device that is meant: for "auto" the card, where there is one, else the CPU."""
    if device != AUTO:
        return device
    from netdsl import cuda

    return "cpu" if cuda.missing() else "cuda"


def check_settings(
    device: str,
    batch: int,
    threads: int | None,
    exact: bool = False,
    precision: str = "fp32",
    fc_weights: str | None = None,
) -> None:
    """That these can be run with. Raises NetError."""
    if device not in (*DEVICES, AUTO):
        raise error(
            "unknown-device",
            f"there is no device {device}",
            help=f"devices are {', '.join((*DEVICES, AUTO))}",
        )
    if device == "cuda":
        from netdsl import cuda

        cuda.check()
    check_precision(precision, chosen(device), exact)
    check_fc_weights(fc_weights, chosen(device), exact)
    if threads is not None and threads < 1:
        raise error("out-of-range", f"threads is {threads}, it must be at least 1")
    if batch < 0:
        raise error("out-of-range", f"batch is {batch}, it must be at least 0")
