"""State dicts with torchvision's names give, in our nets, what torchvision's own models give."""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdsl.formats.pretrained import FILES
from netdsl.net import Net

torch = pytest.importorskip("torch")

QUICK = ("googlenet_torchvision", "mobilenet_v2", "resnet18", "squeezenet1_1")


@pytest.fixture(scope="module")
def models() -> Any:
    """torchvision's models. Its compiled operators, which its models do without and which PyPI has
    for CUDA alone, are passed by."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("torchvision is not installed")
    if "torchvision" not in sys.modules:
        package = types.ModuleType("torchvision")
        package.__path__ = list(spec.submodule_search_locations)
        package.__spec__ = spec
        sys.modules["torchvision"] = package
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("torchvision.models")


def drawn(models: Any, name: str) -> Any:
    """A model whose batch norms have seen something: means that are not 0, variances not 1."""
    torch.manual_seed(sum(map(ord, name)))
    settings = {"init_weights": False} if "googlenet" in name else {}
    model = getattr(models, name.removesuffix("_torchvision"))(weights=None, **settings).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
                module.num_batches_tracked.fill_(7)
    return model


def saved(model: Any, ending: str, folder: Path) -> Path:
    path = folder / f"weights{ending}"
    if ending == ".safetensors":
        library = pytest.importorskip("safetensors.torch")
        library.save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    return path


def alike(ours: np.ndarray, theirs: Any) -> None:
    right = theirs.numpy()
    assert ours.shape == right.shape
    assert np.abs(ours - right).max() <= 2e-5 * np.abs(right).max()


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in FILES]
)
def test_the_same_outputs(name: str, ending: str, models: Any, tmp_path: Path) -> None:
    model = drawn(models, name)
    net = Net.load(name)
    net.load_weights(saved(model, ending, tmp_path))
    x = torch.randn(1, *net.inputs["input"])
    with torch.no_grad():
        alike(net.run(x.numpy(), exact=True), model(x))  # type: ignore[arg-type]


def test_googlenets_heads(models: Any, tmp_path: Path) -> None:
    model = drawn(models, "googlenet_torchvision")
    net = Net.load("googlenet_torchvision")
    net.load_weights(saved(model, ".pth", tmp_path))
    heads = []
    for at, head in ((model.inception4a, model.aux1), (model.inception4d, model.aux2)):
        at.register_forward_hook(lambda _, __, y, head=head: heads.append(head(y)))
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        right = [model(x), *heads]
    found = net.run(x.numpy(), exact=True, aux=True)
    assert isinstance(found, dict)
    for ours, theirs in zip(found.values(), right, strict=True):
        alike(ours, theirs)
