"""For each of ONNX's operators the function that reads it, a file a family."""

from netdsl.formats.onnx.call import Take
from netdsl.formats.onnx.take import activation, arrange, conv, dense, join, norm, pool

TABLE: dict[str, Take] = {
    **activation.TAKE,
    **arrange.TAKE,
    **conv.TAKE,
    **dense.TAKE,
    **join.TAKE,
    **norm.TAKE,
    **pool.TAKE,
}

__all__ = ["TABLE"]
