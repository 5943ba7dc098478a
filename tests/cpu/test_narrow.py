"""Kernels compiled as on a CPU without AVX-512 give what those of this CPU give."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from llvmlite import binding

from netdsl.cpu.micro.shapes import wide

HERE = Path(__file__).parent


def run(features: str, folder: Path, code: list[str]) -> str:
    """What a fresh Python with these CPU features prints."""
    given = {"NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, *code],
        env={**os.environ, **given},
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def without(word: str) -> str:
    """This CPU's features but those whose names start so."""
    features = binding.get_host_cpu_features()
    return ",".join(
        ("+" if on and not k.startswith(word) else "-") + k for k, on in features.items()
    )


@pytest.mark.slow
@pytest.mark.skipif(not wide(), reason="this CPU has no AVX-512 to leave out")
def test_layers_on_narrow_registers(tmp_path):
    """The layers' own tests, in a process that compiles for AVX2."""
    features = without("avx512")
    assert run(features, tmp_path, ["-c", ASKED]).strip() == "False 6"
    tests = ["conv", "winograd", "rounding", "short", "tight", "pools", "response"]
    tests = [f"test_{name}.py" for name in tests]
    run(features, tmp_path, ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests])


ASKED = """
from netdsl.cpu.micro import tiles
from netdsl.cpu.micro.shapes import wide
print(wide(), max(t.shape.pixels for t in tiles() if t.kind == 16))
"""
