"""A net's outputs on their way to a file, batch by batch: .npy for one, .npz for several."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error
from netdsl.formats.atomic import check_place, replacing
from netdsl.ops import Shape


class Rows:
    """One array in a .npy file that grows along its first axis."""

    def __init__(self, file: IO[bytes], shape: Shape) -> None:
        self._file, self._shape = file, shape
        self._count = 0
        self._dtype = np.dtype(np.float32)
        self._start = file.tell()
        self._write_header()

    def append(self, rows: NDArray[Any]) -> None:
        """Adds rows (N, *shape); the first ones say what kind of number the file holds."""
        if self._count == 0 and rows.dtype != self._dtype:
            self._dtype = rows.dtype
            self._write_header()
        self._file.write(np.ascontiguousarray(rows).data)
        self._count += len(rows)

    def finish(self) -> None:
        """Puts the final count into the header."""
        self._write_header()
        self._file.seek(0, 2)

    def _write_header(self) -> None:
        # NumPy leaves room for the first axis to grow, so the header keeps its length.
        self._file.seek(self._start)
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._count, *self._shape),
        }
        np.lib.format.write_array_header_1_0(self._file, header)


class Saver:
    """Where outputs go while they are computed. Made by `saving`."""

    def __init__(self, rows: Mapping[str, Rows]) -> None:
        self._rows = rows

    def add(self, outputs: Mapping[str, NDArray[Any]]) -> None:
        """A batch of outputs by name, each (N, *shape)."""
        for name, rows in self._rows.items():
            if len(outputs[name]):
                rows.append(outputs[name])


def check_path(path: Path, outputs: Sequence[str]) -> None:
    """That outputs can be saved under this name. Raises NetError before anything is computed."""
    if path.suffix not in (".npy", ".npz"):
        raise error("wrong-file", f"outputs are saved as .npy or .npz, not as {path.name}")
    if path.suffix == ".npy" and len(outputs) > 1:
        raise error(
            "wrong-file",
            f"a .npy file holds one array, and there are {len(outputs)} outputs",
            help=f"save them as {path.with_suffix('.npz').name}",
        )
    check_place(path)


@contextmanager
def saving(path: Path, shapes: Mapping[str, Shape]) -> Iterator[Saver]:
    """Saves the outputs that are added until the block ends; the file appears then, whole.

    shapes: an output's shape without the batch axis, by name. Raises NetError where the file
    cannot be written.
    """
    check_path(path, list(shapes))
    with replacing(path) as file, ExitStack() as stack:
        alone = path.suffix == ".npy"
        files = {n: file if alone else stack.enter_context(TemporaryFile()) for n in shapes}
        rows = {name: Rows(files[name], shape) for name, shape in shapes.items()}
        yield Saver(rows)
        for one in rows.values():
            one.finish()
        if not alone:
            _zip(file, files)


def _zip(file: IO[bytes], members: Mapping[str, IO[bytes]]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, member in members.items():
            member.seek(0)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as into:
                shutil.copyfileobj(member, into)
