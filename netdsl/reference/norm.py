"""Normalisations: (x - mean) / sqrt(variance + eps), by whose mean and variance they differ."""

from __future__ import annotations

import numpy as np

from netdsl.ops import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, LocalResponseNorm, Norm
from netdsl.reference.table import Array, Params, Table, by_channel


def batch_norm(op: BatchNorm, params: Params, x: Array) -> Array:
    """By the running mean and variance of each channel."""
    mean, var = by_channel(params["mean"], x), by_channel(params["var"], x)
    return affine(op, params, (x - mean) / np.sqrt(var + op.eps))


def layer_norm(op: LayerNorm, params: Params, x: Array) -> Array:
    """By those of each sample."""
    return affine(op, params, by_groups(x, 1, op.eps))


def instance_norm(op: InstanceNorm, params: Params, x: Array) -> Array:
    """By those of each channel of each sample."""
    return affine(op, params, by_groups(x, x.shape[1], op.eps))


def group_norm(op: GroupNorm, params: Params, x: Array) -> Array:
    """By those of each group of channels of each sample."""
    return affine(op, params, by_groups(x, op.groups, op.eps))


def by_groups(x: Array, groups: int, eps: float) -> Array:
    """Each group of channels of each sample to mean 0 and (biased) variance 1."""
    grouped = x.reshape(x.shape[0], groups, x[:1].size // groups if len(x) else 1)
    mean = grouped.mean(axis=2, keepdims=True)
    var = grouped.var(axis=2, keepdims=True)
    return ((grouped - mean) / np.sqrt(var + eps)).reshape(x.shape)


def affine(op: Norm, params: Params, x: Array) -> Array:
    """The learned scale and shift of each channel, if there are any."""
    if not op.affine:
        return x
    return x * by_channel(params["weight"], x) + by_channel(params["bias"], x)


def local_response_norm(op: LocalResponseNorm, params: Params, x: Array) -> Array:
    """x / (k + alpha / size x the squares' sum over neighbouring channels)^beta."""
    below, above = op.reach
    channels = x.shape[1]
    squares = np.square(x)
    total = np.empty_like(x)
    for c in range(channels):
        total[:, c] = squares[:, max(c - below, 0) : c + above + 1].sum(axis=1)
    return x / np.power(op.k + op.alpha / op.size * total, op.beta)


FUNCTIONS: Table = {
    BatchNorm: batch_norm,
    LayerNorm: layer_norm,
    InstanceNorm: instance_norm,
    GroupNorm: group_norm,
    LocalResponseNorm: local_response_norm,
}
