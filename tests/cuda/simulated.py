"""The CUDA kernels in Numba's simulator. A script, because it needs a process of its own.

    NUMBA_ENABLE_CUDASIM=1 python simulated.py agree < cases.json     differences from the reference
    NUMBA_ENABLE_CUDASIM=1 python simulated.py covered < cases.json   kernels and ops there are, met
    NUMBA_ENABLE_CUDASIM=1 python simulated.py planted < bugs.json    what planted bugs lead to
    NUMBA_ENABLE_CUDASIM=1 python simulated.py holes < cases.json     whether NaN and -inf come out
    NUMBA_ENABLE_CUDASIM=1 python simulated.py net                    a Net on the devices

Cases are a list of [text, batch]. Whatever a kernel does not write is NaN: the arena, shared and
local memory. The simulator lacks the alignment of shared arrays, so it is given one to ignore.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import baton
import numpy as np
from numba.cuda.simulator import kernelapi

from netdsl import cuda
from netdsl.lang import load
from netdsl.reference import interpret

sys.path.insert(0, str(Path(__file__).parent.parent / "cpu"))


def poisoned(shape: Any, dtype: Any) -> np.ndarray:
    """An array in which nothing is written yet."""
    return np.full(shape, np.nan, kernelapi.numpy_support.as_dtype(dtype))


def shared_array(self: Any, shape: Any, dtype: Any, alignment: int | None = None) -> np.ndarray:
    """The block's array of this line of the kernel, as the simulator's own finds it."""
    caller = sys._getframe(1)
    key = caller.f_code.co_filename, caller.f_lineno
    return self._allocations.setdefault(key, poisoned(shape, dtype))


def local_array(self: Any, shape: Any, dtype: Any, alignment: int | None = None) -> np.ndarray:
    return poisoned(shape, dtype)


def outcome(text: str, batch: int, *, twice: bool = False) -> float:
    """The largest difference of any output from the reference, in poisoned memory."""
    from agree import difference, drawn_inputs, drawn_weights

    graph = load(text)
    weights, inputs = drawn_weights(graph), drawn_inputs(graph, batch)
    plan = cuda.compile(graph, weights, batch=batch, aux=True)
    plan.arena.copy_to_device(np.full(plan.arena.shape, np.nan, np.float32))
    found = plan.run(inputs)
    if twice:
        for name, values in plan.run(inputs).items():
            np.testing.assert_array_equal(values, found[name])
    wanted = interpret(graph, weights, inputs, aux=True)
    assert list(found) == list(wanted)
    return max(difference(found[name], wanted[name]) for name in wanted)


def holes(text: str, batch: int) -> bool:
    """Whether a pool of NaN and -inf among numbers equals the reference, to the bit."""
    graph = load(text)
    rng = np.random.default_rng()
    x = rng.normal(size=(batch, *graph[graph.inputs[0]].shape)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[rng.random(x.shape) < 0.5] = -np.inf
    inputs = {graph.inputs[0]: x}
    found = cuda.compile(graph, {}, batch=batch).run(inputs)
    wanted = interpret(graph, {}, inputs)
    return all(np.array_equal(found[name], wanted[name], equal_nan=True) for name in wanted)


def kernels() -> dict[int, str]:
    """Every kernel of the package, by its identity; but for those of the tensor cores and of
    Winograd's algorithm, which test_mixed.py and test_winograd.py ask for."""
    import netdsl.cuda as package
    from netdsl.cuda.depthwise import STRIPS
    from netdsl.cuda.doubled import DOUBLED
    from netdsl.cuda.gemm import KERNELS
    from netdsl.cuda.reduce import DENSE
    from netdsl.cuda.strips import LARGEST, MEANS

    found = {id(kernel): f"conv_tile {i}" for i, kernel in enumerate(KERNELS.values())}
    found |= {id(kernel): f"conv_strips {tuple(strip)}" for strip, kernel in STRIPS.items()}
    found |= {id(kernel): f"conv_doubled {size}" for size, kernel in DOUBLED.items()}
    found[id(DENSE[1])] = "dense_rows"
    for table in (LARGEST, MEANS):
        found |= {
            id(kernel): f"{kernel.fn.__name__} {w.size}s{w.stride}" for w, kernel in table.items()
        }
    for info in iter_modules(package.__path__):
        if info.name in ("pack", "tensor", "ahead") or info.name.startswith("winograd"):
            continue  # ahead has them from the first; test_winograd.py asks for the last
        module = import_module(f"{package.__name__}.{info.name}")
        for name, value in vars(module).items():
            noting = name.endswith("_noting")  # in training, see test_back.py
            if hasattr(value, "grid_dim") and not value._device and not noting:
                found.setdefault(id(value), name)
    return found


