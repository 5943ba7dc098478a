"""Which engines are compared: ours on a device, and the peers that are asked for."""

from __future__ import annotations

from netdsl.bench.engine import Engine
from netdsl.bench.peers import OURS, PEERS
from netdsl.faults import error

USUAL = ("onnxruntime", "openvino", "ncnn", "litert", "torch")


def ours(device: str = "cpu") -> type[Engine]:
    """This package's engine on a device."""
    if device == "cpu":
        return OURS
    from netdsl.bench.card import OursOnCard

    return OursOnCard


def peers(device: str = "cpu") -> dict[str, tuple[type[Engine], ...]]:
    """What --against takes on a device, and the engines it stands for."""
    if device == "cpu":
        return PEERS
    from netdsl.bench.card import ENGINES

    return ENGINES


def chosen(names: str | None, device: str = "cpu") -> list[type[Engine]]:
    """The engines of a list like "onnxruntime,torch"; of none, the usual ones that are installed.

    Raises NetError: an unknown engine, one that is not installed or does not run on the device,
    none at all.
    """
    there = peers(device)
    if names is None:
        found = [name for name in USUAL if name in there and there[name][0].installed()]
        if not found:
            raise error(
                "no-peers", "no other engine is installed", help="pip install 'netdsl[bench]'"
            )
        return [engine for name in found for engine in there[name]]
    asked = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    for name in asked:
        if name not in PEERS:
            raise error(
                "unknown-engine", f"there is no engine {name}", help=f"there are {', '.join(PEERS)}"
            )
        if name not in there:
            raise error(
                "no-peer",
                f"the engine {name} is not run on {device} here",
                help=f"there is {', '.join(there)}",
            )
        if not PEERS[name][0].installed():
            raise error(
                "no-peer",
                f"the engine {name} is not installed",
                help="pip install 'netdsl[bench]'",
            )
    return [engine for name in asked for engine in there[name]]
