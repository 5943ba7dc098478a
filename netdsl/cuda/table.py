"""The table from op to how it is planned."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from netdsl.cuda import (
    activation,
    arrange,
    conv,
    dense,
    join,
    norm,
    pool,
    response,
    softmax,
    transposed,
)
from netdsl.cuda.layout import Call
from netdsl.cuda.packing import NEVER, PASSES, Packs
from netdsl.cuda.task import Task
from netdsl.ops import (
    Activation,
    AdaptiveAveragePool,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Elu,
    Flatten,
    Gelu,
    GlobalAverage,
    GlobalMax,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    InstanceNorm,
    LayerNorm,
    Leaky,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool,
    Multiply,
    Op,
    Pad,
    PRelu,
    Relu,
    Relu6,
    Shuffle,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
    Upsample,
)


class Recipe(NamedTuple):
    """How an op is planned: its calls, which inputs it may write over once they are done, and what
    it does with packed tensors; that is asked before they have their places."""

    calls: Callable[[Task], list[Call]]
    over: tuple[int, ...] = ()
    packs: Callable[[Task], Packs] = lambda task: NEVER


PASS = Recipe(activation.plan_activation, over=(0,))
NORM = Recipe(norm.plan_norm, over=(0,))
SOFTMAX = Recipe(softmax.plan_softmax, over=(0,))
WINDOWS = Recipe(pool.plan_pool)
WHOLE = Recipe(pool.plan_global)

RECIPES: dict[type[Op], Recipe] = {
    Conv: Recipe(conv.plan_conv, packs=conv.conv_packs),
    ConvTranspose: Recipe(transposed.plan_transposed, packs=transposed.transposed_packs),
    Linear: Recipe(dense.plan_dense, packs=dense.dense_packs),
    MaxPool: WINDOWS._replace(packs=pool.max_pool_packs),
    AveragePool: WINDOWS,
    AdaptiveAveragePool: Recipe(pool.plan_adaptive),
    GlobalAverage: WHOLE,
    GlobalMax: WHOLE,
    Relu: PASS,
    Relu6: PASS,
    Leaky: PASS,
    PRelu: PASS,
    HardSigmoid: PASS,
    HardSwish: PASS,
    Elu: PASS,
    Gelu: PASS,
    Silu: PASS,
    Sigmoid: PASS,
    Tanh: PASS,
    Softmax: SOFTMAX,
    LogSoftmax: SOFTMAX,
    BatchNorm: Recipe(activation.plan_batch_norm, over=(0,)),
    LayerNorm: NORM,
    InstanceNorm: NORM,
    GroupNorm: NORM,
    LocalResponseNorm: Recipe(response.plan_response),
    Flatten: Recipe(arrange.plan_flatten),
    Upsample: Recipe(arrange.plan_upsample),
    Pad: Recipe(arrange.plan_pad),
    Shuffle: Recipe(arrange.plan_shuffle),
    Concat: Recipe(join.plan_concat, packs=lambda task: PASSES),
    Add: Recipe(activation.plan_add),
    Multiply: Recipe(join.plan_multiply),
}


def takes(base: Op, residual: bool, act: Activation | None) -> bool:
    """Whether the kernels of this op also add a residual, or apply this activation."""
    if act is not None and not isinstance(act, activation.STRAIGHT):
        return False
    if isinstance(base, Conv | ConvTranspose):
        return True
    if isinstance(base, GroupNorm | InstanceNorm | LayerNorm):
        return isinstance(act, Relu) and not residual
    return isinstance(base, Linear | BatchNorm | Add) and not residual
