"""Gradient kernels of single ops, losses and optimisers in Numba's simulator. A script of its own.

    NUMBA_ENABLE_CUDASIM=1 python simulated_back.py agree < cases.json     differences, kernels left
    NUMBA_ENABLE_CUDASIM=1 python simulated_back.py planted < bugs.json    what planted bugs lead to

The first takes lists of cases by mode: "ops", "losses", "updates", "biases", "ties" of a max pool,
"masks" of dropout; it prints how far each case is from what it should be, in the order given, and
the kernels that no case met. Op cases are [text, batch, gap]: tensors lie `gap` floats past a
multiple of 64, their samples as many apart; nothing may be written between them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

import numpy as np
from learned import bias_outcome, loss_outcome, update_outcome
from memory import Memory, met
from numpy.typing import NDArray
from simulated import poisonous

from netdsl.cuda import launch
from netdsl.cuda.backward.table import BACKS, takes
from netdsl.cuda.backward.task import (
    BackPlaces,
    TrainedParams,
)
from netdsl.cuda.sizes import WARP
from netdsl.cuda.strips import NOTING
from netdsl.cuda.table import RECIPES
from netdsl.cuda.task import Task
from netdsl.cuda.warp import emulated
from netdsl.cuda.windows import max_windows_noting
from netdsl.graph import Graph, Node
from netdsl.graph.fused import fuse, parts
from netdsl.lang import load
from netdsl.ops import BatchNorm
from netdsl.train.central import outputs

sys.path.insert(0, str(Path(__file__).parent.parent / "cpu"))

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
MODULES = (
    "activation",
    "arrange",
    "few",
    "join",
    "losses",
    "norm",
    "response",
    "strips",
    "sums",
    "update",
    "window",
)
STEP, SEED = 3, 77
DELTA = 1e-6


@dataclass
class Ran:
    """What one op gave, forward and back."""

    memory: Memory
    graph: Graph
    node: Node
    weights: dict[str, Floats]
    inputs: dict[str, Floats]
    pull: Floats
    output: Floats
    slopes: list[Floats]
    learned: dict[str, Floats]
    params: dict[str, Floats]
    tried: Floats | None = None


def run(text: str, batch: int, gap: int, inputs: dict[str, Floats] | None = None) -> Ran:
    """The last node of a text, forward in training and back."""
    from agree import drawn_inputs, drawn_weights

    graph = load(text)
    weights, inputs = drawn_weights(graph), inputs or drawn_inputs(graph, batch)
    low = fuse(graph, takes)
    node = low.nodes[-1]
    whole, shapes = parts(node), low.input_shapes(node)
    own = {p.name: p for p in whole.base.parameters(shapes)}
    starts, end = {}, 0
    for name, parameter in own.items():
        starts[name], end = end, end + -(-parameter.size // 16) * 16
    params = TrainedParams(end + 16)
    memory = Memory(gap, params)
    into = {name: memory.room(own[name].size) for name in own if own[name].trainable}
    ins = tuple(memory.tensor(batch, graph[n].shape, inputs[n]) for n in node.inputs)
    pull = np.random.default_rng(4).normal(size=(batch, *node.shape)).astype(np.float32)
    y, g = memory.tensor(batch, node.shape), memory.tensor(batch, node.shape, pull)
    targets = tuple(memory.tensor(batch, shape) for shape in shapes)
    step = memory.ints.add([STEP, SEED, 0])
    task = Task(
        node,
        shapes,
        batch,
        launch.SIMULATED_PROCESSORS,
        ins,
        y,
        memory.scratched,
        {name: weights[f"{whole.source}.{name}"] for name in own},
        params,
        memory.ints,
    )
    back = BACKS[type(whole.base)]
    kept = memory.room(back.kept(task))
    places = BackPlaces(ins, y, g, targets, kept, starts, into, step)
    bare = replace(places, gradients=(None,) * len(ins))
    forward = (
        back.forward(task, bare) if back.forward else (RECIPES[type(whole.base)].calls(task),) * 2
    )
    calls = back.calls(task, places)
    held = params.joined()
    for name, start in starts.items():
        held[start : start + own[name].size] = weights[f"{whole.source}.{name}"].reshape(-1)
    memory.start()
    there = launch.on_device(held)
    memory.run([*forward[0], *calls], there)
    arena, after = memory.arena.copy_to_host(), there.copy_to_host()
    ran = Ran(
        memory,
        graph,
        node,
        weights,
        inputs,
        pull,
        memory.found(y),
        [memory.found(target) for target in targets],
        {n: arena[at : at + own[n].size].reshape(own[n].shape) for n, at in into.items()},
        {n: after[at : at + own[n].size].reshape(own[n].shape) for n, at in starts.items()},
    )
    if forward[0] != forward[1]:
        memory.run(forward[1], there)
        ran.tried = memory.found(y)
    return ran


def outcome(text: str, batch: int, gap: int) -> float:
    """The largest difference from the float64 reference: of the output, of every gradient (by
    differences), of the running statistics. Infinite where the gaps were written to."""
    from agree import difference

    ran = run(text, batch, gap)
    if ran.memory.torn():
        return float("inf")

    def value(weights: dict[str, Any], inputs: dict[str, Any]) -> float:
        return float((outputs(ran.graph, weights, inputs)[ran.node.name] * ran.pull).sum())

    wanted = outputs(ran.graph, ran.weights, ran.inputs)[ran.node.name]
    worst = difference(ran.output, wanted)
    for name, found in zip(ran.node.inputs, ran.slopes, strict=True):
        same = ran.node.inputs.count(name)
        assert same == 1
        slope = differences(
            lambda x, n=name: value(ran.weights, {**ran.inputs, n: x}), ran.inputs[name]
        )
        worst = max(worst, difference(found, slope))
    for name, found in ran.learned.items():
        full = f"{parts(ran.node).source}.{name}"
        slope = differences(
            lambda w, n=full: value({**ran.weights, n: w}, ran.inputs), ran.weights[full]
        )
        worst = max(worst, difference(found, slope))
    base = parts(ran.node).base
    if isinstance(base, BatchNorm):
        worst = max(worst, moved(ran, base))
    return worst


def differences(value: Callable[[Doubles], float], at: Floats) -> Doubles:
    """The gradient of a function by central differences."""
    start, found = at.astype(np.float64), np.empty(at.shape)
    for i in np.ndindex(at.shape):
        high, low = start.copy(), start.copy()
        high[i] += DELTA
        low[i] -= DELTA
        found[i] = (value(high) - value(low)) / (2 * DELTA)
    return found


def moved(ran: Ran, op: BatchNorm) -> float:
    """How far a batch norm's running statistics, and its output by these, lie from right."""
    from agree import difference

    x, source = next(iter(ran.inputs.values())).astype(np.float64), parts(ran.node).source
    axes = (0, *range(2, x.ndim))
    new = {"mean": x.mean(axes), "var": x.var(axes, ddof=1)}
    keep, worst = 1 - op.momentum, 0.0
    for name, values in new.items():
        old = ran.weights[f"{source}.{name}"]
        wanted = keep * old + op.momentum * values
        worst = max(worst, difference(ran.params[name], wanted))
        new[name] = wanted
    shape = (1, -1, *(1,) * (x.ndim - 2))
    apart = (x - new["mean"].reshape(shape)) / np.sqrt(new["var"] + op.eps).reshape(shape)
    if op.affine:
        scale, shift = (ran.weights[f"{source}.{n}"].reshape(shape) for n in ("weight", "bias"))
        apart = apart * scale + shift
    if parts(ran.node).activation is not None:
        apart = np.maximum(apart, 0.0)
    assert ran.tried is not None
    return max(worst, difference(ran.tried, apart))


