"""What the machine that runs PTX counts, against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from ptx.card import Card
from ptx.counts import Access, Counts
from snippets import run

ROOM = ".shared .align 16 .b8 room[8192];"


def counted(body: str, *, threads: int = 32, blocks: int = 1, rooms: str = "") -> Counts:
    machine = Card(count=Counts)
    given = np.zeros(4096, np.float32)
    run(body, given, 256, threads=threads, blocks=blocks, rooms=rooms, machine=machine)
    ((_, counts),) = machine.launched
    assert isinstance(counts, Counts)
    return counts


@pytest.mark.parametrize(
    ("step", "start", "load", "taken", "least"),
    [
        (4, 0, "u32 %r6", 4, 4),
        (8, 0, "u32 %r6", 8, 4),
        (32, 0, "u32 %r6", 32, 4),
        (0, 0, "u32 %r6", 1, 1),
        (4, 4, "u32 %r6", 5, 4),
        (4, 64, "u32 %r6", 4, 4),
        (16, 0, "v4.u32 {%r6, %r7, %r8, %r9}", 16, 16),
        (16, 16, "v4.u32 {%r6, %r7, %r8, %r9}", 17, 16),
        (64, 0, "v2.u32 {%r6, %r7}", 32, 8),
    ],
)
def test_sectors(step: int, start: int, load: str, taken: int, least: int) -> None:
    """Of a warp whose lanes read `step` bytes apart."""
    kind, _, registers = load.partition(" ")
    body = f"""
        mul.lo.s32 %r5, %r1, {step}; cvt.u64.u32 %rd6, %r5; add.s64 %rd6, %rd2, %rd6;
        ld.global.{kind} {registers}, [%rd6+{start}];
    """
    assert counted(body).total("global") == Access(1, taken, least)


def test_lanes_that_are_not_there_take_nothing() -> None:
    body = "setp.lt.u32 %p1, %r1, 3; @%p1 ld.global.u32 %r5, [%rd5];"
    assert counted(body, threads=96).total("global") == Access(1, 1, 1)


@pytest.mark.parametrize(
    ("step", "load", "taken", "least"),
    [
        (4, "u32 %r6", 1, 1),
        (0, "u32 %r6", 1, 1),
        (8, "u32 %r6", 2, 1),
        (12, "u32 %r6", 1, 1),
        (128, "u32 %r6", 32, 1),
        (132, "u32 %r6", 1, 1),
        (8, "v2.u32 {%r6, %r7}", 2, 2),
        (16, "v4.u32 {%r6, %r7, %r8, %r9}", 4, 4),
        (32, "v4.u32 {%r6, %r7, %r8, %r9}", 8, 4),
        (64, "v4.u32 {%r6, %r7, %r8, %r9}", 16, 4),
        (0, "v4.u32 {%r6, %r7, %r8, %r9}", 4, 4),
    ],
)
def test_turns(step: int, load: str, taken: int, least: int) -> None:
    """Of a warp whose lanes read shared memory `step` bytes apart, after it was filled."""
    kind, _, registers = load.partition(" ")
    body = f"""
        mov.u64 %rd7, room; shl.b32 %r5, %r1, 2; cvt.u64.u32 %rd6, %r5; add.s64 %rd6, %rd7, %rd6;
        mov.u32 %r9, 0;
    $L_fill:
        st.shared.u32 [%rd6], %r1; add.s64 %rd6, %rd6, 128; add.s32 %r9, %r9, 1;
        setp.lt.u32 %p1, %r9, 64; @%p1 bra $L_fill;
        bar.sync 0; mul.lo.s32 %r5, %r1, {step}; cvt.u64.u32 %rd6, %r5; add.s64 %rd6, %rd7, %rd6;
        ld.shared.{kind} {registers}, [%rd6];
    """
    assert counted(body, rooms=ROOM).total("shared") == Access(65, 64 + taken, 64 + least)


def test_instructions_are_counted_by_threads_and_by_warps() -> None:
    """Threads take a loop as often as their number says, modulo four; a warp as often as its
    busiest."""
    body = """
        and.b32 %r5, %r1, 3;
    $L_again:
        setp.eq.u32 %p1, %r5, 0; @%p1 bra $L_done; sub.s32 %r5, %r5, 1; bra.uni $L_again;
    $L_done:
        fma.rn.f32 %f1, %f2, %f3, %f4;
    """
    filled = "mov.f32 %f2, 0f00000000; mov.f32 %f3, %f2; mov.f32 %f4, %f2;" + body
    counts = counted(filled, threads=64, blocks=2)
    kinds = counts.instructions()
    assert kinds["fma"] == 128
    assert kinds["sub.s32"] == 128 * 6 // 4
    assert kinds["bra"] == 128 * (6 + 6 + 4) // 4
    straight = sum(len(part.instructions) for part in counts.program.parts) - 4
    assert counts.issued() == 4 * (straight + 4 * 2 + 3 * 2)
    assert sum(kinds.values()) == 128 * straight + 128 * (2 * 10 + 2 * 6) // 4


def test_blocks_can_be_a_sample() -> None:
    machine = Card(count=Counts, sample=2)
    given = np.zeros(256, np.float32)
    found = run("st.global.u32 [%rd4], %r4;", given, 256, blocks=8, machine=machine)
    ((_, counts),) = machine.launched
    assert counts.total("global") == Access(2, 8, 8)
    assert found[:32].tolist() == list(range(32))
    assert found[-32:].tolist() == list(range(224, 256))
