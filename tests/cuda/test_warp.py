"""The emulated warp computes what NumPy does, and a warp used wrongly is found out."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "warped.py"

# Sums of 16 products of numbers near 1, in float32.
TOLERANCE = 16 * 2.0**-22


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_function_does_what_the_manual_says() -> None:
    seed = random.randrange(2**31)
    done = run(str(seed))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 10
    assert {name: apart for name, apart in found.items() if not apart <= TOLERANCE} == {}, seed


@pytest.mark.parametrize(
    ("bug", "said"),
    [
        ("diverging", "different things"),
        ("absent", "wait for each other"),
        ("far", "there is no lane"),
        ("crooked", "16 bytes at element"),
    ],
)
def test_a_warp_used_wrongly_is_an_error(bug: str, said: str) -> None:
    done = run("wrong", bug)
    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.parametrize(("text", "together"), [("mma.sync.aligned;", True), ("cvt.rn;", False)])
def test_what_a_warp_does_together_stays_where_all_of_it_comes(text: str, together: bool) -> None:
    """LLVM moves other instructions into branches that only some lanes take."""
    pytest.importorskip("numba.cuda.extending")
    from llvmlite import ir

    from netdsl.cuda.warp.ptx import NOTHING, assembly

    module = ir.Module()
    builder = ir.IRBuilder(
        ir.Function(module, ir.FunctionType(NOTHING, []), "f").append_basic_block()
    )
    assembly(builder, NOTHING, text, "", [], memory=False)
    assert ("convergent" in str(module)) is together
