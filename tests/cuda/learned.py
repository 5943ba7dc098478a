"""How far losses, optimisers and the sums of biases on the card are from right, see
simulated_back.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from memory import AROUND, Memory
from numpy.typing import NDArray

from netdsl.cuda import launch
from netdsl.cuda.backward import losses, sums, update
from netdsl.cuda.backward.task import NUMBERS, LossTask, TrainedParams, UpdateTask
from netdsl.train.losses import BinaryCrossEntropy, CrossEntropy, Hinge, Loss, MeanSquaredError

Doubles = NDArray[np.float64]

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
