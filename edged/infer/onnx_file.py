"""A look into the bytes of an ONNX file without the library: does any tensor keep its data in another file?

A model may name any path for its weights; the digest of the model says nothing about the bytes found there. Only the
protobuf structure is walked, tensors are skipped by their length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

# Message -> field number -> message of that field, as far as a tensor can hide below it (onnx.proto3).
_CHILDREN: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def has_external_data(data: bytes) -> bool:
    """Whether a tensor of this model points to another file. Broken bytes are left to the runtime: False."""
    pending = [("model", 0, len(data))]
    while pending:
        message, start, end = pending.pop()
        try:
            for field, value in _fields(data, start, end):
                if message == "tensor" and (field == _EXTERNAL_DATA or (field, value) == (_DATA_LOCATION, 1)):
                    return True
                child = _CHILDREN[message].get(field)
                if child is not None and isinstance(value, tuple):
                    pending.append((child, *value))
        except ValueError:
            return False
    return False


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """(field number, varint or (start, end) of its bytes). Raises ValueError where this is no protobuf."""
    while at < end:
        key, at = _varint(data, at, end)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            number, at = _varint(data, at, end)
            yield field, number
            continue
        if wire == _LENGTH:
            length, at = _varint(data, at, end)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + length > end:
            raise ValueError("a field is longer than its message")
        yield field, (at, at + length)
        at += length


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    number = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise ValueError("a number does not end")
