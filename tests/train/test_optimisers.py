"""Every optimiser against its formula in plain float64, and torch's where it is there."""

from __future__ import annotations

import numpy as np
import pytest

from netdsl.faults import NetError
from netdsl.train.optimisers import OPTIMISERS, Momentum, clip_scale
from netdsl.train.schedules import SCHEDULES, Schedule

STEPS = 5
RATE, DECAY = 0.05, 0.01


def _gradients() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(STEPS, 48)).astype(np.float32)


def _ours(name: str) -> np.ndarray:
    optimiser = OPTIMISERS[name]()
    w = np.linspace(-1, 1, 48, dtype=np.float32)
    slots = {slot: np.zeros(48, np.float32) for slot in optimiser.slots}
    decay = np.array([DECAY, DECAY, 0.0], np.float32)
    for count, g in enumerate(_gradients(), 1):
        optimiser.step(w, g, slots, rate=RATE, decay=decay, scale=0.5, count=count)
    return w


def _plain(name: str) -> np.ndarray:
    """The textbook's formulas, one element of decay after another."""
    w = np.linspace(-1, 1, 48)
    decay = np.repeat([DECAY, DECAY, 0.0], 16)
    v, s = np.zeros(48), np.zeros(48)
    for t, g in enumerate(_gradients().astype(np.float64) * 0.5, 1):
        if name != "adamw":
            g = g + decay * w
        if name == "sgd":
            w = w - RATE * g
        elif name in ("momentum", "nesterov"):
            v = 0.9 * v + g
            w = w - RATE * (v if name == "momentum" else g + 0.9 * v)
        elif name == "adagrad":
            s = s + g**2
            w = w - RATE * g / (np.sqrt(s) + 1e-10)
        elif name == "rmsprop":
            s = 0.99 * s + 0.01 * g**2
            w = w - RATE * g / (np.sqrt(s) + 1e-8)
        else:
            v = 0.9 * v + 0.1 * g
            s = 0.999 * s + 0.001 * g**2
            shrunk = w * (1 - RATE * decay) if name == "adamw" else w
            w = shrunk - RATE * (v / (1 - 0.9**t)) / (np.sqrt(s / (1 - 0.999**t)) + 1e-8)
    return w


@pytest.mark.parametrize("name", OPTIMISERS)
def test_follows_its_formula(name: str) -> None:
    np.testing.assert_allclose(_ours(name), _plain(name), rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_zero_stays_zero_where_the_gradient_is(name: str) -> None:
    """Blocks are padded with zeros, which must never move."""
    optimiser = OPTIMISERS[name]()
    w, g = np.zeros(16, np.float32), np.zeros(16, np.float32)
    slots = {slot: np.zeros(16, np.float32) for slot in optimiser.slots}
    for count in (1, 2):
        optimiser.step(w, g, slots, rate=1.0, decay=np.ones(1, np.float32), scale=1.0, count=count)
    assert not w.any()


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("momentum", lambda t, p: t.optim.SGD(p, RATE, momentum=0.9, weight_decay=DECAY)),
        (
            "nesterov",
            lambda t, p: t.optim.SGD(p, RATE, momentum=0.9, weight_decay=DECAY, nesterov=True),
        ),
        ("adagrad", lambda t, p: t.optim.Adagrad(p, RATE, weight_decay=DECAY)),
        ("rmsprop", lambda t, p: t.optim.RMSprop(p, RATE, weight_decay=DECAY)),
        ("adam", lambda t, p: t.optim.Adam(p, RATE, weight_decay=DECAY)),
        ("adamw", lambda t, p: t.optim.AdamW(p, RATE, weight_decay=DECAY)),
    ],
)
def test_agrees_with_torch(name: str, theirs) -> None:  # type: ignore[no-untyped-def]
    torch = pytest.importorskip("torch")
    start = np.linspace(-1, 1, 48, dtype=np.float32)[:32]
    w = torch.nn.Parameter(torch.from_numpy(start.copy()))
    other = theirs(torch, [w])
    for g in _gradients():
        w.grad = torch.from_numpy(g[:32] * np.float32(0.5))
        other.step()
    np.testing.assert_allclose(_ours(name)[:32], w.detach().numpy(), rtol=0, atol=2e-6)


def test_clipping_scales_to_the_limit() -> None:
    g = np.full(100, 3.0, np.float32)  # norm 30
    assert clip_scale(g, 6.0) == pytest.approx(0.2)
    assert clip_scale(g, 31.0) == 1.0
    assert clip_scale(g, None) == 1.0
    with pytest.raises(NetError, match="above 0"):
        clip_scale(g, 0.0)


def test_momentum_keeps_what_it_is_told() -> None:
    w, v = np.zeros(16, np.float32), {"velocity": np.ones(16, np.float32)}
    nothing = np.zeros(16, np.float32)
    Momentum(keep=0.5).step(
        w, nothing, v, rate=1.0, decay=np.zeros(1, np.float32), scale=1.0, count=1
    )
    assert np.all(w == -0.5)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25]),
        ("cosine", [1, 0.8535534, 0.5, 0.1464466]),
        ("step", [1, 1, 0.1, 0.01]),
        ("rsqrt", [1, 0.7071068, 0.5773503, 0.5]),
    ],
)
def test_schedules(kind: str, expected: list[float]) -> None:
    schedule = Schedule(kind, steps=4)
    assert [schedule(step) for step in range(4)] == pytest.approx(expected)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_warm_up_climbs_to_the_schedules_start(kind: str) -> None:
    schedule = Schedule(kind, steps=20, warmup=4)
    assert [schedule(step) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1, 1])


def test_no_such_schedule() -> None:
    with pytest.raises(NetError, match="no schedule 'cosin'"):
        Schedule("cosin")
