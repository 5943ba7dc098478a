"""What tuning found: for layers of a shape, the way that was fastest on this CPU, kept as JSON.

The file lies beside the kernels it was measured with, so that others never meet it:

    {"AMD EPYC": {"batch 1, 2 threads": {"conv3x3p1(64) of 64x56x56": "winograd4 by tiles of 28"}}}
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netdsl.cpu import cache
from netdsl.cpu.processor import cpu_name
from netdsl.cpu.task import Task
from netdsl.ops import show

Choices = Mapping[str, str]
"""The name of a way (choices.py) by the layer it is for (`layer`)."""


def layer(task: Task) -> str:
    """What a choice is kept under: the op, what is fused into it, and the shapes of its inputs."""
    return f"{task.node.op.word()} of {', '.join(map(show, task.shapes))}"


def setting(batch: int, threads: int) -> str:
    """What else a choice hangs on."""
    return f"batch {batch}, {threads} thread{'s' if threads > 1 else ''}"


def path() -> Path:
    """The file of this version's choices. It may not exist."""
    return cache.folder() / "tuned.json"


def choices(batch: int, threads: int) -> Choices:
    """What is known for this CPU, batch and threads; nothing where the file is damaged."""
    if not path().is_file():
        return {}
    found = _read().get(cpu_name(), {}).get(setting(batch, threads), {})
    return {k: v for k, v in found.items() if isinstance(v, str)} if _whole(found) else {}


def keep(batch: int, threads: int, found: Choices, measured: list[str]) -> None:
    """Keeps choices in place of all that was known of the measured layers. Raises OSError."""
    whole = _read()
    here = whole.setdefault(cpu_name(), {})
    known = here.get(setting(batch, threads), {})
    left = {k: v for k, v in known.items() if k not in measured} if _whole(known) else {}
    here[setting(batch, threads)] = dict(sorted({**left, **found}.items()))
    beside = path().with_name(f".{path().name}.{os.getpid()}")
    path().parent.mkdir(parents=True, exist_ok=True)
    beside.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    beside.replace(path())


def clear() -> bool:
    """Forgets all choices; whether there were any."""
    with contextlib.suppress(OSError):
        path().unlink()
        return True
    return False


def about() -> str | None:
    """What there is, in words; None for nothing."""
    if not path().is_file():
        return None
    settings = _read().get(cpu_name(), {})
    count = sum(len(found) for found in settings.values() if _whole(found))
    if not count:
        return f"nothing of this CPU, or damaged: {path()}"
    return f"{count} layer{'s' if count > 1 else ''}: {path()}"


def _read() -> dict[str, Any]:
    """The whole file; empty where it is not one of ours."""
    try:
        found = json.loads(path().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {k: v for k, v in found.items() if _whole(v)} if _whole(found) else {}


def _whole(found: object) -> bool:
    return isinstance(found, dict)
