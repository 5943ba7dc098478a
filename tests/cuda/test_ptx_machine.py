"""What the machine that runs PTX finds, each beside the same without the fault; and how threads go
through a program."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from ptx.machine import Wrong
from snippets import run

SHARED = ".shared .align 16 .b8 one[512];\n.shared .align 16 .b8 two[512];"
HERE = "shl.b32 %r5, %r1, 2; mov.u64 %rd7, one; cvt.u64.u32 %rd8, %r5; add.s64 %rd7, %rd7, %rd8;"
"""%rd7: the thread's own word of the first shared array."""
NEXT = HERE + "xor.b32 %r6, %r5, {0}; cvt.u64.u32 %rd9, %r6; mov.u64 %rd10, one; " + (
    "add.s64 %rd9, %rd10, %rd9;"
)  # fmt: skip
"""%rd9: that of a thread {0} bytes off."""
PAST = "add.s64 %rd8, %rd4, 4;"
COPY = (
    "mul.wide.u32 %rd8, %r4, 16; add.s64 %rd8, %rd2, %rd8; "
    "mov.u64 %rd7, one; cvt.u32.u64 %r7, %rd7; shl.b32 %r8, %r1, 4; add.s32 %r7, %r7, %r8; "
    "cp.async.cg.shared.global [%r7], [%rd8], 16, 16; cp.async.commit_group; "
)
"""Each of 32 threads starts to copy 16 bytes."""
TWO = COPY + (
    "mov.u64 %rd7, two; cvt.u32.u64 %r9, %rd7; add.s32 %r9, %r9, %r8; "
    "cp.async.cg.shared.global [%r9], [%rd8], 16, 16; cp.async.commit_group; "
)
READ = "cvt.u64.u32 %rd9, %r7; ld.shared.f32 %f1, [%rd9]; st.global.f32 [%rd4], %f1;"
OTHER = "xor.b32 %r7, %r7, 16; " + READ

