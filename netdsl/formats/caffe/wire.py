"""Protobuf's binary form, as .caffemodel files use it: read in place, written field by field.

A file is mapped, and weights stay where they lie until they are asked for. What is not in the
schema is passed over, so the memory that reading takes is bounded by the number of known fields.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.formats.caffe.message import Message, broken
from netdsl.formats.caffe.prototxt import EnumName
from netdsl.formats.caffe.schema import Enum, Kind, Schema

MOST = 200_000
"""Fields of one file; GoogLeNet's has some thousand."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Run:
    """A packed run of floats or doubles, in the file."""

    data: memoryview
    width: int

    def array(self) -> NDArray[np.float32]:
        """The numbers; the file's own bytes where they are float32."""
        kind = np.dtype("<f4") if self.width == 4 else np.dtype("<f8")
        return np.frombuffer(self.data, kind).astype(np.float32, copy=False)

    def __len__(self) -> int:
        return len(self.data) // self.width


class Decoder:
    """Reads one file's messages."""

    def __init__(self, data: memoryview, name: str) -> None:
        self.data, self.name, self.left = data, name, MOST

    def message(self, schema: Schema, start: int, end: int) -> Message:
        """The message in these bytes. Raises NetError for one that is cut off or absurd."""
        message = Message()
        at = start
        while at < end:
            key, at = self._varint(at, end)
            number, wire = key >> 3, key & 7
            known = schema.fields.get(number)
            begin, at = self._content(wire, at, end)
            if known is not None:
                self.left -= 1
                if self.left < 0:
                    raise broken(f"{self.name} has more than {MOST:,} fields, as no honest net has")
                for value in self._values(known[1], wire, begin, at):
                    message.add(known[0], value)
        return message

    def _content(self, wire: int, at: int, end: int) -> tuple[int, int]:
        """Where a field's content begins and ends."""
        if wire == VARINT:
            return at, self._varint(at, end)[1]
        if wire == BYTES:
            size, at = self._varint(at, end)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise broken(f"{self.name} is not a .caffemodel, or is damaged at byte {at:,}")
        if size > end - at:
            raise broken(
                f"{self.name} is not a .caffemodel, or is broken off: {size:,} bytes should follow "
                f"byte {at:,}, {end - at:,} do"
            )
        return at, at + size

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end and shift < 70:
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
        raise broken(f"{self.name} is not a .caffemodel, or is broken off at byte {at:,}")

    def _values(self, kind: Kind, wire: int, start: int, end: int) -> Iterator[Any]:
        if isinstance(kind, Schema):
            self._expect(wire, BYTES, start)
            yield self.message(kind, start, end)
        elif kind == "text":
            self._expect(wire, BYTES, start)
            yield bytes(self.data[start:end]).decode("utf-8", "replace")
        elif kind in ("floats", "doubles"):
            self._expect(wire, BYTES, start)
            width = 4 if kind == "floats" else 8
            if (end - start) % width:
                raise broken(f"{self.name} is damaged: a blob ends within a number")
            yield Run(self.data[start:end], width)
        elif kind == "float":
            # Written one by one, or packed.
            if wire not in (FIXED32, BYTES) or (end - start) % 4:
                raise broken(f"{self.name} is not a .caffemodel, or is damaged at byte {start:,}")
            self._count((end - start) // 4)
            yield from (v for (v,) in struct.iter_unpack("<f", self.data[start:end]))
        elif wire in (VARINT, BYTES):
            while start < end:
                self._count(1)
                value, start = self._varint(start, end)
                yield _whole(value, kind)
        else:
            raise broken(f"{self.name} is not a .caffemodel, or is damaged at byte {start:,}")

    def _count(self, number: int) -> None:
        self.left -= number
        if self.left < 0:
            raise broken(f"{self.name} has more than {MOST:,} fields, as no honest net has")

    def _expect(self, wire: int, wanted: int, at: int) -> None:
        if wire != wanted:
            raise broken(f"{self.name} is not a .caffemodel, or is damaged at byte {at:,}")


def _whole(value: int, kind: Kind) -> int | bool | str:
    if isinstance(kind, Enum):
        return EnumName(kind.names.get(value, str(value)))
    if kind == "bool":
        return bool(value)
    return value - (1 << 64) if value >= 1 << 63 else value


# Writing ------------------------------------------------------------------------------------------


def encode(message: Message, schema: Schema) -> Iterator[bytes | memoryview]:
    """The message's bytes, piece by piece; runs of weights are pieces of their own."""
    numbers = {name: (number, kind) for number, (name, kind) in schema.fields.items()}
    for name, values in message.fields.items():
        number, kind = numbers[name]
        for value in values:
            yield from _encoded(number, kind, value)


def _encoded(number: int, kind: Kind, value: Any) -> Iterator[bytes | memoryview]:
    if isinstance(kind, Schema):
        inside = list(encode(value, kind))
        yield _key(number, BYTES) + _number(sum(map(len, inside)))
        yield from inside
    elif kind == "text":
        data = str(value).encode()
        yield _key(number, BYTES) + _number(len(data)) + data
    elif kind == "floats":
        flat = np.ascontiguousarray(value, "<f4").reshape(-1).data.cast("B")
        yield _key(number, BYTES) + _number(len(flat))
        yield flat
    elif kind == "float":
        yield _key(number, FIXED32) + struct.pack("<f", value)
    elif isinstance(kind, Enum):
        code = next(n for n, known in kind.names.items() if known == value)
        yield _key(number, VARINT) + _number(code)
    else:
        yield _key(number, VARINT) + _number(int(value))


def _key(number: int, wire: int) -> bytes:
    return _number(number << 3 | wire)


def _number(value: int) -> bytes:
    value %= 1 << 64
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*found, value))
