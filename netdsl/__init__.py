"""netdsl: convolutional networks as short text files.

    import netdsl

    net = netdsl.load("vgg16")          # a zoo name, or a path to a .net file
    net.cost().macs                     # 15470264320
    scores = net.run(x)                 # x (N, 3, 224, 224) -> (N, 1000)

Everything a person can get wrong raises `NetError`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdsl.faults import NetError

if TYPE_CHECKING:
    from netdsl.net import Net

__version__ = "0.1.0"

__all__ = ["Net", "NetError", "__version__", "load"]


def load(
    name: str | Path | None = None,
    *,
    text: str | None = None,
    weights: str | Path | None = None,
) -> Net:
    """A net of the zoo by its name, of a .net file by its path, or of a text.

    weights: a safetensors file; left out, a file beside the .net file with its stem is taken when
    it is there. Raises NetError: no such net, faults in its text, weights that do not fit.
    """
    from netdsl.net import Net

    net = Net.load(name, text=text)
    if weights is not None:
        net.load_weights(weights)
    return net


def __getattr__(name: str) -> Any:
    if name == "Net":
        from netdsl.net import Net

        return Net
    raise AttributeError(f"module 'netdsl' has no attribute {name!r}")