FAULTS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "a store past the end": (
        "setp.lt.u32 %p1, %r4, 32; @%p1 st.global.u32 [%rd4], %r4;",
        "st.global.u32 [%rd4], %r4;",
        "thread 32 of block 0: .*outside of all arrays",
        {"threads": 64},
    ),
    "a load before the beginning": (
        "ld.global.u32 %r5, [%rd5]; st.global.u32 [%rd4], %r5;",
        "ld.global.u32 %r5, [%rd5+-4]; st.global.u32 [%rd4], %r5;",
        "thread 0 of block 0: .*outside",
        {},
    ),
    "an address of 32 bits": (
        "ld.global.u32 %r5, [%rd5];",
        "cvt.u32.u64 %r5, %rd5; cvt.u64.u32 %rd5, %r5; ld.global.u32 %r5, [%rd5];",
        "outside",
        {},
    ),
    "sixteen bytes at a multiple of eight": (
        "mul.wide.u32 %rd6, %r4, 16; add.s64 %rd6, %rd2, %rd6; ld.global.v4.f32 {%f1, %f2, %f3, "
        "%f4}, [%rd6];",
        "mul.wide.u32 %rd6, %r4, 8; add.s64 %rd6, %rd2, %rd6; ld.global.v4.f32 {%f1, %f2, %f3, "
        "%f4}, [%rd6];",
        "thread 1 of block 0: .*misaligned",
        {},
    ),
    "sixteen bytes of which the last are past the end": (
        "setp.lt.u32 %p1, %r4, 31; shl.b32 %r5, %r1, 4; mul.wide.u32 %rd6, %r5, 1; "
        "add.s64 %rd6, %rd2, %rd6; @%p1 ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd6];",
        "add.s32 %r5, %r1, 1; shl.b32 %r5, %r5, 4; mul.wide.u32 %rd6, %r5, 1; "
        "add.s64 %rd6, %rd2, %rd6; ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd6];",
        "thread 31 of block 0: .*outside",
        {},
    ),
    "what was never written in global memory": (
        "st.global.u32 [%rd4], %r4; ld.global.u32 %r5, [%rd4];",
        "ld.global.u32 %r5, [%rd4];",
        "never written",
        {},
    ),
    "what was never written in shared memory": (
        HERE + "st.shared.u32 [%rd7], %r1; ld.shared.u32 %r6, [%rd7];",
        HERE + "ld.shared.u32 %r6, [%rd7];",
        "never written: .* of shared",
        {"rooms": SHARED},
    ),
    "one shared array left for another": (
        HERE + "st.shared.u32 [%rd7], %r1;",
        HERE + "st.shared.u32 [%rd7+500], %r1;",
        "thread 3 of block 0: .*outside",
        {"rooms": SHARED},
    ),
    "what was never written in local memory": (
        "mov.u64 %rd7, own; st.local.u32 [%rd7+4], %r1; ld.local.u32 %r6, [%rd7+4];",
        "mov.u64 %rd7, own; st.local.u32 [%rd7+4], %r1; ld.local.u32 %r6, [%rd7];",
        "never written: .* of local",
        {"rooms": ".local .align 16 .b8 own[16];"},
    ),
    "a read of another warp's word without a barrier": (
        NEXT.format(128)
        + "st.shared.u32 [%rd7], %r1; bar.sync 0; ld.shared.u32 %r6, [%rd9];",
        NEXT.format(128) + "st.shared.u32 [%rd7], %r1; ld.shared.u32 %r6, [%rd9];",
        "reads what another thread wrote.* after thread 32",
        {"rooms": SHARED, "threads": 64, "words": 64},
    ),
    "a read of another lane's word without a barrier": (
        NEXT.format(4)
        + "st.shared.u32 [%rd7], %r1; bar.warp.sync -1; ld.shared.u32 %r6, [%rd9];",
        NEXT.format(4) + "st.shared.u32 [%rd7], %r1; ld.shared.u32 %r6, [%rd9];",
        "reads what another thread wrote.* after thread 1 ",
        {"rooms": SHARED},
    ),
    "a barrier of the warp where another warp's word is read": (
        NEXT.format(128)
        + "st.shared.u32 [%rd7], %r1; bar.sync 0; ld.shared.u32 %r6, [%rd9];",
        NEXT.format(128)
        + "st.shared.u32 [%rd7], %r1; bar.warp.sync -1; ld.shared.u32 %r6, [%rd9];",
        "reads what another thread wrote",
        {"rooms": SHARED, "threads": 64, "words": 64},
    ),
    "a word overwritten that another warp has read": (
        NEXT.format(128) + "st.shared.u32 [%rd7], %r1; bar.sync 0; ld.shared.u32 %r6, [%rd9]; "
        "bar.sync 0; st.shared.u32 [%rd7], %r6;",
        NEXT.format(128) + "st.shared.u32 [%rd7], %r1; bar.sync 0; ld.shared.u32 %r6, [%rd9]; "
        "st.shared.u32 [%rd7], %r6;",
        "overwrites what another thread read",
        {"rooms": SHARED, "threads": 64, "words": 64},
    ),
    "a word that all have read, overwritten by one of them": (
        HERE + "mov.u64 %rd8, one; setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [%rd8], %r1; "
        "bar.sync 0; ld.shared.u32 %r6, [%rd8]; bar.sync 0; @%p1 st.shared.u32 [%rd8], %r1;",
        HERE + "mov.u64 %rd8, one; setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [%rd8], %r1; "
        "bar.sync 0; ld.shared.u32 %r6, [%rd8]; bar.warp.sync -1; @%p1 st.shared.u32 [%rd8], %r1;",
        "overwrites what another thread read",
        {"rooms": SHARED, "threads": 64, "words": 64},
    ),
    "a word that two warps write": (
        "mov.u64 %rd7, one; setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [%rd7], %r1; bar.sync 0; "
        "setp.eq.u32 %p1, %r1, 32; @%p1 st.shared.u32 [%rd7], %r1;",
        "mov.u64 %rd7, one; setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [%rd7], %r1; "
        "setp.eq.u32 %p1, %r1, 32; @%p1 st.shared.u32 [%rd7], %r1;",
        "thread 32 of block 0: .*overwrites what another thread wrote.* after thread 0",
        {"rooms": SHARED, "threads": 64, "words": 64},
    ),
    "a word that two blocks write": (
        "st.global.u32 [%rd4], %r2;",
        "setp.eq.u32 %p1, %r1, 5; @%p1 st.global.u32 [%rd1], %r2;",
        "thread 5 of block 1: .*overwrites .* thread 5 of block 0",
        {"blocks": 2, "words": 64},
    ),
    "a word that another block of the launch wrote": (
        "st.global.u32 [%rd4], %r2; bar.sync 0; ld.global.u32 %r5, [%rd4];",
        "st.global.u32 [%rd4], %r2; bar.sync 0; setp.eq.u32 %p1, %r2, 1; "
        "@%p1 ld.global.u32 %r5, [%rd1];",
        "thread 0 of block 1: .*reads what another thread wrote",
        {"blocks": 2, "words": 64},
    ),
    "a word that another block of the launch read": (
        "ld.global.u32 %r5, [%rd5]; st.global.u32 [%rd4], %r5;",
        "ld.global.u32 %r5, [%rd2]; setp.eq.u32 %p1, %r4, 40; @%p1 st.global.u32 [%rd2], %r5;",
        "thread 8 of block 1: .*overwrites what another thread read",
        {"blocks": 2, "words": 64},
    ),
    "a copy that is not waited for": (
        COPY + "cp.async.wait_group 0; " + READ,
        COPY + READ,
        "may still write",
        {"rooms": SHARED},
    ),
    "a copy of which the last but one is waited for": (
        TWO + "cp.async.wait_group 0; mov.u32 %r7, %r9; " + READ,
        TWO + "cp.async.wait_group 1; mov.u32 %r7, %r9; " + READ,
        "may still write",
        {"rooms": SHARED},
    ),
    "a copy in no group": (
        COPY + "cp.async.wait_group 0; " + READ,
        COPY.replace("cp.async.commit_group; ", "") + "cp.async.wait_group 0; " + READ,
        "may still write",
        {"rooms": SHARED},
    ),
    "another's copy without a barrier after the wait": (
        COPY + "cp.async.wait_group 0; bar.sync 0; " + OTHER,
        COPY + "cp.async.wait_group 0; " + OTHER,
        "reads what another thread wrote",
        {"rooms": SHARED},
    ),
    "another's copy with a barrier before the wait": (
        COPY + "cp.async.wait_group 0; bar.sync 0; " + OTHER,
        COPY + "bar.sync 0; cp.async.wait_group 0; " + OTHER,
        "reads what another thread wrote",
        {"rooms": SHARED},
    ),
    "a copy over what others still read": (
        COPY + "cp.async.wait_group 0; bar.sync 0; " + OTHER + "bar.sync 0; " + COPY,
        COPY + "cp.async.wait_group 0; bar.sync 0; " + OTHER + COPY,
        "overwrites what another thread read",
        {"rooms": SHARED},
    ),
    "a copy of what is not there": (
        COPY.replace("16, 16;", "16, 0;").replace("%rd8, %rd2, %rd8", "%rd8, %rd2, -64")
        + "cp.async.wait_group 0;",
        COPY.replace("%rd8, %rd2, %rd8", "%rd8, %rd2, -64"),
        "outside",
        {"rooms": SHARED},
    ),
    "a barrier that some threads of a warp do not come to": (
        "setp.lt.u32 %p1, %r1, 32; @%p1 bra $L_1; ret;\n$L_1:\nbar.sync 0;",
        "setp.lt.u32 %p1, %r1, 40; @%p1 bra $L_1; bra $L_2;\n$L_1:\nbar.sync 0;\n"
        "$L_2:\nbar.sync 0;",
        "wait for others that never come: 40 threads from thread 0 .* 24 threads from thread 40",
        {"threads": 64, "words": 64},
    ),
    "lanes that meet at different shuffles": (
        "shfl.sync.bfly.b32 %r5|%p2, %r1, 1, 31, -1;",
        "setp.lt.u32 %p1, %r1, 9; @%p1 bra $L_1; shfl.sync.bfly.b32 %r5, %r1, 1, 31, -1; ret;\n"
        "$L_1:\nshfl.sync.bfly.b32 %r5, %r1, 1, 31, -1;",
        "never come",
        {},
    ),
    "a shuffle when some lanes have returned": (
        "shfl.sync.bfly.b32 %r5, %r1, 1, 31, -1;",
        "setp.lt.u32 %p1, %r1, 9; @%p1 bra $L_1; ret;\n$L_1:\nshfl.sync.bfly.b32 %r5, %r1, 1, 31, "
        "-1;",
        "are not here",
        {},
    ),
    "a shuffle of some lanes": (
        "shfl.sync.idx.b32 %r5, %r1, 1, 31, -1;",
        "shfl.sync.idx.b32 %r5, %r1, 1, 31, 65535;",
        "not of all lanes",
        {},
    ),
    "a division by zero": (
        "add.s32 %r5, %r1, 1; div.s32 %r5, %r1, %r5;",
        "div.s32 %r5, %r1, %r1;",
        "thread 0 of block 0: .*divides by zero",
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("seed", [None, 1])
def test_faults_are_found_and_nothing_else(name: str, seed: int | None) -> None:
    """Whether warps go on side by side, or in a random order."""
    right, wrong, said, given = FAULTS[name]
    settings = {"words": 32, **given}
    words = 4 * settings["words"]
    run(right, np.zeros(words, np.float32), **settings, random=order(seed))
    with pytest.raises(Wrong) as caught:
        run(wrong, np.zeros(words, np.float32), **settings, random=order(seed))
    assert re.search(said, str(caught.value)) or (seed and "thread" in str(caught.value))


def order(seed: int | None) -> np.random.Generator | None:
    return None if seed is None else np.random.default_rng(seed)


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_threads_that_went_apart_meet_again(seed: int | None) -> None:
    """Thread t of a block counts down from its number, by ones where it is even, then all shuffle;
    a barrier within the loop is passed by the whole block as often."""
    body = """
    mov.u32 %r5, %r1; mov.u32 %r6, 0; and.b32 %r7, %r1, 1; setp.eq.u32 %p1, %r7, 0;
$L_again:
    setp.eq.u32 %p2, %r5, 0; @%p2 bra $L_done;
    @%p1 bra $L_even; sub.s32 %r5, %r5, 1; add.s32 %r6, %r6, 2; bra.uni $L_again;
$L_even:
    sub.s32 %r5, %r5, 1; add.s32 %r6, %r6, 1; bra.uni $L_again;
$L_done:
    shfl.sync.bfly.b32 %r8|%p3, %r6, 1, 31, -1;
    mov.u32 %r9, 0;
$L_turn:
    bar.sync 0; add.s32 %r9, %r9, 1; setp.lt.u32 %p4, %r9, 3; @%p4 bra $L_turn;
    st.global.u32 [%rd4], %r8;
    """
    found = run(body, np.zeros(4), 192, threads=64, blocks=3, random=order(seed))
    thread = np.arange(192) % 64
    counted = thread * (1 + thread % 2)
    np.testing.assert_array_equal(found, counted.reshape(-1, 2)[:, ::-1].reshape(-1))


@pytest.mark.parametrize(
    ("way", "by", "bounds", "source"),
    [
        ("bfly", 5, 31, lambda lane: lane ^ 5),
        ("down", 3, 31, lambda lane: lane + 3 if lane < 29 else lane),
        ("up", 3, 0, lambda lane: lane - 3 if lane > 2 else lane),
        ("idx", 7, 31, lambda lane: 7),
        ("idx", 3, 31 | 24 << 8, lambda lane: lane // 8 * 8 + 3),
        ("down", 2, 31 | 24 << 8, lambda lane: lane + 2 if lane % 8 < 6 else lane),
    ],
)
def test_shuffles(way: str, by: int, bounds: int, source: Any) -> None:
    body = f"shfl.sync.{way}.b32 %r5|%p1, %r1, {by}, {bounds}, -1; st.global.u32 [%rd4], %r5;"
    assert run(body, np.zeros(4), 32).tolist() == [source(lane) for lane in range(32)]


def test_words_are_extended_and_cut_as_registers_ask() -> None:
    given = np.array([5, -7, 2**31 - 1, -(2**31)] * 8, np.int32)
    body = (
        "ld.global.s32 %rd6, [%rd5]; shr.s64 %rd7, %rd6, 1; st.global.u32 [%rd4], %rd7; "
        "ld.global.u32 %rd8, [%rd5]; shr.u64 %rd8, %rd8, 1; cvt.u32.u64 %r5, %rd8; "
        "st.global.u32 [%rd4+128], %r5; cvt.s64.s32 %rd9, %rd6; shr.u64 %rd9, %rd9, 32; "
        "st.global.u32 [%rd4+256], %rd9;"
    )
    found = run(body, given, 96).view(np.int32).reshape(3, 32)
    np.testing.assert_array_equal(found[0], given >> 1)
    np.testing.assert_array_equal(found[1], given.view(np.uint32) >> 1)
    np.testing.assert_array_equal(found[2], np.where(given < 0, -1, 0))


def test_words_of_sixty_four_bits_and_pairs() -> None:
    given = np.arange(128, dtype=np.uint32)
    body = (
        "mul.wide.u32 %rd6, %r4, 16; add.s64 %rd7, %rd2, %rd6; add.s64 %rd8, %rd1, %rd6; "
        "ld.global.v2.u32 {%r5, %r6}, [%rd7]; ld.global.b64 %rd9, [%rd7+8]; "
        "st.global.v2.b32 [%rd8+8], {%r6, %r5}; st.global.u64 [%rd8], %rd9;"
    )
    found = run(body, given, 128).reshape(32, 4)
    np.testing.assert_array_equal(found, given.reshape(32, 4)[:, [2, 3, 1, 0]])


def test_fours_may_reach_beside_what_was_written_and_give_no_number_there() -> None:
    """Each thread has written a word of its four, and reads all of them."""
    body = (
        "mul.wide.u32 %rd6, %r4, 16; add.s64 %rd7, %rd1, %rd6; st.global.u32 [%rd7+4], %r1; "
        "ld.global.v4.u32 {%r5, %r6, %r7, %r8}, [%rd7]; st.global.u32 [%rd7+8], %r6; "
        "st.global.u32 [%rd7+12], %r5;"
    )
    found = run(body, np.zeros(4, np.float32), 128).reshape(32, 4)
    assert found[:, 2].tolist() == list(range(32))
    assert np.isnan(found[:, 3].view(np.float32)).all()
    with pytest.raises(Wrong, match="never written"):
        run(body.replace("st.global.u32 [%rd7+4], %r1;", ""), np.zeros(4, np.float32), 128)
