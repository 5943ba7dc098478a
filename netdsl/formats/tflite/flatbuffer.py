"""FlatBuffers' binary form, written front to back (flatbuffers.dev/internals).

Offsets point forward, so a table comes before what it refers to, and blobs, which are large, come
last: nothing is held twice, and a file is written piece by piece.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 16
"""Of blobs, so that their numbers can be used where they lie."""

Pieces = list[bytes | memoryview]


class Field(NamedTuple):
    """Where a table keeps a field, and its kind: a scalar's letter as `struct` has it, "text",
    "table", "tables", "blob", "place" (of a blob behind the buffer), or a scalar's letter and *
    for a vector of them."""

    number: int
    kind: str


Fields = Mapping[str, Field]


@dataclass(frozen=True)
class Table:
    """A table: the fields that it may have, and the values of those it has."""

    fields: Fields
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Blob:
    """Numbers that lie in the file as they do in memory."""

    values: NDArray[Any]

    @property
    def data(self) -> memoryview:
        values = np.ascontiguousarray(self.values)
        return values.astype(values.dtype.newbyteorder("<"), copy=False).reshape(-1).data.cast("B")


def encode(root: Table, identifier: bytes) -> Pieces:
    """The buffer of a table and all it refers to, piece by piece.

    identifier: the four bytes that say what is in the file. Blobs of "place" fields follow the
    buffer and may lie beyond what its offsets can reach.
    """
    writer = _Writer()
    writer.out += bytes(4) + identifier
    writer.refer(0, writer.table(root))
    return writer.finish()


class _Writer:
    """A buffer while it grows."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.blobs: list[tuple[int, Blob]] = []
        """Blobs yet to be written, and where the buffer refers to them."""
        self.behind: list[tuple[int, Blob]] = []

    def align(self, size: int, ahead: int = 0) -> int:
        """Where the buffer goes on, so that what comes `ahead` bytes later is aligned."""
        self.out += bytes(-(len(self.out) + ahead) % size)
        return len(self.out)

    def refer(self, at: int, to: int) -> None:
        """Sets the offset that lies at `at`."""
        struct.pack_into("<I", self.out, at, to - at)

    def table(self, table: Table) -> int:
        """Writes a table and what it refers to; returns where it lies."""
        kinds = {name: table.fields[name] for name in table.values}
        wide = sorted(kinds, key=lambda name: -_width(kinds[name].kind))
        places, size = {}, 4
        for name in wide:
            width = _width(kinds[name].kind)
            size += -size % width
            places[name], size = size, size + width
        count = max((field.number + 1 for field in kinds.values()), default=0)
        head = self.align(2)
        self.out += struct.pack("<HH", 4 + 2 * count, size) + bytes(2 * count)
        start = self.align(8)
        self.out += struct.pack("<i", start - head) + bytes(size - 4)
        for name, place in places.items():
            struct.pack_into("<H", self.out, head + 4 + 2 * kinds[name].number, place)
            self.field(start + place, kinds[name].kind, table.values[name])
        return start

    def field(self, at: int, kind: str, value: Any) -> None:
        """Writes a field's value at `at`, or behind all that is there and its offset at `at`."""
        if kind == "blob":
            self.blobs.append((at, value))
        elif kind == "place":
            self.behind.append((at, value))
        elif kind == "table":
            self.refer(at, self.table(value))
        elif kind == "tables":
            self.refer(at, self.tables(value))
        elif kind == "text":
            data = str(value).encode()
            self.refer(at, self.align(4))
            self.out += struct.pack("<I", len(data)) + data + bytes(1)
        elif kind.endswith("*"):
            self.refer(at, self.align(4))
            self.out += struct.pack(f"<I{len(value)}{kind[0]}", len(value), *value)
        else:
            struct.pack_into(f"<{kind}", self.out, at, value)

    def tables(self, tables: Sequence[Table]) -> int:
        """Writes a vector of tables; returns where it lies."""
        start = self.align(4)
        self.out += struct.pack("<I", len(tables)) + bytes(4 * len(tables))
        for i, table in enumerate(tables, 1):
            self.refer(start + 4 * i, self.table(table))
        return start

    def finish(self) -> Pieces:
        """The buffer and its blobs, each offset set."""
        pieces: Pieces = []
        end = self.align(ALIGNMENT)
        for at, blob in self.blobs:
            # A vector's length stands right before its numbers.
            gap = ALIGNMENT - 4
            self.refer(at, end + gap)
            size = len(blob.data)
            rest = -size % ALIGNMENT
            pieces += [bytes(gap) + struct.pack("<I", size), blob.data, bytes(rest)]
            end += ALIGNMENT + size + rest
        for at, blob in self.behind:
            struct.pack_into("<Q", self.out, at, end)
            rest = -len(blob.data) % ALIGNMENT
            pieces += [blob.data, bytes(rest)]
            end += len(blob.data) + rest
        return [bytes(self.out), *pieces]


def _width(kind: str) -> int:
    """Bytes of a field within its table."""
    if kind == "place":
        return 8
    return struct.calcsize(f"<{kind}") if len(kind) == 1 else 4
