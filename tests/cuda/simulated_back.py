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
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from simulated import poisonous

from netdsl.cuda import launch
from netdsl.cuda.backward import losses, sums, update
from netdsl.cuda.backward.table import BACKS, takes
from netdsl.cuda.backward.task import (
    NUMBERS,
    BackPlaces,
    Calls,
    LossTask,
    TrainedParams,
    UpdateTask,
)
from netdsl.cuda.layout import Buffer, fresh
from netdsl.cuda.sizes import WARP
from netdsl.cuda.table import RECIPES
from netdsl.cuda.task import Descriptors, Task
from netdsl.cuda.warp import emulated
from netdsl.graph import Graph, Node
from netdsl.graph.fused import fuse, parts
from netdsl.lang import load
from netdsl.ops import BatchNorm
from netdsl.train.central import outputs
from netdsl.train.losses import BinaryCrossEntropy, CrossEntropy, Hinge, Loss, MeanSquaredError

sys.path.insert(0, str(Path(__file__).parent.parent / "cpu"))

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
MODULES = (
    "activation",
    "arrange",
    "join",
    "losses",
    "norm",
    "response",
    "sums",
    "update",
    "window",
)
STEP, SEED = 3, 77
DELTA = 1e-6

met: set[int] = set()
"""Kernels that were launched."""


