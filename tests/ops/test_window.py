"""Output sizes of sliding windows, against counting the windows one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netdsl.faults import OpFault
from netdsl.ops import Window, Word, build


def windows(size: int, extent: int, stride: int, lo: int, hi: int, ceil: bool) -> int:
    """How many windows there are: walk along the padded axis and count.

    Rounding up, one more is taken as long as cells are left over, but never one that starts in
    the end padding.
    """
    end, count, start = size + lo + hi, 0, 0
    while start + extent <= end or (ceil and start - stride + extent < end):
        if ceil and start >= size + lo:
            break
        count, start = count + 1, start + stride
    return count


@given(
    st.integers(1, 40),
    st.integers(1, 7),
    st.integers(1, 5),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(1, 3),
    st.booleans(),
)
def test_output_counts_the_windows(
    size: int, kernel: int, stride: int, lo: int, hi: int, dilation: int, ceil: bool
) -> None:
    window = Window((kernel,), (stride,), ((lo, hi),), (dilation,), ceil)
    extent = dilation * (kernel - 1) + 1
    expected = windows(size, extent, stride, lo, hi, ceil)
    if size + lo + hi < extent:
        with pytest.raises(OpFault, match="does not fit"):
            window.output((size,))
    elif not ceil or lo < extent:
        assert window.output((size,)) == (expected,)


@pytest.mark.parametrize(
    ("size", "word", "out"),
    [
        (112, Word("maxpool", (3,), {"s": (2,), "ceil": ()}), 56),
        (112, Word("maxpool", (3,), {"s": (2,), "p": (1,), "ceil": ()}), 57),
        (32, Word("maxpool", (1,), {"s": (2,), "ceil": ()}), 16),
        (6, Word("maxpool", (2,), {"s": (3,), "ceil": ()}), 2),
        (227, Word("conv", (11,), {"s": (4,), "p": (2,)}, (64,)), 56),
        (225, Word("conv", (3,), {"s": (2,), "same": ()}, (8,)), 113),
    ],
)
def test_sizes_that_trip_implementations(size: int, word: Word, out: int) -> None:
    op = build(word, ((3, size, size),))
    assert op.output(((3, size, size),))[1:] == (out, out)


def test_same_puts_the_odd_cell_at_the_end() -> None:
    op = build(Word("conv", (2,), {"same": ()}, (4,)), ((3, 9),))
    assert op.window.padding == ((0, 1),)  # type: ignore[attr-defined]
    assert op.output(((3, 9),)) == (4, 9)


@given(st.integers(1, 50), st.integers(1, 6), st.integers(1, 4), st.integers(1, 3))
def test_same_gives_the_input_over_the_stride(size: int, k: int, s: int, d: int) -> None:
    op = build(Word("conv", (k,), {"same": (), "s": (s,), "d": (d,)}, (4,)), ((3, size),))
    assert op.output(((3, size),)) == (4, -(-size // s))


@given(st.integers(1, 50), st.integers(1, 6), st.integers(1, 4), st.integers(1, 3))
def test_a_transposed_same_gives_the_input_times_the_stride(
    size: int, k: int, s: int, d: int
) -> None:
    op = build(Word("tconv", (k,), {"same": (), "s": (s,), "d": (d,)}, (4,)), ((3, size),))
    assert op.output(((3, size),)) == (4, size * s)
