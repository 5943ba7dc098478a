"""The table from op to how it is planned: what it asks of memory, and which calls do it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from netdsl.cpu import (
    activation,
    arrange,
    conv,
    dense,
    depthwise,
    direct_kernel,
    factors,
    half_pool,
    join,
    matrix,
    norm,
    pack,
    phases,
    pool,
    response,
    rounding,
    short,
    strassen_kernel,
    thirds_kernel,
    tight,
    transposed,
    winograd_kernel,
    winograd_quarters,
    winograd_thirds,
)
from netdsl.cpu.halves import Writers
from netdsl.cpu.launch import Worker
from netdsl.cpu.layout import Call
from netdsl.cpu.micro import Kind, dots, matrices
from netdsl.cpu.rounding import Rounded
from netdsl.cpu.task import Needs, Places, Task
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


def nothing(task: Task) -> Needs:
    """The needs of a kernel that reads inside images alone."""
    return Needs()


class Recipe(NamedTuple):
    """How an op is planned.

    kernels: those that it may take. calls: the kernel calls that do it. needs: what it asks of
    memory. over: which of its inputs it may write over, if nothing reads them after it. half: the
    kernels that it may take besides, where weights are in bfloat16; matrix: and where the CPU
    multiplies matrices of it. short: the same where weights of fully connected layers are asked for
    in fewer bits; tight: where they are to be in fewer of themselves (`factors.tight`). thirds:
    where the CPU multiplies matrices of bfloat16, which then sum floats.
    """

    kernels: tuple[Worker, ...]
    calls: Callable[[Task, Places], list[Call]]
    needs: Callable[[Task], Needs] = nothing
    over: tuple[int, ...] = ()
    half: tuple[Worker, ...] = ()
    short: tuple[Worker, ...] = ()
    matrix: tuple[Worker, ...] = ()
    tight: tuple[Worker, ...] = ()
    thirds: tuple[Worker, ...] = ()

    @property
    def float_kernels(self) -> tuple[Worker, ...]:
        """Those that it may take on this CPU in single precision."""
        return (*self.kernels, *(self.thirds if matrices() else ()))

    @property
    def half_kernels(self) -> tuple[Worker, ...]:
        """Those that it may take besides on this CPU, where weights are in bfloat16."""
        return (*self.half, *(self.matrix if matrices() else ()))


FEWER = (strassen_kernel.strassen,)
THIRDS = (thirds_kernel.pack_thirds, thirds_kernel.form_thirds, thirds_kernel.thirds)
QUICK_THIRDS = (winograd_thirds.winograd_thirds,)
QUICK = (winograd_kernel.transform_filters, winograd_kernel.winograd, phases.split_phases)
QUARTERS = (winograd_quarters.transform_quarters, winograd_quarters.winograd_quarters)
APART = (depthwise.depthwise,)
SUMS = (pack.pack_blocks, direct_kernel.direct)
TIGHT_SUMS = (tight.pack_tight, tight.begin, direct_kernel.direct_tight)
HALF_SUMS = (pack.pack_pairs, direct_kernel.direct_short)
SHORT_SUMS = (short.to_bytes, short.to_halves, direct_kernel.direct_short)
ROUNDING = (rounding.round_blocks, rounding.round_planes)
WIDE_ROUNDING = (rounding.round_wide, rounding.round_pixels)
MATRIX = (matrix.matrix,)
MAXIMUM = Recipe(
    (pool.narrow_max_pool, pool.max_pool),
    pool.plan_pool,
    matrix=(half_pool.half_narrow_pool, half_pool.half_pool),
)
MEAN = Recipe((pool.average_pool,), pool.plan_pool)
BENT = Recipe((activation.bent,), activation.plan_bent, over=(0,))
CURVED = Recipe((activation.curved,), activation.plan_curved, over=(0,))
GROUPS = Recipe((norm.group_norm,), norm.plan_norm)
SOFTMAX = Recipe((norm.softmax,), norm.plan_softmax, over=(0,))

RECIPES: dict[type[Op], Recipe] = {
    Conv: Recipe(
        SUMS + FEWER + APART + QUICK + QUARTERS,
        conv.plan_conv,
        conv.conv_needs,
        half=HALF_SUMS,
        matrix=MATRIX,
        thirds=THIRDS + QUICK_THIRDS,
    ),
    ConvTranspose: Recipe(
        SUMS, transposed.plan_transposed, transposed.transposed_needs, thirds=THIRDS
    ),
    Linear: Recipe(
        SUMS,
        dense.plan_dense,
        dense.dense_needs,
        half=HALF_SUMS,
        short=SHORT_SUMS,
        matrix=MATRIX,
        tight=TIGHT_SUMS,
    ),
    Rounded: Recipe(ROUNDING, rounding.plan_rounded, rounding.rounded_needs, matrix=WIDE_ROUNDING),
    MaxPool: MAXIMUM,
    AveragePool: MEAN,
    AdaptiveAveragePool: MEAN,
    GlobalAverage: MEAN,
    GlobalMax: MAXIMUM,
    Relu: BENT,
    Relu6: BENT,
    Leaky: BENT,
    PRelu: BENT,
    HardSigmoid: BENT,
    HardSwish: BENT,
    Elu: CURVED,
    Gelu: CURVED,
    Silu: CURVED,
    Sigmoid: CURVED,
    Tanh: CURVED,
    Softmax: SOFTMAX,
    LogSoftmax: SOFTMAX,
    BatchNorm: Recipe((activation.affine,), activation.plan_batch_norm, over=(0,)),
    LayerNorm: GROUPS,
    InstanceNorm: Recipe((norm.channel_norm,), norm.plan_norm),
    GroupNorm: GROUPS,
    LocalResponseNorm: Recipe(
        (response.near_response, response.local_response),
        response.plan_response,
        response.response_needs,
    ),
    Flatten: Recipe((arrange.flatten,), arrange.plan_flatten),
    Upsample: Recipe((arrange.gather, arrange.interpolate), arrange.plan_upsample),
    Pad: Recipe((arrange.gather,), arrange.plan_pad),
    Shuffle: Recipe((arrange.mix,), arrange.plan_shuffle),
    Concat: Recipe((arrange.mix,), arrange.plan_concat),
    Add: Recipe((activation.add,), activation.plan_add, over=(0, 1)),
    Multiply: Recipe((join.multiply,), join.plan_multiply, over=(0, 1)),
}


def takes(base: Op, residual: bool, act: Activation | None) -> bool:
    """Whether the kernels of this op also add a residual, or apply this activation."""
    if isinstance(base, Add | BatchNorm):
        return not residual and isinstance(act, activation.BENT)
    return isinstance(base, Conv | ConvTranspose | Linear) and conv.takes(residual, act)


def in_pairs(task: Task) -> bool:
    """Whether a node reads its input in bfloat16, pair by pair."""
    base = task.whole.base
    if task.precision != "bf16" or not dots() or not isinstance(base, Conv | Linear):
        return False
    may = conv.in_pairs(task) if isinstance(base, Conv) else dense.in_pairs(task)
    return may and (matrices() or factors.cheapest(task) is Kind.PAIRED)


def writers(tasks: Mapping[str, Task]) -> Writers:
    """The nodes that can write bfloat16 where the CPU multiplies matrices."""
    sums = [name for name, task in tasks.items() if in_pairs(task)]
    responses = [n for n, task in tasks.items() if isinstance(task.whole.base, LocalResponseNorm)]
    return Writers(frozenset(sums + responses), frozenset(sums))
