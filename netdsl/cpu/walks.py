"""What the descriptor of a direct sum holds, and how its worker finds rows in it."""

from __future__ import annotations

from netdsl.cpu.late import njit
from netdsl.cpu.launch import BODY

# Samples, planes and rows; tiles along a row and where their table starts, a place and a number
# each, then the row's end; the same across the filters, a block and where it starts to read; tiles
# along rows to do for all filters before the next; where the weights of the first block start and
# how far the next is; the biases; then input, output and residual: the first row, and the floats to
# the next sample, plane and row; the steps of a group and where their table starts; blocks of
# filters of a tile; where Strassen's own fields start (strassen_kernel.py).
SAMPLES, PLANES, ROWS = range(BODY, BODY + 3)
COLUMNS, COLUMN_TABLE, FILTERS, FILTER_TABLE, GROUP = range(BODY + 3, BODY + 8)
WEIGHTS, BLOCK, BIASES = range(BODY + 8, BODY + 11)
INPUT, OUTPUT, RESIDUAL = BODY + 11, BODY + 15, BODY + 19
STEPS, STEP_TABLE, ACROSS, HALVES = range(BODY + 23, BODY + 27)
OWN = BODY + 27
PLACES = (INPUT, OUTPUT, RESIDUAL)
"""Where a descriptor says where things start."""

# Of a step: where the fields of its tiles are; how far from their starts it reads, has its weights,
# writes and has a residual; whether it adds what is in the output already in place of the residual;
# how far the weights that come next lie from these, and the cache lines of them to ask for ahead of
# time.
TILE, FROM, WEIGHT, TO, BESIDE, AGAIN, AHEAD, LINES = range(8)
STEP = 8


@njit(boundscheck=False, error_model="numpy")
def row_at(d, row, end):  # type: ignore[no-untyped-def]
    """Where a row starts in the input, output or residual, whose fields start at `end`."""
    plane, y = row // d[ROWS], row % d[ROWS]
    n, z = plane // d[PLANES], plane % d[PLANES]
    return d[end] + n * d[end + 1] + z * d[end + 2] + y * d[end + 3]


@njit(boundscheck=False, error_model="numpy")
def row_width(d):  # type: ignore[no-untyped-def]
    """Places in a row."""
    return d[d[COLUMN_TABLE] + 2 * d[COLUMNS]]


@njit(boundscheck=False, error_model="numpy")
def segment(d, i, end):  # type: ignore[no-untyped-def]
    """Of the tiles from i to `end`, those in the same row as tile i: the row, the first's place in
    it, how many places they are, and the tile after them. For tiles that do not overlap."""
    columns, table = d[COLUMNS], d[COLUMN_TABLE]
    row, left = i // columns, i % columns
    right = min(columns, left + end - i)
    x = d[table + 2 * left]
    return row, x, d[table + 2 * right] - x, i + right - left


@njit(boundscheck=False, error_model="numpy")
def group_of(d, at):  # type: ignore[no-untyped-def]
    """The group of a thread's place in the order of work: its first tile, counted along the rows,
    and how many it has."""
    first = at // (d[GROUP] * d[FILTERS]) * d[GROUP]
    return first, min(d[GROUP], d[SAMPLES] * d[PLANES] * d[ROWS] * d[COLUMNS] - first)


@njit(boundscheck=False, error_model="numpy")
def strip(d, at, right):  # type: ignore[no-untyped-def]
    """The tiles from `at` on that share a group and their filters: the first, counted along the
    rows, how many, and where in the table of filters theirs stand."""
    first, size = group_of(d, at)
    within = at - first * d[FILTERS]
    count = min(size - within % size, right - at)
    return first + within % size, count, d[FILTER_TABLE] + 2 * (within // size)
