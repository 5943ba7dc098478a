"""Every fault code, and the exact report that a person sees. reports.txt holds, for each,
`## CODE`, a text, `--`, and what `netdsl check` shows of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from netdsl.lang import read, render

HERE = Path(__file__).parent
CASES = [
    (code, *body.split("\n--\n"))
    for code, body in re.findall(
        r"^## (\S+)\n(.*?)\n(?=\n## |\Z)",
        (HERE / "reports.txt").read_text(encoding="utf-8"),
        re.S | re.M,
    )
]
ELSEWHERE = {
    "not-text": "test_reading.py",
    "too-many-faults": "test_reading.py",
    "misplaced-input": "no text reaches it: `input` is no word of a chain",
}


@pytest.mark.parametrize(("code", "text", "expected"), CASES)
def test_report(code: str, text: str, expected: str) -> None:
    faults = read(text, "my.net").faults
    assert "\n".join(render(fault) for fault in faults) == expected
    assert code in {fault.code for fault in faults}


def test_every_code_has_a_report(root: Path) -> None:
    assert codes(root) == {code for code, *_ in CASES} | set(ELSEWHERE)


def test_every_code_is_in_the_docs(root: Path) -> None:
    page = (root / "docs" / "language.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z-]+)` \|", page.partition("The codes:")[2], re.M)
    assert sorted(listed) == sorted(codes(root) - {"misplaced-input"})


def codes(root: Path) -> set[str]:
    """The codes that the reader and the vocabulary give, from the calls that give them."""
    found = set()
    for folder in ("lang", "ops"):
        for path in (root / "netdsl" / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and _gives_fault(node):
                    found |= {a.value for a in node.args[:1] if isinstance(a, ast.Constant)}
    return found


def _gives_fault(node: ast.Call) -> bool:
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    return name in ("fault", "error", "warning", "Fault", "OpFault", "_error")
