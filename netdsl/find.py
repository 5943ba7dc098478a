"""From what a person typed to a graph: a zoo name, a path, or the text itself."""

from __future__ import annotations

from pathlib import Path

from netdsl import resources
from netdsl.faults import NetError, error
from netdsl.graph import Graph, known
from netdsl.limits import DEFAULT, LIFTED, Limits


def find(name: str | Path) -> Path:
    """The .net file that a name stands for: a bare name finds the zoo, a path finds a file.

    Raises NetError: no such net (with the nearest names), no such file, or a folder.
    """
    zoo = resources.zoo()
    if isinstance(name, str) and name in zoo:
        return zoo[name]
    path = Path(name)
    try:
        if path.is_file():
            return path
        if path.is_dir():
            raise error("not-a-net", f"{path} is a folder, a .net file was expected")
    except (OSError, ValueError):
        pass  # too long for a path, or with a character no path can hold
    raise _missing(str(name), path, zoo)


def _missing(name: str, path: Path, zoo: dict[str, Path]) -> NetError:
    if isinstance(name, str) and _is_text(name):
        return error(
            "no-such-net",
            f"there is no file {_short(name)}",
            help="text of a net is given with -e",
        )
    if path.suffix == ".net" or path.name != name:
        bare = path.name.removesuffix(".net")
        hint = f"the zoo's net is called without a path: {bare}" if bare in zoo else None
        return error("no-such-net", f"there is no file {_short(name)}", help=hint)
    import difflib

    near = difflib.get_close_matches(name.lower(), zoo, n=3, cutoff=0.55)
    hint = f"did you mean {' or '.join(near)}?" if near else "`netdsl nets` lists them"
    return error("no-such-net", f"there is no net called {_short(name)}", help=hint)


def _is_text(name: str) -> bool:
    return "->" in name or ";" in name or "\n" in name


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def read_text(path: Path, limits: Limits | None = DEFAULT) -> str:
    """The text of a .net file. Raises NetError: unreadable, larger than the limits, not text."""
    most = (LIFTED if limits is None else limits).file
    try:
        size = path.stat().st_size
        if size > most:
            raise error(
                "too-large",
                f"{path} has {size:,} bytes, and a .net file at most {most:,}",
                help="--no-limits lifts this limit",
            )
        data = path.read_bytes()
    except OSError as problem:
        raise error("unreadable", f"{path} cannot be read: {problem.strerror}") from None
    if b"\0" in data:
        raise error("not-text", f"{path} is not a text file, so it is not a .net file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        at = problem.start
        raise error(
            "not-text", f"{path} is not UTF-8 text: byte {at} is 0x{data[at]:02x}"
        ) from None


def graph_of(name: str | Path, limits: Limits | None = DEFAULT) -> Graph:
    """The graph of a zoo net or a file. Raises NetError. limits: None lifts them."""
    path = find(name)
    text = read_text(path, limits)
    graph = known.find(text, str(path)) if limits == DEFAULT else None
    if graph is None:
        from netdsl import lang

        graph = lang.load(text, str(path), limits)
        if limits == DEFAULT:
            known.keep(graph, text, str(path))
    return graph


def graph_of_text(text: str, limits: Limits | None = DEFAULT) -> Graph:
    """The graph of a text such as `input 3x32x32; conv3x3p1(8) -> gap`. Raises NetError."""
    from netdsl import lang

    return lang.load(text, limits=limits)
