"""Small kernels in PTX for the tests of the machine that runs it."""

from __future__ import annotations

from typing import Any

import numpy as np
from ptx.card import Card
from ptx.machine import Program
from ptx.text import parsed

HEAD = """
.version 9.0
.target sm_90
.address_size 64
{rooms}
.visible .entry snippet({parameters})
{{
    .reg .pred %p<9>; .reg .f32 %f<40>; .reg .b32 %r<40>; .reg .b64 %rd<20>;
    ld.param.u64 %rd1, [p4]; cvta.to.global.u64 %rd1, %rd1;   // the arena
    ld.param.u64 %rd2, [p11];                                 // what is given
    mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x;
    mad.lo.s32 %r4, %r2, %r3, %r1;                            // the thread of all
    mul.wide.u32 %rd3, %r4, 4;
    add.s64 %rd4, %rd1, %rd3;                                 // its word of the arena
    add.s64 %rd5, %rd2, %rd3;                                 // and of what is given
{body}
    ret;
}}
"""


class Snippet:
    """Stands for a kernel."""

    class py_func:  # noqa: N801 - as Numba calls it
        __name__ = "snippet"


def run(
    body: str,
    given: Any,
    words: int,
    *,
    threads: int = 32,
    blocks: int = 1,
    rooms: str = "",
    **card: Any,
) -> Any:
    """The words of the arena, of which none was written before, after a kernel with this body.
    card: settings of the machine; or itself."""
    kinds = ["u64"] * 21 + ["u32"]
    parameters = ", ".join(f".param .{kind} p{i}" for i, kind in enumerate(kinds))
    machine, kernel = card.pop("machine", None) or Card(**card), Snippet()
    text = HEAD.format(rooms=rooms, parameters=parameters, body=body)
    machine.programs[kernel] = Program(parsed(text))
    arena = np.full(words, np.nan, np.float32)
    given = np.asarray(given).view(np.float32).reshape(-1)
    machine.configured(kernel, (blocks, 1, 1), threads)(arena, given, np.zeros(4, np.int32), 7)
    return arena.view(np.uint32)
