"""Training on tensor cores in Numba's simulator. A script, because it needs a process of its own.

    NUMBA_ENABLE_CUDASIM=1 python simulated_rounded.py agree < cases.json     see `outcome`
    NUMBA_ENABLE_CUDASIM=1 python simulated_rounded.py planted < bugs.json    what bugs lead to
    NUMBA_ENABLE_CUDASIM=1 python simulated_rounded.py kernels < cases.json   those met, and all
    NUMBA_ENABLE_CUDASIM=1 python simulated_rounded.py facts                  see `facts`

Cases are a list of [input, layer, batch, precision, seed]. The layer follows one of single cells,
whose output is what it reads, so that the gradient of its input is there to be looked at. There are
16 positions at least.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from simulated import poisonous, with_bug
from simulated_mixed import KEPT, nearest
from simulated_training import plan_of

from netdsl.cuda.backward.plan import TrainingPlan
from netdsl.cuda.layout import Buffer
from netdsl.graph import Graph
from netdsl.lang import load
from netdsl.reference import interpret
from netdsl.train import Settings, Stepper

Floats = np.ndarray
Case = tuple[str, str, int, str, int]


def tensor(plan: TrainingPlan, buffer: Buffer) -> Floats:
    """A tensor whose samples lie together, as it is in the arena now."""
    flat = plan.arena.copy_to_host()[buffer.offset : buffer.offset + buffer.floats]
    return flat.reshape(buffer.batch, *buffer.shape)


class Layer:
    """The layer alone, in float64, and what its two factors make of its output's gradient."""

    def __init__(self, given: str, text: str, weights: dict[str, Floats]) -> None:
        self.graph = load(f"input {given}; {text}")
        (self.input,) = self.graph.inputs
        (self.output,) = self.graph.outputs
        own = {name.rpartition(".")[2]: name for name in self.graph.all_parameters()}
        self.weight, self.bias = own["weight"], own.get("bias")
        self.held = {own[n]: v for n, v in weights.items()}

    def forward(self, w: Floats, x: Floats, bias: Floats | float = 0.0) -> Floats:
        held = {self.weight: w}
        if self.bias is not None:
            held[self.bias] = np.broadcast_to(bias, self.held[self.bias].shape)
        return interpret(self.graph, held, {self.input: x})[self.output]

    def of_weights(self, w: Floats, x: Floats, g: Floats) -> Floats:
        """Of the sum of g times the output, by each weight: the output is linear in it."""
        found = np.empty(w.shape)
        for i in np.ndindex(w.shape):
            one = np.zeros(w.shape)
            one[i] = 1
            found[i] = (self.forward(one, x) * g).sum()
        return found

    def of_input(self, w: Floats, x: Floats, g: Floats) -> Floats:
        """The same by each value of the input; every one is a sample of a batch."""
        values = x[0].size
        ones = np.eye(values).reshape(values, *x.shape[1:])
        answers = self.forward(w, ones).reshape(values, -1)
        return (g.reshape(len(g), -1) @ answers.T).reshape(x.shape)


def net_of(given: str, text: str) -> Graph:
    """The layer after another one, whose output is handed out too: it is there as floats then."""
    channels, *axes = given.split("x")
    word = f"conv{'x'.join('1' * len(axes))}({channels})" if axes else f"fc({channels})"
    return load(f"input {given}; {word} as x -> {text} as y; output x, y")


def outcome(case: Case) -> tuple[float, float]:
    """Of the output and the gradients of the layer's weights, bias and input: the largest
    difference from sums of rounded factors, against 1 + the sum of the products' sizes; and from
    those of exact factors, against what rounding may do to each product."""
    given, text, batch, precision, seed = case
    graph = net_of(given, text)
    from agree import drawn_inputs, drawn_weights

    weights, inputs = drawn_weights(graph, seed), drawn_inputs(graph, batch, seed + 1)
    plan = plan_of(graph, weights, batch, precision)
    names = list(graph.all_parameters())
    first = names[0].rpartition(".")[0]
    last = {n.rpartition(".")[2]: n for n in names if not n.startswith(f"{first}.")}
    (output,) = set(graph.outputs) - {first}
    answers = plan.forward(inputs, step=0)
    x, y = answers[first], answers[output]
    g = np.random.default_rng(seed + 2).normal(size=y.shape).astype(np.float32)
    plan.backward({output: g, first: np.zeros_like(x)})
    slopes = tensor(plan, plan.layout.gradients[first]).copy()
    learned = plan.gradients()[last["weight"]]
    layer = Layer(given, text.replace(" -> relu", ""), {k: weights[n] for k, n in last.items()})
    w = weights[last["weight"]]
    bias = weights[last["bias"]].astype(np.float64) if "bias" in last else 0.0
    if text.endswith("relu"):
        g = np.where(y > 0, g, np.float32(0))

    def all_of(w: Floats, x: Floats, g: Floats, forward_exactly: bool) -> list[Floats]:
        held = (layer.held[layer.weight], exact) if forward_exactly else (w, x)
        return [layer.forward(*held), layer.of_weights(w, x, g), layer.of_input(w, x, g)]

    exact = x
    # Weights come 16 bytes at a time, or are read in float32.
    dense = text.startswith("fc") and x[0].size % 4 != 0
    factors = [nearest(v, precision) for v in (w, x, g)]
    sized = [np.abs(v) for v in (w, x, g)]
    found = [y, learned, slopes]
    wanted, true = all_of(*factors, dense), all_of(w, x, g, dense)
    if dense:
        wanted[2] = true[2] = layer.of_input(w, x, g)
    sizes = [
        layer.forward(*sized[:2]), layer.of_weights(*sized), layer.of_input(*sized)
    ]  # fmt: skip
    if "bias" in last:
        found.append(plan.gradients()[last["bias"]])
        spatial = (0, *range(2, g.ndim))
        wanted.append(g.astype(np.float64).sum(spatial))
        true.append(wanted[-1])
        sizes.append(np.abs(g).astype(np.float64).sum(spatial))
    for answers in (wanted, true):
        answers[0] = answers[0] + _by_channel(bias, y.ndim)
        if text.endswith("relu"):
            answers[0] = np.maximum(answers[0], 0)
    unit = 2.0 ** -(KEPT[precision] + 1)
    worst, share = 0.0, 0.0
    for f, wants, exactly, size in zip(found, wanted, true, sizes, strict=True):
        assert f.shape == wants.shape
        assert not np.isnan(f).any()
        worst = max(worst, float((np.abs(f - wants) / (1 + size)).max()))
        allowed = (2 * unit + unit * unit) * size + 1e-6 * (1 + size)
        share = max(share, float((np.abs(f - exactly) / allowed).max()))
    return worst, share


