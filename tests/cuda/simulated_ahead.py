"""What is compiled ahead of runs, in Numba's simulator. A script of its own process.

    NUMBA_ENABLE_CUDASIM=1 python simulated_ahead.py < cases.json

Cases are a list of [text, precision, batches]. Prints of each the kernels that runs at these
batches launch and that are not among those found for batches of 1 and 2, and how many those are.
"""

from __future__ import annotations

import json
import sys

from netdsl import cuda
from netdsl.cuda import ahead
from netdsl.graph.weights import initialise
from netdsl.lang import load


def missed(text: str, precision: str, batches: list[int]) -> tuple[list[str], int]:
    graph = load(text)
    found = ahead.kernels(graph, (1, 2), precision)
    names = set()
    for batch in batches:
        plan = cuda.compile(graph, initialise(graph, 0), batch=batch, precision=precision)
        calls = [call for step in plan.steps for call in step.calls]
        names |= {call.kernel.fn.__name__ for call in calls if call.kernel not in found}
    return sorted(names), len(found)


if __name__ == "__main__":
    print(json.dumps([missed(*case) for case in json.load(sys.stdin)]))
