"""NumPy's .npy and .npz files, read row by row: never more than a row in memory.

Only plain numbers are read, no pickles. A header that promises more than the file holds costs
nothing: the rows end, and that is the error.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import NetError, error
from netdsl.frozen import dataclass
from netdsl.ops import Shape

NPY, ZIP = b"\x93NUMPY", b"PK\x03\x04"
LARGEST_ROW = 1 << 32
"""Bytes of the largest row that is read."""

DAMAGE = (
    *(OSError, ValueError, EOFError, MemoryError, ArithmeticError, RuntimeError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, LZMAError, TokenError),
)
"""What reading a damaged file raises in NumPy and `zipfile`: its header is read as Python, and may
promise more than memory holds; its members are unpacked, and may be encrypted."""

Source = Path | IO[bytes]


@dataclass(frozen=True)
class Header:
    """What an array in a file is, before its numbers are read."""

    shape: Shape
    dtype: np.dtype[np.generic]
    by_columns: bool


class Arrays:
    """The arrays of a .npy (one, with the empty name) or .npz file (several, named).

    Raises NetError when made, or while rows are read: unreadable, not such a file, an array of
    something else than numbers, broken off.
    """

    def __init__(self, source: Source, name: str) -> None:
        self.name = name
        self._source = source
        self._zip: zipfile.ZipFile | None = None
        with self._faults():
            if is_zip(source):
                self._zip = zipfile.ZipFile(source)
                members = [m for m in self._zip.namelist() if m.endswith(".npy")]
                self.headers = {m.removesuffix(".npy"): self._header(m) for m in members}
            else:
                self.headers = {"": self._header("")}

    def rows(self, key: str) -> Iterator[NDArray[np.float32]]:
        """The array's entries along its first axis, one by one."""
        header = self.headers[key]
        with self._faults(), self._open(key and f"{key}.npy") as file:
            _read_header(file)
            yield from self._rows(file, header, key)

    def whole(self, key: str) -> NDArray[np.float32]:
        """The array at once, where it is known to be one sample."""
        header = self.headers[key]
        with self._faults(), self._open(key and f"{key}.npy") as file:
            _read_header(file)
            order = header.shape[::-1] if header.by_columns else header.shape
            values = self._take(file, order, header.dtype, key)
        return np.ascontiguousarray(values.T if header.by_columns else values)

    def _rows(self, file: IO[bytes], header: Header, key: str) -> Iterator[NDArray[np.float32]]:
        count, *row = header.shape
        if header.by_columns and len(header.shape) > 1:
            # Rows are scattered over the file: there is no way but to hold it.
            values = self._take(file, header.shape[::-1], header.dtype, key).T
            yield from (np.ascontiguousarray(value) for value in values)
            return
        for _ in range(count):
            yield self._take(file, tuple(row), header.dtype, key)

    def _take(
        self, file: IO[bytes], shape: Shape, dtype: np.dtype[np.generic], key: str
    ) -> NDArray[np.float32]:
        size = prod(shape) * dtype.itemsize
        if size > LARGEST_ROW:
            raise error("too-large", f"{self._label(key)} has a sample of {size:,} bytes")
        data = file.read(size)
        if len(data) < size:
            raise error("truncated", f"{self._label(key)} breaks off before its last number")
        with np.errstate(over="ignore"):  # beyond float32 is infinite
            return np.frombuffer(data, dtype).reshape(shape).astype(np.float32)

    def _header(self, member: str) -> Header:
        with self._open(member) as file:
            header = _read_header(file)
        if header.dtype.hasobject:
            raise error(
                "not-numbers",
                f"{self._label(member)} holds Python objects, which are not read",
                help="save an array of plain numbers",
            )
        if header.dtype.kind not in "biuf":
            raise error("not-numbers", f"{self._label(member)} holds {header.dtype}, not numbers")
        return header

    @contextmanager
    def _open(self, member: str) -> Iterator[IO[bytes]]:
        if self._zip is not None:
            with self._zip.open(member) as file:
                yield file
        elif isinstance(self._source, Path):
            with self._source.open("rb") as file:
                yield file
        else:
            self._source.seek(0)
            yield self._source

    def _label(self, key: str) -> str:
        return f"{self.name}[{key.removesuffix('.npy')}]" if key else self.name

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except NetError:
            raise
        except DAMAGE as problem:
            raise error("unreadable", f"{self.name} cannot be read: {in_a_line(problem)}") from None


def in_a_line(problem: BaseException) -> str:
    """What was wrong, in one line."""
    return getattr(problem, "strerror", None) or str(problem).partition("\n")[0]


def is_zip(source: Source) -> bool:
    """Whether a file begins as a zip archive does, which .npz is."""
    return _begins(source, ZIP)


def is_arrays(source: Source) -> bool:
    """Whether a file begins as .npy or .npz does."""
    return _begins(source, NPY) or _begins(source, ZIP)


def _begins(source: Source, mark: bytes) -> bool:
    if isinstance(source, Path):
        with source.open("rb") as file:
            return file.read(len(mark)) == mark
    source.seek(0)
    found = source.read(len(mark))
    source.seek(0)
    return found == mark


def _read_header(file: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        read = np.lib.format.read_array_header_1_0
    elif version == (2, 0):
        read = np.lib.format.read_array_header_2_0
    else:
        raise ValueError(f"version {version[0]}.{version[1]} of .npy is not known")
    shape, by_columns, dtype = read(file)
    if any(n < 0 for n in shape):
        raise ValueError(f"its shape is {shape}")
    return Header(tuple(shape), dtype, by_columns)
