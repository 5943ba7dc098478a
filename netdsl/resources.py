"""Where the things that ship with the package lie: grammars, the zoo, lists of class names.

In a checkout (and an editable install) grammars/ and nets/ are the repository's own folders; in a
wheel they lie inside the package, under _data/.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from netdsl.plain import clean

HERE = Path(__file__).resolve().parent
PACKED = HERE / "_data"
ROOT = PACKED if PACKED.is_dir() else HERE.parent


def grammar(name: str) -> str:
    """The text of a grammar, such as "net" or "word"."""
    return (ROOT / "grammars" / f"{name}.lark").read_text(encoding="utf-8")


def zoo() -> dict[str, Path]:
    """The nets that ship with the package, by name, in alphabetical order."""
    return {path.stem: path for path in sorted((ROOT / "nets").glob("*.net"))}


def label_lists() -> dict[str, Path]:
    """The lists of class names that ship with the package, by name, in alphabetical order."""
    return {path.stem: path for path in sorted((HERE / "labels").glob("*.txt"))}


def read_labels(path: Path) -> tuple[str, ...]:
    """The class names in a text file, a class a line, in index order; blank lines at the end go,
    and so do control characters, for they are printed.

    Raises OSError when the file cannot be read, UnicodeDecodeError when it is not UTF-8 text.
    """
    return tuple(map(clean, path.read_text(encoding="utf-8-sig").rstrip().splitlines()))


def user_folder() -> Path:
    """The folder where this user's programs keep what they can make again."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def exists(path: Path) -> bool:
    """Whether there is such a file or folder, as far as can be seen: its name may be longer than
    any, or its folder closed."""
    try:
        return path.exists()
    except OSError:
        return False