def _by_channel(bias: Any, rank: int) -> Any:
    return np.reshape(bias, (1, -1, *(1,) * (rank - 2))) if np.ndim(bias) else bias


def shown(case: Case) -> str:
    """What shows that something is wrong; "" where nothing does."""
    try:
        apart, _ = outcome(case)
    except (Exception, AssertionError) as error:
        return type(error).__name__
    return "" if apart < 1e-5 else str(apart)


def planted(bugs: list[tuple[str, str, str]], cases: list[Case]) -> Iterator[str]:
    """For each bug, a module and what in it is replaced by what, how the first case shows it."""
    from netdsl.cuda.backward import gather, mixed, pack, tensor, weighted

    homes: dict[str, tuple[Any, list[tuple[Any, str]]]] = {
        "tensor": (tensor, [(mixed, "KERNELS"), (mixed, "tensor_finish")]),
        "weighted": (weighted, [(weighted, "KERNELS"), (mixed, "dense_finish")]),
        "gather": (gather, [(gather, "gather_words")]),
        "pack": (pack, [(pack, "pack_gradient"), (pack, "bias_parts")]),
    }
    for name, old, new in bugs:
        home, users = homes[name]
        module = with_bug(home, old, new)
        right = [getattr(user, table) for user, table in users]
        for user, table in users:
            setattr(user, table, getattr(module, table))
        yield next(filter(None, map(shown, cases)), "")
        for (user, table), kernels in zip(users, right, strict=True):
            setattr(user, table, kernels)


def kernels(cases: list[Case]) -> dict[str, list[str]]:
    """The names of the kernels that the cases meet, and of all that make gradients of weights or
    read weights where they are learned."""
    from agree import drawn_weights

    from netdsl.cuda.backward import weighted
    from netdsl.cuda.backward.tensor import KERNELS

    names = {id(k): f"{t.m}x{t.n} {p}" for (t, p), k in KERNELS.items()}
    for (tile, precision, back), kernel in weighted.KERNELS.items():
        names[id(kernel)] = f"dense {tile.m}x{tile.n} {precision}{' back' * back}"
    met = set()
    for given, text, batch, precision, seed in cases:
        graph = net_of(given, text)
        plan = plan_of(graph, drawn_weights(graph, seed), batch, precision)
        calls = [*plan._forward.calls, *plan._back.calls, *plan._packing.calls]
        met |= {names.get(id(call.kernel), call.kernel.fn.__name__) for call in calls}
    return {"met": sorted(met), "all": sorted(names.values())}


def facts() -> dict[str, Any]:
    """Of two steps in each precision: how far weights are from those of fp32, what type they and
    the optimiser's are, and whether a run goes on in another precision as it should."""
    from agree import drawn_weights

    graph = load("input 2x4x4; conv3x3p1(3) -> relu -> flatten -> fc(3)")
    random = np.random.default_rng(3)
    batches = [
        (random.normal(size=(4, 2, 4, 4)).astype(np.float32), random.integers(0, 3, 4))
        for _ in range(2)
    ]

    def new(precision: str, device: str = "cuda") -> Stepper:
        settings = Settings(batch=4, device=device, precision=precision, seed=5)
        return Stepper(graph, drawn_weights(graph), settings, steps=2)

    def run(one: Stepper, which: range) -> Stepper:
        for i in which:
            one.step(*batches[i])
        return one

    whole = run(new("fp32"), range(2))
    apart, same = {}, True
    for precision in ("tf32", "bf16"):
        straight, again = (run(new(precision), range(2)) for _ in range(2))
        first, second = run(new(precision), range(1)), new(precision)
        second.restore(first.weights(), first.state(), first.count)
        run(second, range(1, 2))
        for one in (again, second):
            same &= all(np.array_equal(v, one.weights()[n]) for n, v in straight.weights().items())
        apart[precision] = max(
            float(np.abs(v - whole.weights()[n]).max()) for n, v in straight.weights().items()
        )
        first = run(new(precision), range(1))
        there = new("fp32", "cpu")
        there.restore(first.weights(), first.state(), first.count)
        run(there, range(1, 2))
    return {"apart": apart, "same": same}


def main() -> None:
    poisonous()
    if sys.argv[1] == "facts":
        print(json.dumps(facts()))
        return
    given: Any = json.load(sys.stdin)
    if sys.argv[1] == "planted":
        print(json.dumps(list(planted(given["bugs"], given["cases"]))))
    elif sys.argv[1] == "kernels":
        print(json.dumps(kernels(given)))
    else:
        print(json.dumps([outcome(case) for case in given]))


if __name__ == "__main__":
    main()
