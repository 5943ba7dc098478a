"""Weights that torchvision published for nets of the zoo: fetched once, converted, kept.

The file names carry the first eight digits of their SHA-256. A converted file lies in the user's
cache folder (or the one that NETDSL_WEIGHTS names) under the net's name and that checksum, in the
safetensors format and by the net's own names; the fetched one is then removed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from netdsl import resources
from netdsl.faults import error
from netdsl.formats.fetch import Progress, fetch
from netdsl.formats.match import match
from netdsl.formats.namemap import maps_beside
from netdsl.formats.pytorch import TorchFile
from netdsl.formats.safetensors import save
from netdsl.graph import Graph

BASE = "https://download.pytorch.org/models/"
"""Where torchvision's files lie; NETDSL_MIRROR names another place."""

FILES = {
    "alexnet": "alexnet-owt-7be5be79.pth",
    "densenet121": "densenet121-a639ec97.pth",
    "googlenet_torchvision": "googlenet-1378be20.pth",
    "mobilenet_v2": "mobilenet_v2-b0353104.pth",
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "squeezenet1_0": "squeezenet1_0-b66bff10.pth",
    "squeezenet1_1": "squeezenet1_1-b8a52dc0.pth",
    "vgg11": "vgg11-8a719046.pth",
    "vgg11_bn": "vgg11_bn-6002323d.pth",
    "vgg13": "vgg13-19584684.pth",
    "vgg13_bn": "vgg13_bn-abd245e5.pth",
    "vgg16": "vgg16-397923af.pth",
    "vgg16_bn": "vgg16_bn-6c64b313.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg19_bn": "vgg19_bn-c79401a0.pth",
}
"""For each net of the zoo the file that torchvision published, the first of each architecture."""


@dataclass(frozen=True)
class Published:
    """A net's published weights: where they come from, and where they lie once they are here."""

    net: str
    file: str

    @property
    def url(self) -> str:
        base = os.environ.get("NETDSL_MIRROR") or BASE
        return f"{base.rstrip('/')}/{self.file}"

    @property
    def digest(self) -> str:
        """The first digits of the file's SHA-256."""
        return Path(self.file).stem.rpartition("-")[2]

    @property
    def path(self) -> Path:
        """The converted file; it need not exist."""
        return folder() / f"{self.net}-{self.digest}.safetensors"


def folder() -> Path:
    """Where converted weights are kept."""
    given = os.environ.get("NETDSL_WEIGHTS")
    return Path(given) if given else resources.user_folder() / "netdsl" / "weights"


def published(net: str) -> Published:
    """The published weights of a net. Raises NetError where there are none."""
    if net not in FILES:
        raise error(
            "no-pretrained",
            f"no published weights are known for {net}",
            help=f"there are for {', '.join(FILES)}",
        )
    return Published(net, FILES[net])


def pull(graph: Graph, progress: Progress | None = None) -> Path:
    """The file of a net's published weights, fetched and converted where it is not here yet.

    graph: the zoo's net, or one of its name. Raises NetError: none are known, they cannot be
    fetched or kept, or the file is not what it should be.
    """
    found = published(graph.name)
    if found.path.is_file():
        return found.path
    fetched = fetch(found.url, folder() / found.file, found.digest, progress)
    file = TorchFile(fetched)
    pairs = match(graph, file.shapes, maps_beside(resources.zoo()[found.net]), name=str(fetched))
    save(
        found.path,
        {ours: file.read(theirs) for ours, theirs in pairs.names.items()},
        {"net": found.net, "source": found.url},
    )
    fetched.unlink()
    return found.path
