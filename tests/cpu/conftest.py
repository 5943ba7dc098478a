"""What the tests of this folder share: what they import (`agree`), and plans made afresh."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def planned_afresh() -> Iterator[None]:
    """Forgets which way each layer goes, since tests change what that hangs on."""
    forget()
    yield
    forget()


@pytest.fixture
def no_thirds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans as on a CPU without AMX, in single precision: tests/cpu/test_thirds.py has the rest."""
    from netdsl.cpu import thirds

    monkeypatch.setattr(thirds, "matrices", lambda: False)


def forget() -> None:
    from netdsl.cpu import choices, costs, tiling, winograd_ways

    choices.choice.cache_clear()
    costs.turn.cache_clear()
    tiling.of_kind.cache_clear()
    tiling.product_tile.cache_clear()
    tiling._paces.cache_clear()
    winograd_ways.planned.cache_clear()
    winograd_ways._cheapest.cache_clear()
