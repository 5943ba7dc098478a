"""`netdsl info`: versions, the CPU, threads, where kernels and nets are kept, devices."""

from __future__ import annotations

from typing import Annotated, Any

import typer

PACKAGES = ("numba", "llvmlite", "numpy", "pillow", "safetensors", "lark")


def info(
    json: Annotated[bool, typer.Option("--json", help="A JSON object.")] = False,
) -> None:
    """Say what runs here: versions, CPU, threading layer, cache, devices."""
    found = facts()
    if json:
        from json import dumps

        print(dumps(found, indent=2, default=str))
        return
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name.replace('_', ' '):<{width}}  {_shown(value)}")


def facts() -> dict[str, Any]:
    """All that is said, by name."""
    import platform
    from importlib.metadata import version

    from netdsl import __version__, cpu, cuda
    from netdsl.graph import known

    return {
        "netdsl": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "platform": platform.platform(),
        **cpu.info(),
        "nets": str(known.folder()),
        **cuda.about(),
        "devices": ["cpu", *(f"cuda: {card}" for card in cuda.devices()), "reference"],
    }


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
