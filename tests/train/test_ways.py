"""Layers in training go by no way that packs sums or parts of their weights."""

from __future__ import annotations

import numpy as np
import pytest

import netdsl
from netdsl.cpu import costs, strassen, thirds, winograd_costs, winograd_ways
from netdsl.cpu.choices import choice
from netdsl.train.gradients import TrainingPlan


@pytest.mark.parametrize("known", [costs.WIDE, costs.FAST], ids=["wide", "fast"])
def test_steps_are_those_of_direct_sums(
    monkeypatch: pytest.MonkeyPatch, known: costs.Rates
) -> None:
    """1x1 layers for which `run` takes Strassen's algorithm or parts of floats on CPUs that have
    them."""
    for module in (costs, strassen, thirds, winograd_costs, winograd_ways):
        if hasattr(module, "rates"):
            monkeypatch.setattr(module, "rates", lambda: known)
    monkeypatch.setattr(costs.Work, "strassen", lambda self: -1.0)
    monkeypatch.setattr(thirds, "cycles", lambda task: -1.0)
    choice.cache_clear()
    net = netdsl.load(text="input 64x9x9; conv1(64) -> relu; conv1(32); gap; fc(10)")
    x = np.random.default_rng(1).normal(0, 1, (3, 64, 9, 9)).astype(np.float32)
    found = []
    for exact in (False, True):
        plan = TrainingPlan(net.graph, net.weights, batch=3, exact=exact)
        (made,) = plan.forward({net.graph.inputs[0]: x}, step=1).values()
        plan.backward({name: np.ones_like(made) for name in plan.graph.outputs})
        found.append((made, plan.gradients()))
    choice.cache_clear()
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    for name, gradient in found[0][1].items():
        np.testing.assert_allclose(gradient, found[1][1][name], rtol=1e-4, atol=1e-5)