def covered(cases: list[tuple[str, int]]) -> dict[str, list[str]]:
    """The kernels and ops that there are, and those that the cases meet."""
    from agree import drawn_weights

    from netdsl.cuda.table import RECIPES
    from netdsl.graph.fused import parts
    from netdsl.graph.passes import without_dropout

    there, met, ops = kernels(), set(), set()
    for text, batch in cases:
        graph = load(text)
        plan = cuda.compile(graph, drawn_weights(graph), batch=batch, aux=True)
        met |= {there[id(call.kernel)] for step in plan.steps for call in step.calls}
        ops |= {type(parts(node).base).__name__ for node in without_dropout(graph)}
    return {
        "kernels": sorted(there.values()),
        "kernels_met": sorted(met),
        "ops": sorted(op.__name__ for op in RECIPES),
        "ops_met": sorted(ops - {"Input"}),
    }


def with_bug(right: ModuleType, old: str, new: str) -> ModuleType:
    """A module again, with `old`, which stands in its source once, replaced by `new`."""
    path = Path(str(right.__file__))
    source = path.read_text(encoding="utf-8")
    assert source.count(old) == 1, f"{source.count(old)} times in {path.name}: {old}"
    module = ModuleType(f"{path.stem}_with_a_bug")
    exec(compile(source.replace(old, new), str(path), "exec"), vars(module))
    return module


def planted(bugs: list[tuple[str, str]], cases: list[tuple[str, int]]) -> Iterator[str]:
    """For each bug, what the first case that shows it ends in; "" where none does."""
    from netdsl.cuda import conv, gemm

    for old, new in bugs:
        conv.KERNELS = with_bug(gemm, old, new).KERNELS
        yield next(filter(None, (_shown(*case) for case in cases)), "")


def _shown(text: str, batch: int) -> str:
    try:
        apart = outcome(text, batch)
    except Exception as error:
        return type(error).__name__
    return "" if apart < 1e-5 else str(apart)


def on_devices() -> dict[str, Any]:
    """A net run by its name for the device, and what is said when it does not fit."""
    from netdsl import Net
    from netdsl.cuda import launch
    from netdsl.faults import NetError
    from netdsl.graph.weights import initialise
    from netdsl.train.engine import make_plan
    from netdsl.train.settings import Settings

    net = Net.load(text="input 2x4x4; conv3x3p1(3) -> relu -> gap -> fc(2)")
    x = np.random.default_rng(0).normal(size=(3, 2, 4, 4)).astype(np.float32)
    wanted = net.run(x, device="reference")
    apart = [
        float(np.abs(net.run(x, device=device, batch=batch) - wanted).max())
        for device, batch in (("cuda", 2), ("auto", 3))
    ]
    rounded = [
        float(np.abs(net.run(x, device="cuda", precision=precision) - wanted).max())
        for precision in ("tf32", "bf16")
    ]
    plan: Any = net.runner(3, device="cuda").plan
    timings = plan.profile({net.graph.inputs[0]: x}, repeats=2)
    wide = Net.load(text="input 64x64x64; conv3x3p1(64) -> maxpool2 -> gap -> fc(2)")
    said = []
    for one, batch, free in ((net, 70000, None), (net, 4, 100), (wide, 9000, None)):
        launch.free_bytes = lambda free=free: free
        try:
            one.runner(batch, device="cuda")
        except NetError as error:
            said.append(str(error))
    for precision in ("fp32", "bf16"):
        settings = Settings(batch=9000, device="cuda", precision=precision)
        try:
            make_plan(wide.graph, initialise(wide.graph, 0), settings)
        except NetError as error:
            said.append(str(error))
    layers = [timing.name for timing in timings if timing.ms > 0]
    return {"apart": apart, "rounded": rounded, "said": said, "layers": layers, "note": plan.note}


def poisonous() -> None:
    """Lets the simulator poison memory, and run one thread at a time."""
    warnings.simplefilter("ignore")
    kernelapi.FakeCUDAShared.array = shared_array
    kernelapi.FakeCUDALocal.array = local_array
    baton.install()


def main() -> None:
    poisonous()
    if sys.argv[1] == "net":
        print(json.dumps(on_devices()))
        return
    given = json.load(sys.stdin)
    if sys.argv[1] == "covered":
        print(json.dumps(covered(given)))
    elif sys.argv[1] == "holes":
        print(json.dumps([holes(text, batch) for text, batch in given]))
    elif sys.argv[1] == "planted":
        print(json.dumps(list(planted(given["bugs"], given["cases"]))))
    else:
        print(
            json.dumps(
                [outcome(text, batch, twice=i == 0) for i, (text, batch) in enumerate(given)]
            )
        )


if __name__ == "__main__":
    main()