@dataclass
class Memory:
    """Tensors in poisoned memory, and what kernels read besides."""

    gap: int
    params: TrainedParams
    floats: int = 0
    scratch: int = 0
    ints: Descriptors = field(default_factory=Descriptors)
    known: dict[int, Floats] = field(default_factory=dict)
    buffers: list[Buffer] = field(default_factory=list)
    arena: Any = None
    before: Floats = field(default_factory=lambda: np.zeros(0, np.float32))

    def tensor(self, batch: int, shape: tuple[int, ...], values: Floats | None = None) -> Buffer:
        """Room for a tensor, and what it holds."""
        made = fresh(batch, shape)
        made = replace(
            made,
            offset=self.room(batch * (made.sample + self.gap) + PAST),
            batch_stride=made.sample + self.gap,
        )
        self.buffers.append(made)
        if values is not None:
            self.known[len(self.buffers) - 1] = values
        return made

    def room(self, floats: int) -> int:
        """Where so many floats lie."""
        start = self.floats + self.gap
        self.floats = -(-(start + floats) // 64) * 64
        return start

    def scratched(self, floats: int) -> int:
        """Scratch, after everything else; asked for again it is the same."""
        self.scratch = max(self.scratch, floats)
        return SCRATCH

    def start(self) -> None:
        """Takes the memory, all of it poisoned but the tensors that are known; around those that
        kernels write stands a number, over which a NaN would show."""
        arena = np.full(SCRATCH + self.scratch + 1, np.nan, np.float32)
        assert self.floats <= SCRATCH
        for i, buffer in enumerate(self.buffers):
            if i in self.known:
                self.view(arena, buffer)[...] = self.known[i].reshape(buffer.batch, -1)
            else:
                arena[buffer.offset - self.gap : buffer.offset + buffer.floats + PAST] = AROUND
                self.view(arena, buffer)[...] = np.nan
        self.before = arena.copy()
        self.arena = launch.on_device(arena)

    def view(self, arena: Floats, buffer: Buffer) -> Floats:
        """A tensor's samples, each in a row."""
        rows = arena[buffer.offset : buffer.offset + buffer.floats]
        return rows.reshape(buffer.batch, -1)[:, : buffer.sample]

    def found(self, buffer: Buffer) -> Floats:
        """What a tensor holds now."""
        values = self.view(self.arena.copy_to_host(), buffer)
        return values.reshape(buffer.batch, *buffer.shape)

    def run(self, calls: Calls, params: Any) -> None:
        """Launches these, one after the other."""
        ints = launch.on_device(self.ints.joined())
        for call in calls:
            met.add(id(call.kernel))
            launch.launch(call, self.arena, params, ints)

    def torn(self) -> bool:
        """Whether something was written between the samples of tensors, or past them."""
        now, before = self.arena.copy_to_host(), self.before.copy()
        for buffer in self.buffers:
            for arena in (now, before):
                self.view(arena, buffer)[...] = np.nan
        ends = [(b.offset - self.gap, b.offset + b.floats + PAST) for b in self.buffers]
        return not all(np.array_equal(now[a:b], before[a:b], equal_nan=True) for a, b in ends)


SCRATCH = 1 << 13
"""Where scratch begins."""
AROUND, PAST = np.float32(1e30), 16
"""What stands between samples, and in so many floats past the last."""


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


LOSSES: dict[str, Callable[[float], Loss]] = {
    "cross_entropy": lambda smoothing: CrossEntropy(smoothing),
    "hinge": lambda _: Hinge(),
    "mse": lambda _: MeanSquaredError(),
    "bce": lambda _: BinaryCrossEntropy(),
}


def loss_outcome(name: str, shape: list[int], batch: int, gap: int, smoothing: float) -> float:
    """How far a loss and its gradient lie from those on the CPU."""
    from agree import difference

    random, share = np.random.default_rng(5), 0.3
    loss = LOSSES[name](smoothing)
    scores = random.normal(0, 3, (batch, *shape)).astype(np.float32)
    labels = random.integers(0, shape[0], (batch, *shape[1:]))
    wanted = random.uniform(0, 1, scores.shape).astype(np.float32)
    memory = Memory(gap, TrainedParams(0))
    s, slope = memory.tensor(batch, tuple(shape), scores), memory.tensor(batch, tuple(shape))
    if loss.takes_classes:
        targets = memory.ints.add(labels.astype(np.int32).reshape(-1))
    else:
        plain = replace(memory, gap=0, floats=memory.floats)
        targets = plain.room(wanted.size)
        memory.floats = plain.floats
    value = memory.room(1)
    task = LossTask(
        name,
        s,
        slope,
        targets,
        value,
        share,
        smoothing,
        memory.scratched,
        memory.params,
        memory.ints,
    )
    calls = losses.LOSSES[name](task)
    bare = losses.LOSSES[name](replace(task, slope=None))
    memory.start()
    if not loss.takes_classes:
        memory.arena[targets : targets + wanted.size].copy_to_device(wanted.reshape(-1))
    params = launch.on_device(memory.params.joined())
    memory.run(bare, params)
    alone, untouched = float(memory.arena[value]), np.isnan(memory.found(slope)).all()
    memory.run(calls, params)
    mean, gradient = loss(scores, labels if loss.takes_classes else wanted)
    if memory.torn() and not untouched:
        return float("inf")
    values = np.array([alone, float(memory.arena[value])], np.float32)
    return max(
        difference(values, np.array([mean, mean])),
        difference(memory.found(slope) * batch, gradient * share * batch),
    )


def stepped(
    name: str, w: Doubles, g: Doubles, slots: list[Doubles], own: dict[str, float]
) -> Doubles:
    """One optimiser's step in float64; slots change in place."""
    rate, fade, keep, keep2, eps = (
        own[n] for n in ("rate", "decay", "keep", "keep_squares", "eps")
    )
    d = g if name == "adamw" else g + fade * w
    if name == "sgd":
        return w - rate * d
    if name in ("momentum", "nesterov"):
        slots[0][...] = keep * slots[0] + d
        return w - rate * (d + keep * slots[0] if name == "nesterov" else slots[0])
    if name in ("adagrad", "rmsprop"):
        slots[0][...] = (
            slots[0] + d**2 if name == "adagrad" else keep * slots[0] + (1 - keep) * d**2
        )
        return w - rate * d / (np.sqrt(slots[0]) + eps)
    slots[0][...] = keep * slots[0] + (1 - keep) * d
    slots[1][...] = keep2 * slots[1] + (1 - keep2) * d**2
    way = slots[0] * own["unbias"] / (np.sqrt(slots[1] * own["unbias_squares"]) + eps)
    return w - rate * (way + fade * w if name == "adamw" else way)


SLOTS = {"sgd": 0, "adam": 2, "adamw": 2}


def update_outcome(name: str, length: int, clip: float | None, loss: float) -> float:
    """How far an optimiser's step lies from the formulas; where a loss is not finite, from
    nothing."""
    from agree import difference

    random, count = np.random.default_rng(6), SLOTS.get(name, 1)
    w, g = random.normal(size=length), random.normal(size=length)
    slots = [random.uniform(0.1, 1, length) for _ in range(count)]
    decay = random.uniform(0, 0.5, length // 16)
    own = {"rate": 0.1, "keep": 0.8, "keep_squares": 0.9, "eps": 0.01, "unbias": 1.7}
    own["unbias_squares"] = 1.3
    params = TrainedParams(length)
    memory = Memory(0, params)
    at = [memory.room(length) for _ in range(1 + count)]
    numbers, values = memory.room(NUMBERS), memory.room(2)
    decays = params.add(decay)
    task = UpdateTask(
        name, length, 0, decays, at[0], tuple(at[1:]), numbers, values, 2, clip,
        own["keep"], own["keep_squares"], own["eps"], memory.scratched, params, memory.ints,
    )  # fmt: skip
    calls = update.update(task)
    held = params.joined()
    held[:length] = w
    memory.start()
    for place, array in zip(at, (g, *slots), strict=True):
        memory.arena[place : place + length].copy_to_device(array.astype(np.float32))
    three = np.array([own["rate"], own["unbias"], own["unbias_squares"]], np.float32)
    memory.arena[numbers : numbers + 3].copy_to_device(three)
    memory.arena[values : values + 2].copy_to_device(np.array([0.5, loss], np.float32))
    there = launch.on_device(held)
    memory.run(calls, there)
    norm = float(np.sqrt((g**2).sum()))
    scale = clip / norm if clip is not None and norm > clip else 1.0
    fade = np.repeat(decay, 16)
    if np.isfinite(loss):
        w = stepped(name, w, g * scale, slots, {**own, "decay": 0.0} | {"decay": fade})  # type: ignore[dict-item]
    arena = memory.arena.copy_to_host()
    found = [there.copy_to_host()[:length], *(arena[p : p + length] for p in at[1:])]
    return max(difference(f, v) for f, v in zip(found, (w, *slots), strict=True))


def bias_outcome(shape: list[int], batch: int, gap: int, relu: bool) -> float:
    """How far a bias's gradient, and what a relu before it leaves of its own, are from NumPy's."""
    from agree import difference

    random = np.random.default_rng(8)
    g = random.normal(size=(batch, *shape)).astype(np.float32)
    y = np.maximum(random.normal(size=g.shape), 0).astype(np.float32)
    memory = Memory(gap, TrainedParams(0))
    into = memory.room(shape[0])
    source, output = memory.tensor(batch, tuple(shape), g), memory.tensor(batch, tuple(shape), y)
    task: Any = SimpleNamespace(
        processors=launch.SIMULATED_PROCESSORS, scratch=memory.scratched, ints=memory.ints
    )
    calls = sums.bias_sums(task, source, into, output if relu else None)
    memory.start()
    after = slice(into + shape[0], into + shape[0] + 8)
    memory.arena[after].copy_to_device(np.full(8, AROUND))
    memory.run(calls, launch.on_device(memory.params.joined()))
    left = np.where(y > 0, g, 0) if relu else g
    arena = memory.arena.copy_to_host()
    found = arena[into : into + shape[0]]
    assert (arena[after] == AROUND).all()
    wanted = left.astype(np.float64).sum((0, *range(2, g.ndim)))
    return max(difference(found, wanted), difference(memory.found(source), left))


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
    """The kernels of the modules here, by identity."""
    found = {}
    for name in MODULES:
        module = import_module(f"netdsl.cuda.backward.{name}")
        for key, value in vars(module).items():
            if hasattr(value, "grid_dim") and not value._device and own(value, module):
                found[id(value)] = key
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
