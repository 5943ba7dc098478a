"""A look at a protobuf file's outline before it is parsed.

Two bytes of a file can become an object of a hundred bytes in memory, and messages may be nested.
Honest models are a few large tensors and some thousand small fields; a file that is all small
fields is refused.
"""

from __future__ import annotations

from netdsl.formats.onnx.faults import broken

MOST = 4_000_000
"""Fields of the parts that are looked into."""

INTO = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "tensor": {},
}
"""For each message, its fields that are messages to look into."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def check(data: bytes, name: str) -> None:
    """Raises NetError for a file that ends early or has an absurd number of fields."""
    left = MOST
    stack = [("model", 0, len(data))]
    while stack:
        kind, at, end = stack.pop()
        while at < end:
            left -= 1
            if left < 0:
                raise broken(f"{name} has more than {MOST:,} fields, as no honest model has")
            at, number, size = _field(data, at, end, name)
            if size is None:
                continue
            if number in INTO[kind]:
                stack.append((INTO[kind][number], at, at + size))
            at += size


def _field(data: bytes, at: int, end: int, name: str) -> tuple[int, int, int | None]:
    """Where a field's content starts (or ends, if it is a number), its number, its length."""
    key, at = _varint(data, at, end, name)
    wire = key & 7
    size = None
    if wire == VARINT:
        _, at = _varint(data, at, end, name)
    elif wire in (FIXED64, FIXED32):
        at += 8 if wire == FIXED64 else 4
    elif wire == BYTES:
        size, at = _varint(data, at, end, name)
    else:
        raise broken(f"{name} is not an ONNX model, or is damaged at byte {at}")
    if at + (size or 0) > end:
        raise broken(f"{name} is not an ONNX model, or is cut off: it ends within a field")
    return at, key >> 3, size


def _varint(data: bytes, at: int, end: int, name: str) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise broken(f"{name} is not an ONNX model, or is cut off: it ends within a number")