def ties(text: str, batch: int, gap: int) -> float:
    """A max pool's gradient where many values are the same: the first of a window has it all."""
    from agree import difference

    graph = load(text)
    shape = (batch, *graph[graph.inputs[0]].shape)
    x = np.random.default_rng(7).integers(0, 2, shape).astype(np.float32)
    x[0, 0] = -np.inf
    ran = run(text, batch, gap, {graph.inputs[0]: x})
    op, wanted = ran.node.op, np.zeros(x.shape)
    window: Any = getattr(op, "window", None)
    for i in np.ndindex(ran.pull.shape):
        places = [()]
        for axis, o in enumerate(i[2:]):
            size = x.shape[2 + axis]
            along: Any = range(size)
            if window is not None:
                first = o * window.stride[axis] - window.padding[axis][0]
                taps = (first + k * window.dilation[axis] for k in range(window.kernel[axis]))
                along = [tap for tap in taps if 0 <= tap < size]
            places = [(*p, a) for p in places for a in along]
        best = max(places, key=lambda p: x[(*i[:2], *p)])  # the first of the largest
        wanted[(*i[:2], *best)] += ran.pull[i]
    return difference(ran.slopes[0], wanted)


def hashed(x: int) -> int:
    """splitmix64's finish."""
    mask = (1 << 64) - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def masks(text: str, batch: int, gap: int) -> float:
    """How far dropout and its gradient are from the masks of the CPU, which lays channels out in
    blocks of 16."""
    from agree import difference

    ran = run(text, batch, gap)
    rate: Any = getattr(ran.node.op, "rate")  # noqa: B009
    stream = hashed(crc32(ran.node.name.encode()) ^ (SEED << 32) ^ hashed(STEP))
    (x,) = ran.inputs.values()
    n, c = x.shape[:2]
    flat = x.reshape(n, c, -1)
    stays = np.empty(flat.shape)
    for i, j, k in np.ndindex(flat.shape):
        place = ((i * -(-c // 16) + j // 16) * flat.shape[2] + k) * 16 + j % 16
        fate = hashed((stream + place) & ((1 << 64) - 1)) >> 32
        stays[i, j, k] = (fate >= round(rate * 2**32)) / (1 - rate)
    stays = stays.reshape(x.shape)
    assert 0 < stays.mean() < 1 / (1 - rate)
    assert not ran.memory.torn()
    assert ran.tried is not None
    found = difference(ran.output, x * stays), difference(ran.slopes[0], ran.pull * stays)
    return max(*found, difference(ran.tried, x))


def names() -> dict[int, str]:
    """The kernels of the modules here, and those that note taps, by identity."""
    found = {id(kernel): f"noting {window}" for window, kernel in NOTING.items()}
    found[id(max_windows_noting)] = "noting"
    for name in MODULES:
        module = import_module(f"netdsl.cuda.backward.{name}")
        for key, value in vars(module).items():
            made = value if isinstance(value, dict) and key.isupper() else {"": value}
            for which, one in made.items():
                if hasattr(one, "grid_dim") and not one._device and own(one, module):
                    found[id(one)] = f"{key} {which}"
    return found


def own(function: Any, module: ModuleType) -> bool:
    """Whether a function for the device is defined in this module."""
    return bool(function.fn.__module__ == module.__name__)


def spoiled(name: str, old: str, new: str) -> Iterator[None]:
    """While it waits, module `name` of netdsl.cuda has `old`, which stands in it once, replaced."""
    module = import_module(f"netdsl.cuda.{name}")
    path = Path(str(module.__file__))
    source = path.read_text(encoding="utf-8")
    assert source.count(old) == 1, f"{source.count(old)} times in {name}: {old}"
    made = ModuleType(module.__name__)
    exec(compile(source.replace(old, new), str(path), "exec"), vars(made))
    there = [m for key, m in sys.modules.items() if key.startswith("netdsl.cuda")]
    swapped = []
    for key, value in vars(module).items():
        if hasattr(value, "grid_dim") and own(value, module):
            for other in there:
                for at, held in list(vars(other).items()):
                    if held is value:
                        setattr(other, at, vars(made)[key])
                        swapped.append((other, at, value))
        elif isinstance(value, dict) and key.isupper():
            setattr(module, key, vars(made)[key])
            swapped.append((module, key, value))
    yield
    for other, at, value in swapped:
        setattr(other, at, value)


MODES: dict[str, Callable[..., float]] = {
    "ops": outcome,
    "losses": loss_outcome,
    "updates": update_outcome,
    "biases": bias_outcome,
    "ties": ties,
    "masks": masks,
}


def planted(bugs: list[tuple[str, str, str, str, list[Any]]]) -> Iterator[str]:
    """For each [module, old, new, mode, case], what the case ends in; "" where nothing shows."""
    for module, old, new, mode, case in bugs:
        for _ in spoiled(module, old, new):
            try:
                apart = MODES[mode](*case)
            except Exception as error:
                yield type(error).__name__
            else:
                yield "" if apart < 1e-5 else str(apart)


def main() -> None:
    poisonous()
    emulated.WARP = WARP
    given = json.load(sys.stdin)
    if sys.argv[1] == "planted":
        print(json.dumps(list(planted(given))))
        return
    found = [[MODES[mode](*case) for case in cases] for mode, cases in given.items()]
    there = names()
    print(json.dumps([found, sorted(set(there.values()) - {there[k] for k in met if k in there})]))


if __name__ == "__main__":
    main()
