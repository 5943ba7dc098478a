"""Tensors that stay packed, in Numba's simulator. A script, because it needs a process of its own.

    NUMBA_ENABLE_CUDASIM=1 python simulated_packed.py agree < cases.json     see `outcome`
    NUMBA_ENABLE_CUDASIM=1 python simulated_packed.py planted < bugs.json    what bugs lead to

Cases are a list of [text, batch, precision, seed].
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from simulated import poisonous, with_bug
from simulated_mixed import drawn

from netdsl.cuda import mixed, pack, plan, tensor
from netdsl.cuda.packing import NEVER, decide

Floats = np.ndarray
Case = tuple[str, int, str, int]


@contextmanager
def each_packs_for_itself() -> Iterator[None]:
    """No tensor stays packed within the block."""
    plan.decide = lambda graph, held, precision, packs: decide(
        graph, held, precision, lambda node: NEVER
    )
    try:
        yield
    finally:
        plan.decide = decide


def outputs(case: Case) -> tuple[dict[str, Floats], list[str]]:
    """What a net gives, and the kernels that it launches."""
    _, made, _, inputs = drawn(case)
    calls = [call.kernel.fn.__name__ for step in made.steps for call in step.calls]
    return made.run(inputs), calls


def outcome(case: Case) -> tuple[bool, list[str]]:
    """Whether a net gives what it gives where every layer packs its input for itself, to the bit;
    and the kernels that it launches."""
    found, calls = outputs(case)
    with each_packs_for_itself():
        wanted, _ = outputs(case)
    assert list(found) == list(wanted)
    assert not any(np.isnan(values).any() for values in wanted.values())
    return all(np.array_equal(found[name], wanted[name]) for name in wanted), calls


def shown(case: Case) -> str:
    """What shows that something is wrong; "" where nothing does."""
    try:
        same, _ = outcome(case)
    except (Exception, AssertionError) as error:
        return type(error).__name__
    return "" if same else "other bits"


def main() -> None:
    poisonous()
    given: Any = json.load(sys.stdin)
    print(json.dumps([outcome(case) for case in given]))


if __name__ == "__main__":
    main()
