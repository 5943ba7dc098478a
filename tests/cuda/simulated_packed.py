"""Tensors that stay packed, in Numba's simulator. A script, because it needs a process of its own.

    NUMBA_ENABLE_CUDASIM=1 python simulated_packed.py agree < cases.json     see `outcome`
    NUMBA_ENABLE_CUDASIM=1 python simulated_packed.py planted < bugs.json    what bugs lead to

Cases are a list of [text, batch, precision, seed].
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from simulated import poisonous, with_bug
from simulated_mixed import drawn, tensor_kernels
from unpacked import each_packs_for_itself

from netdsl.cuda import mixed, pack, tensor, units

Floats = np.ndarray
Case = tuple[str, int, str, int]

HOMES: dict[str, tuple[Any, Any, str]] = {
    "pack": (pack, pack, "conv_finish_packed"),
    "units": (units, units, "UNITS"),
}
"""Where kernels are made, and where they are looked up by which name."""


def outputs(case: Case) -> tuple[dict[str, Floats], list[str]]:
    """What a net gives, and the kernels that it launches."""
    _, plan, _, inputs = drawn(case)
    names = {id(k): f"max_units {w.size}s{w.stride} {p}" for (w, p), k in units.UNITS.items()}
    names |= {id(k): f"conv_tensor {t.m}x{t.n} {p}" for (t, p), k in tensor.TENSOR_KERNELS.items()}
    calls = [call.kernel for step in plan.steps for call in step.calls]
    return plan.run(inputs), [names.get(id(kernel), kernel.__name__) for kernel in calls]


def outcome(case: Case) -> tuple[bool, list[str], int]:
    """Whether a net gives what it gives where every layer packs its input for itself, to the bit;
    the kernels that it launches, and how many it would launch then."""
    found, calls = outputs(case)
    with each_packs_for_itself():
        wanted, others = outputs(case)
    assert list(found) == list(wanted)
    assert not any(np.isnan(values).any() for values in wanted.values())
    return all(np.array_equal(found[n], wanted[n]) for n in wanted), calls, len(others)


def shown(case: Case) -> str:
    """What shows that something is wrong; "" where nothing does."""
    try:
        same, _, _ = outcome(case)
    except (Exception, AssertionError) as error:
        return type(error).__name__
    return "" if same else "other bits"


def planted(bugs: list[tuple[str, str, str]], cases: list[Case]) -> list[str]:
    """For each bug, a module and what in it is replaced by what, how the first case shows it."""
    found = []
    for name, old, new in bugs:
        if name in HOMES:
            home, user, table = HOMES[name]
            wrong = getattr(with_bug(home, old, new), table)
        else:
            user, table, wrong = mixed, "TENSOR_KERNELS", tensor_kernels(name, old, new)
        right = getattr(user, table)
        setattr(user, table, wrong)
        found.append(next(filter(None, map(shown, cases)), ""))
        setattr(user, table, right)
    return found


def main() -> None:
    poisonous()
    given: Any = json.load(sys.stdin)
    if sys.argv[1] == "planted":
        print(json.dumps(planted(given["bugs"], given["cases"])))
    else:
        print(json.dumps([outcome(case) for case in given]))


if __name__ == "__main__":
    main()
