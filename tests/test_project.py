"""What ships, what is imported when, and that the documents speak of what is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from netdsl import resources

HEAVY = ("numba", "llvmlite", "onnx", "onnxruntime", "torch", "matplotlib")
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")


def python(code: str, cwd: Path, **env: str) -> str:
    """Runs code in a process of its own and gives what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import netdsl",
        "from netdsl.cli import app; app(['cost', 'vgg16'], standalone_mode=False)",
        "from netdsl.cli import app; app(['check', '-e', 'input 4; fc(2)'], standalone_mode=False)",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str, tmp_path: Path) -> None:
    found = python(f"{code}\nimport sys; print('MODULES', *sys.modules)", tmp_path)
    modules = {name.partition(".")[0] for name in found.rpartition("MODULES")[2].split()}
    assert "netdsl" in modules
    assert not modules & set(HEAVY)


@pytest.mark.parametrize(
    ("name", "count", "some"),
    [
        ("imagenet", 1000, {0: "tench", 285: "Egyptian cat", 999: "toilet tissue"}),
        ("mnist", 10, {0: "0", 9: "9"}),
        ("fashion_mnist", 10, {0: "T-shirt/top", 9: "Ankle boot"}),
        ("cifar10", 10, {0: "airplane", 9: "truck"}),
    ],
)
def test_label_lists(name: str, count: int, some: dict[int, str]) -> None:
    names = resources.read_labels(resources.label_lists()[name])
    assert len(names) == count
    assert {index: names[index] for index in some} == some


def test_imagenet_names_are_the_synsets_first(shared: Path) -> None:
    lines = (shared / "data" / "synset_words.txt").read_text(encoding="utf-8").splitlines()
    first = tuple(line.partition(" ")[2].partition(",")[0] for line in lines)
    assert resources.read_labels(resources.label_lists()["imagenet"]) == first


def test_the_wheel_runs_alone(root: Path, tmp_path: Path) -> None:
    """Built, unpacked in an empty folder and put first on the path, it finds all it needs."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling, which builds the wheel, is not installed")
    build = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "-t",
        "wheel",
        "-d",
        str(tmp_path / "dist"),
    ]
    subprocess.run(build, cwd=root, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("netdsl-*.whl")
    alone = tmp_path / "alone"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(alone)
    code = (
        "import netdsl, netdsl.resources as r; print(netdsl.__file__);"
        "from netdsl.cli import app; app(['cost', *r.zoo()], standalone_mode=False);"
        "print(*r.zoo(), *r.label_lists())"
    )
    found = python(code, tmp_path, PYTHONPATH=str(alone)).splitlines()
    assert found[0].startswith(str(alone))
    assert found[-1].split() == [*resources.zoo(), *resources.label_lists()]


def test_one_version(root: Path) -> None:
    import netdsl

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changes, re.MULTILINE)
    assert newest is not None
    assert netdsl.__version__ == project["version"] == newest[1]


def documents(root: Path) -> list[Path]:
    return [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("benchmarks/**/*.md")]


def test_links_lead_somewhere(root: Path) -> None:
    broken = [
        f"{page.relative_to(root)}: {target}"
        for page in documents(root)
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken


def test_the_code_that_contributing_shows_is_the_code(root: Path) -> None:
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = re.findall(r"```python\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    assert len(shown) == 2
    code = "\n".join(path.read_text(encoding="utf-8") for path in (root / "netdsl").rglob("*.py"))
    for block in shown:
        assert textwrap.indent(textwrap.dedent(block), " " * 4) in code or (
            textwrap.dedent(block) in code
        )


def test_the_readme_shows_the_zoos_vgg16(root: Path) -> None:
    """The net that README.md opens with is nets/vgg16.net without its remarks."""
    shown = (root / "README.md").read_text(encoding="utf-8").split("```\n")[1]
    ships = resources.zoo()["vgg16"].read_text(encoding="utf-8").splitlines()
    kept = [line.partition(" (")[0] if line.startswith("input") else line for line in ships]
    kept = [line for line in kept if not line.startswith(("#", "labels", "meta"))]
    assert shown.splitlines() == kept


def test_the_readme_shows_the_cost_table_as_printed(root: Path, tmp_path: Path) -> None:
    shown = (root / "README.md").read_text(encoding="utf-8").partition("$ netdsl cost lenet5\n")[2]
    code = "from netdsl.cli import app; app(['cost', 'lenet5'], standalone_mode=False)"
    printed = python(code, tmp_path, COLUMNS="100", PYTHONIOENCODING="utf-8")
    assert shown.partition("```")[0] == printed


def test_the_readme_names_every_command(root: Path) -> None:
    from netdsl.cli.main import COMMANDS

    text = (root / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `netdsl (\w+)", text, re.MULTILINE)) == set(COMMANDS)


def test_the_readme_has_its_two_commands(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    commands = [line for line in text.splitlines() if line.startswith("python3 -m venv .venv && ")]
    assert len(commands) == 2
    assert " netdsl run " in commands[0].replace("/netdsl", " netdsl")
    assert commands[1].endswith("&& .venv/bin/pytest -q -n 2 --dist worksteal")
