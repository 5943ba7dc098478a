"""What Keras has no layer for, written out in the files that need it."""

from __future__ import annotations

MEAN_POOL = '''def mean_pool(x, pool_size, strides, *, counted, uncounted):
    """The mean of each window. Cells of padding that are counted count as zeros, the rest do not
    count; both are a pair for every axis."""
    cells = ops.pad(ops.ones_like(x), counted, constant_values=1.0)
    cells = ops.pad(cells, uncounted)
    x = ops.pad(ops.pad(x, counted), uncounted)
    x = ops.average_pool(x, pool_size, strides, "valid", "channels_last")
    return x / ops.average_pool(cells, pool_size, strides, "valid", "channels_last")
'''

RESPONSE_NORM = '''def response_norm(x, size, *, alpha=1e-4, beta=0.75, k=2.0):
    """x / (k + alpha / size * the sum of squares of `size` channels around) ** beta."""
    channels = x.shape[-1]
    ends = [(0, 0)] * (len(x.shape) - 1) + [((size - 1) // 2, size // 2)]
    squares = ops.pad(ops.square(x), ends)
    sums = sum(squares[..., i : i + channels] for i in range(size))
    return x / (k + alpha / size * sums) ** beta
'''

SHUFFLE = '''def shuffle(x, groups):
    """Mixes the channels of groups."""
    shape = x.shape[1:]
    x = ops.reshape(x, (-1, *shape[:-1], groups, shape[-1] // groups))
    return ops.reshape(ops.swapaxes(x, -1, -2), (-1, *shape))
'''

HARD_SIGMOID = '''def hard_sigmoid(x, slope, offset):
    """min(max(slope * x + offset, 0), 1)"""
    return ops.clip(slope * x + offset, 0.0, 1.0)
'''

EXTRA = {
    "mean_pool": MEAN_POOL,
    "response_norm": RESPONSE_NORM,
    "shuffle": SHUFFLE,
    "hard_sigmoid": HARD_SIGMOID,
}
"""The text of each function that a file may need."""
