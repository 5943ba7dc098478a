"""Thread counts, and the layer they come from."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from agree import drawn_inputs

from netdsl import cpu
from netdsl.cpu import region, threads
from netdsl.faults import NetError
from netdsl.lang import load


@pytest.mark.parametrize("asked", [0, -3])
def test_no_threads_are_refused(asked: int) -> None:
    with pytest.raises(NetError, match=f"{asked} threads"):
        cpu.compile(load("input 3x4x4; relu"), {}, batch=1, threads=asked)


def test_more_than_there_are_is_all_of_them() -> None:
    assert threads.count(10_000) == threads.available() == threads.count(None)
    assert threads.count(1) == 1


def test_any_count_gives_the_same_numbers() -> None:
    graph = load("input 40x9x11; lrn -> maxpool3s2 -> sigmoid -> ln")
    weights = {name: np.ones(p.shape, np.float32) for name, p in graph.all_parameters().items()}
    inputs = drawn_inputs(graph, 3)
    found = [cpu.compile(graph, weights, batch=3, threads=n).run(inputs)["ln1"] for n in (1, 2)]
    np.testing.assert_array_equal(found[0], found[1])


def test_a_fast_layer_is_taken_and_without_one_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_THREADING_LAYER", raising=False)
    threads.layer.cache_clear()
    try:
        assert threads.layer() in threads.LAYERS
        assert threads.advice() is None
        monkeypatch.setattr(threads, "loads", lambda name: False)
        threads.layer.cache_clear()
        assert threads.layer() == "workqueue"
        assert "pip install tbb" in (threads.advice() or "")
    finally:
        threads.layer.cache_clear()


def test_pypis_tbb_serves_where_openmp_is_missing() -> None:
    try:
        files = metadata.files("tbb") or []
    except metadata.PackageNotFoundError:
        files = []
    if not any(file.name == "libtbb.so.12" for file in files):
        pytest.skip("PyPI's tbb is not installed")
    code = (
        "from netdsl.cpu import threads; threads.GNU_OPENMP = 'none.so'\n"
        "import sys; sys.modules['numba.np.ufunc.omppool'] = None\n"
        "print(threads.layer())\n"
        "import numba.np.ufunc.tbbpool"
    )
    env = {
        k: v for k, v in os.environ.items() if k not in {"NUMBA_THREADING_LAYER", "LD_LIBRARY_PATH"}
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("tbb", "")


RUN = """
import numpy as np
from netdsl import cpu
from netdsl.cpu import threads
from netdsl.lang import load

x = np.arange(-1024, 1024, dtype=np.float32).reshape(1, 2, 32, 32)
found = cpu.compile(load("input 2x32x32; relu"), {}, batch=1, threads=2).run({"input": x})
print(threads.layer(), (found["relu1"] == np.maximum(x, 0)).all())
"""


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["omp", "tbb", "workqueue"])
def test_every_layer_runs(layer: str) -> None:
    if layer in threads.LAYERS and not threads.loads(layer):
        pytest.skip(f"{layer} does not load here")
    told = subprocess.run(
        [sys.executable, "-c", RUN],
        env=os.environ | {"NUMBA_THREADING_LAYER": layer},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.stdout.split() == [layer, "True"], told.stderr


def test_a_chosen_layer_that_does_not_load_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_THREADING_LAYER", "tbb")
    monkeypatch.setattr(threads, "loads", lambda name: False)
    threads.layer.cache_clear()
    try:
        with pytest.raises(NetError, match="tbb, which NUMBA_THREADING_LAYER names"):
            threads.layer()
    finally:
        threads.layer.cache_clear()


def test_a_chosen_layer_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_THREADING_LAYER", "tbb")
    threads.layer.cache_clear()
    try:
        assert threads.layer() == "tbb"
    finally:
        threads.layer.cache_clear()


def test_info_says_what_there_is() -> None:
    found = cpu.info()
    assert set(found) >= {"cpu", "isa", "threads", "threading_layer", "cache"}
    assert found["threads"] >= 1


def test_without_openmp_numba_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = load("input 2x32x32; relu -> maxpool2")
    x = drawn_inputs(graph, 2)
    wanted = cpu.compile(graph, {}, batch=2, threads=2).run(x)["maxpool1"]
    monkeypatch.setattr(region, "run", lambda: None)
    found = cpu.compile(graph, {}, batch=2, threads=2).run(x)["maxpool1"]
    np.testing.assert_array_equal(found, wanted)


FORK = """
import os
import numpy as np
from netdsl import cpu
from netdsl.lang import load

x = np.arange(-1024, 1024, dtype=np.float32).reshape(1, 2, 32, 32)
plan = cpu.compile(load("input 2x32x32; relu"), {}, batch=1, threads=2)

def right():
    return (plan.run({"input": x})["relu1"] == np.maximum(x, 0)).all()

assert right()
child = os.fork()
if child == 0:
    os._exit(0 if right() else 1)
assert os.waitpid(child, 0)[1] == 0
assert right()
print("both")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_runs_a_plan() -> None:
    told = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, check=False, timeout=100
    )
    assert told.stdout == "both\n", told.stderr
