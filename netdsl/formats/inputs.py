"""What `run` is given - pictures, arrays, folders, standard input - as a stream of samples.

What is wrong with a path is said before anything runs; a picture that turns out broken only when
it is its turn comes as a `Broken` in its place, and the stream goes on.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import NetError, error
from netdsl.formats.arrays import Arrays, is_arrays
from netdsl.frozen import dataclass
from netdsl.graph import Graph
from netdsl.ops import Shape, show
from netdsl.resources import exists

PICTURES = re.compile(
    r".+\.(avif|bmp|gif|jfif|jpe?g|jp2|p[bgnp]m|png|tga|tiff?|webp)", re.IGNORECASE
)
"""Names that are taken for pictures in a folder."""

ARRAYS = (".npy", ".npz")
LARGEST_STDIN = 1 << 30
"""Bytes that are read from standard input."""

Row = NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """One sample: what to call it, its arrays (C, *spatial) by input, its class where known."""

    name: str
    arrays: Mapping[str, Row]
    label: int | None = None


@dataclass(frozen=True)
class Broken:
    """An input that could not be read, in its place among the others."""

    name: str
    fault: NetError


@dataclass(frozen=True)
class Item:
    """A file to read: a path, or the bytes that standard input held."""

    name: str
    source: Path | BytesIO
    arrays: Arrays | None

    def rows(self, graph: Graph) -> int:
        """How many samples it holds. Raises NetError when its arrays do not fit the inputs."""
        return 1 if self.arrays is None else count_rows(self.arrays, graph)


def items(paths: Sequence[str], graph: Graph) -> list[Item]:
    """The files behind these paths: folders opened, `-` read.

    Raises NetError: a path that is not there, an empty folder, arrays that do not fit the net's
    inputs (both shapes), pictures for a net that takes none.
    """
    found: list[Item] = []
    for path in paths:
        found += [_stdin()] if path == "-" else [_item(p) for p in _files(Path(path))]
    for item in found:
        item.rows(graph)
        if item.arrays is None:
            from netdsl.formats.pictures import check_fits  # arrays need no Pillow

            check_fits(item.name, graph.input_op(_only_input(item.name, graph)))
    return found


def _files(path: Path) -> list[Path]:
    if not exists(path):
        raise error("no-such-file", f"there is no file {path}")
    if path.is_dir():
        inside = [p for p in path.rglob("*") if _is_input(p.relative_to(path)) and p.is_file()]
        if not inside:
            raise error("empty-folder", f"the folder {path} holds no pictures and no arrays")
        return sorted(inside, key=_natural)
    return [path]


def _is_input(path: Path) -> bool:
    known = PICTURES.fullmatch(path.name) or path.suffix.lower() in ARRAYS
    return bool(known) and not any(part.startswith(".") for part in path.parts)


def _natural(path: Path) -> list[tuple[int, str]]:
    """A key that puts 10.png after 9.png."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(p), "") if p.isdigit() else (0, p) for p in parts]


def _stdin() -> Item:
    data = sys.stdin.buffer.read(LARGEST_STDIN + 1)
    if len(data) > LARGEST_STDIN:
        raise error("too-large", f"standard input holds more than {LARGEST_STDIN:,} bytes")
    if not data:
        raise error("empty-input", "standard input is empty")
    source = BytesIO(data)
    return Item("-", source, Arrays(source, "-") if is_arrays(source) else None)


def _item(path: Path) -> Item:
    arrays = Arrays(path, str(path)) if path.suffix.lower() in ARRAYS else None
    return Item(str(path), path, arrays)


def _only_input(name: str, graph: Graph) -> str:
    if len(graph.inputs) == 1:
        return graph.inputs[0]
    raise error(
        "wrong-input",
        f"{graph.name} has {len(graph.inputs)} inputs, {name} can fill only one",
        help=f"give a .npz file with arrays {', '.join(graph.inputs)}",
    )


def stream(found: Sequence[Item], graph: Graph) -> Iterator[Sample | Broken]:
    """The samples of the files, one at a time."""
    for item in found:
        try:
            if item.arrays is None:
                from netdsl.formats.pictures import read_picture

                name = graph.inputs[0]
                picture = read_picture(item.source, graph.input_op(name), item.name)
                yield Sample(item.name, {name: picture})
            else:
                yield from _samples(item.arrays, graph)
        except NetError as fault:
            yield Broken(item.name, fault)


def _samples(arrays: Arrays, graph: Graph) -> Iterator[Sample]:
    keys = _keys(arrays, graph)
    if _is_single(arrays, keys, graph):
        yield Sample(arrays.name, {name: arrays.whole(key) for name, key in keys.items()})
        return
    labels = _labels(arrays, count_rows(arrays, graph))
    rows = zip(*(arrays.rows(key) for key in keys.values()), strict=True)
    for number, row in enumerate(rows):
        sample = dict(zip(keys, row, strict=True))
        yield Sample(f"{arrays.name}[{number}]", sample, labels[number] if labels else None)


def count_rows(arrays: Arrays, graph: Graph) -> int:
    """How many samples the arrays hold. Raises NetError: shapes that do not fit (both said)."""
    keys = _keys(arrays, graph)
    if _is_single(arrays, keys, graph):
        return 1
    counts = set()
    for name, key in keys.items():
        shape = arrays.headers[key].shape
        if shape[1:] != graph[name].shape or not shape:
            called = arrays.name if len(arrays.headers) == 1 else f"{arrays.name}[{key}]"
            raise error(
                "wrong-shape",
                f"{called} has shape {show(shape) or 'of a single number'}, "
                f"the net takes Nx{show(graph[name].shape)}",
                help=_shape_hint(shape, graph[name].shape),
            )
        counts.add(shape[0])
    if len(counts) > 1:
        raise error("wrong-shape", f"the arrays of {arrays.name} have unlike numbers of samples")
    return counts.pop()


def _shape_hint(found: Shape, wanted: Shape) -> str | None:
    channels_last = (*wanted[1:], wanted[0])
    if len(wanted) > 1 and channels_last in (found, found[1:]):
        return "channels come first here: transpose the array"
    if len(found) in (len(wanted), len(wanted) + 1) and found[-len(wanted)] != wanted[0]:
        return f"it has {found[-len(wanted)]} channels, the net takes {wanted[0]}"
    return None


def _keys(arrays: Arrays, graph: Graph) -> dict[str, str]:
    """The array in the file for each input: by the input's name, or the only one there is."""
    headers, inputs = arrays.headers, graph.inputs
    if len(inputs) == 1:
        for key in (inputs[0], "inputs"):
            if key in headers:
                return {inputs[0]: key}
        if len(headers) == 1:
            return {inputs[0]: next(iter(headers))}
    elif all(name in headers for name in inputs):
        return {name: name for name in inputs}
    held = ", ".join(headers) if any(headers) else "one array" if headers else "no arrays"
    wanted = "one called inputs" if len(inputs) == 1 else ", ".join(inputs)
    raise error(
        "wrong-arrays", f"{arrays.name} holds {held}; {graph.name} takes {wanted} from a file"
    )


def _is_single(arrays: Arrays, keys: Mapping[str, str], graph: Graph) -> bool:
    return all(arrays.headers[key].shape == graph[name].shape for name, key in keys.items())


def _labels(arrays: Arrays, count: int) -> list[int] | None:
    """The classes that a samples file gives beside its inputs."""
    header = arrays.headers.get("labels")
    if header is None or header.shape != (count,) or header.dtype.kind not in "iu":
        return None
    return [int(value) for value in arrays.whole("labels")]
