"""What the threads of a warp do together, and what only PTX can say.

Two implementations of the same functions: `ptx` for cards, `emulated` for Numba's simulator, which
knows none of this. Both take what PTX's manual lays down: which lane holds which element of a
matrix fragment, where a lane of `matrices` reads, when an asynchronous copy has arrived.

Arrays are float32, int32 or uint32; indices count their elements. Everything is called by all
lanes of a warp at once, but for the loads, stores, conversions and copies of a thread's own.

    load4(array, i)             the four elements at i, read at once; 4 divides i (16 bytes)
    load_if(array, i, there)    the float32 at i of an array in device memory; zero unless there,
                                which is a truth, or a word (int32) that is not zero
    base_of(array, i)           the address of element i of an array in device memory
    load_at(array, base, i)     the element i further on than that of this address
    store2(array, i, a, b)      two neighbours at once; 2 divides i
    store4(array, i, a, b, c, d)
    shuffle_xor(x, mask)        the x of the lane whose number is this one's ^ mask
    shuffle_down(x, by)         the x of the lane `by` further on; this one's past the last
    shuffle(x, lane)            the x of that lane
    sync_warp()                 a barrier of the warp
    copy16(shared, to, array, i, there)
                                starts to copy four elements into shared memory; zeros unless there
    copy16_kept                 the same, and keeps them in the multiprocessor's cache
    commit()                    closes a group of this thread's copies
    arrived(n)()                waits until all of this thread's groups but the last n have arrived;
                                other threads see them after the next barrier
    matrices(shared, i)         four 8 x 8 matrices of 16-bit halves, rows of 16 bytes, as four
                                registers (ldmatrix.x4): lane l says where row l % 8 of matrix l / 8
                                begins, and is given word l % 4 of row l / 4 of each
    matrices_across(shared, i)  the same, each matrix turned: lane l is given of column l / 4 the
                                halves of rows 2 (l % 4), the lower one, and 2 (l % 4) + 1
    mma_tf32(c..., a..., b...)  c + a b for a of 16 x 8, b of 8 x 8, c of 16 x 8 in float32
    mma_bf16(c..., a..., b...)  the same for a of 16 x 16, b of 16 x 8
    larger(a, b)                the larger, NaN where either is
    larger_bf16(a, b)           the same of both halves of two words
    as_tf32(x)                  x rounded to 10 bits behind the point, half away from zero
    bits_of(x)                  the word that stands for a float32
    float_of(word)              the float32 that a word stands for
    as_bf16(low, high)          two values rounded to bfloat16, half to even, in one word
"""

from __future__ import annotations

from netdsl.cuda.sizes import SIMULATED, THREADS

if SIMULATED:
    from netdsl.cuda.warp.emulated import (
        arrived,
        as_bf16,
        as_tf32,
        base_of,
        bits_of,
        commit,
        copy16,
        copy16_kept,
        float_of,
        larger,
        larger_bf16,
        load4,
        load_at,
        load_if,
        matrices,
        matrices_across,
        mma_bf16,
        mma_tf32,
        shuffle,
        shuffle_down,
        shuffle_xor,
        store2,
        store4,
        sync_warp,
    )
else:
    from netdsl.cuda.warp.ptx import (
        arrived,
        as_bf16,
        as_tf32,
        base_of,
        bits_of,
        commit,
        copy16,
        copy16_kept,
        float_of,
        larger,
        larger_bf16,
        load4,
        load_at,
        load_if,
        matrices,
        matrices_across,
        mma_bf16,
        mma_tf32,
        shuffle,
        shuffle_down,
        shuffle_xor,
        store2,
        store4,
        sync_warp,
    )

__all__ = [
    "LANES",
    "arrived",
    "as_bf16",
    "as_tf32",
    "base_of",
    "bits_of",
    "commit",
    "copy16",
    "copy16_kept",
    "float_of",
    "larger",
    "larger_bf16",
    "load4",
    "load_at",
    "load_if",
    "matrices",
    "matrices_across",
    "mma_bf16",
    "mma_tf32",
    "shuffle",
    "shuffle_down",
    "shuffle_xor",
    "store2",
    "store4",
    "sync_warp",
]

LANES = min(32, THREADS)
"""Lanes of a warp in blocks of THREADS; fewer than 32 where the simulator's blocks are smaller."""
