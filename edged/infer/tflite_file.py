"""A look into the bytes of a .tflite file without a library: what goes in and comes out, and which operators it needs.

A FlatBuffer: tables point to their fields by 32-bit offsets. Every offset is checked before it is followed, so that
broken bytes end in an error here and not in native code. Only what a decision needs is read; weights are not.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from edged.errors import ModelError
from edged.infer.affine import Affine

EDGETPU_OP = "edgetpu-custom-op"

# TensorType of schema.fbs; the rest are texts, complex numbers and handles, which no port of ours can carry.
_DTYPES: Mapping[int, str] = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    9: "int8",
    10: "float64",
    12: "uint64",
    15: "uint32",
    16: "uint16",
}
_QUANTISED: Mapping[str, tuple[int, int]] = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
_MOST_DIMENSIONS = 8
_MOST_TABLES = 20_000  # in one list; a file may let many overlapping lists point to the same bytes
_MOST_NUMBERS = 4096

# Positions of the fields that are read, in the order of schema.fbs.
_MODEL_CODES, _MODEL_SUBGRAPHS, _MODEL_BUFFERS = 1, 2, 4
_CODE_CUSTOM = 1
_GRAPH_TENSORS, _GRAPH_INPUTS, _GRAPH_OUTPUTS, _GRAPH_OPERATORS = 0, 1, 2, 3
_OPERATOR_CODE, _OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 0, 1, 2
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BUFFER, _TENSOR_NAME, _TENSOR_QUANTISATION, _TENSOR_SIGNATURE = 0, 1, 2, 3, 4, 7
_QUANTISATION_SCALE, _QUANTISATION_ZERO = 2, 3


class TfliteTensor(NamedTuple):
    """An input or output. `dtype` empty: no numbers. `shape`: -1 for an axis that the model leaves free."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    affine: Affine | None


class TfliteFile(NamedTuple):
    """What a model declares, of its first (and served) graph."""

    inputs: tuple[TfliteTensor, ...]
    outputs: tuple[TfliteTensor, ...]
    custom_operators: tuple[str, ...]


def read_declared(path: Path, data: bytes, known: Collection[str] = ()) -> TfliteFile:
    """What the model at `path` declares, for runtimes that have the built-in operators and, of others, `known` alone.

    Raises:
        ModelError: `corrupt`; `unsupported`: it needs a Coral Edge TPU or custom operators; `incompatible`: inputs and
            outputs that are no numbers or have no names of their own.
    """
    try:
        declared = read_tflite(data)
    except ValueError as error:
        raise ModelError("corrupt", f"Cannot read {path}: {error}", hint="copy the model again") from error
    unknown = [name for name in declared.custom_operators if name not in known]
    if EDGETPU_OP in unknown:
        raise ModelError(
            "unsupported",
            f"{path} is compiled for a Coral Edge TPU, which this runtime does not drive",
            hint="use the file it was compiled from, without _edgetpu in its name",
        )
    if unknown:
        raise ModelError(
            "unsupported",
            f"{path} needs custom operators that this runtime does not have: {', '.join(unknown)}",
            hint="export the model again with built-in operators only",
        )
    for ports in (declared.inputs, declared.outputs):
        names = {port.name for port in ports if port.dtype}
        if not ports or len(names) != len(ports) or "" in names:
            raise ModelError(
                "incompatible",
                f"{path.name}: expected inputs and outputs of numbers, each with a name of its own, "
                f"got {[(port.name, port.dtype or 'no numbers') for port in ports]}",
            )
    return declared


def read_tflite(data: bytes) -> TfliteFile:
    """What `data` declares.

    Raises:
        ValueError: no FlatBuffer of a model: an offset leads out of the file, an index names what is not there.
    """
    try:
        return _read(_Table.root(data))
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError("an offset leads out of the file, or to no text") from error


def _read(model: _Table) -> TfliteFile:
    if model.data[4:8] != b"TFL3":
        raise ValueError("expected the identifier TFL3 at byte 4")
    codes, graphs = model.tables(_MODEL_CODES), model.tables(_MODEL_SUBGRAPHS)
    if not graphs:
        raise ValueError("it holds no graph")
    buffers = model.length(_MODEL_BUFFERS)
    for graph in graphs:
        _check_indices(graph, len(codes), buffers)
    tensors = graphs[0].tables(_GRAPH_TENSORS)
    return TfliteFile(
        tuple(_tensor(tensors[index]) for index in graphs[0].integers(_GRAPH_INPUTS)),
        tuple(_tensor(tensors[index]) for index in graphs[0].integers(_GRAPH_OUTPUTS)),
        tuple(name for code in codes if (name := code.text(_CODE_CUSTOM))),
    )


def _check_indices(graph: _Table, codes: int, buffers: int) -> None:
    """Every tensor, buffer and operator code that is named by number exists; -1 is a tensor left out."""
    tensors = graph.tables(_GRAPH_TENSORS)
    for tensor in tensors:
        if tensor.unsigned(_TENSOR_BUFFER) >= max(buffers, 1):
            raise ValueError(f"tensor {tensor.text(_TENSOR_NAME)!r} names a buffer that is not there")
    named = [(index, 0) for index in (*graph.integers(_GRAPH_INPUTS), *graph.integers(_GRAPH_OUTPUTS))]
    for operator in graph.tables(_GRAPH_OPERATORS):
        if operator.unsigned(_OPERATOR_CODE) >= codes:
            raise ValueError("an operator names a code that is not there")
        named += [(index, -1) for index in operator.integers(_OPERATOR_INPUTS)]
        named += [(index, -1) for index in operator.integers(_OPERATOR_OUTPUTS)]
    if any(not least <= index < len(tensors) for index, least in named):
        raise ValueError(f"a number outside the {len(tensors)} tensors is named")


def _tensor(table: _Table) -> TfliteTensor:
    dtype = _DTYPES.get(table.byte(_TENSOR_TYPE), "")
    shape = table.integers(_TENSOR_SHAPE)
    signature = table.integers(_TENSOR_SIGNATURE)
    if len(shape) > _MOST_DIMENSIONS or (signature and len(signature) != len(shape)):
        raise ValueError(f"a tensor has the shape {shape[:_MOST_DIMENSIONS]} and the signature {signature[:9]}")
    if any(axis < 0 for axis in shape) or any(axis < -1 for axis in signature):
        raise ValueError(f"a tensor has the shape {shape} and the signature {signature}")
    return TfliteTensor(table.text(_TENSOR_NAME), dtype, signature or shape, _affine(table, dtype))


def _affine(tensor: _Table, dtype: str) -> Affine | None:
    """Scale and zero point when the tensor has one pair; None for plain numbers."""
    quantisation = tensor.table(_TENSOR_QUANTISATION)
    if quantisation is None or dtype not in _QUANTISED:
        return None
    scales = quantisation.floats(_QUANTISATION_SCALE)
    zeros = quantisation.longs(_QUANTISATION_ZERO) or (0,)
    if not scales:
        return None
    least, most = _QUANTISED[dtype]
    if len(scales) != 1 or len(zeros) != 1 or not 0 < scales[0] < float("inf") or not least <= zeros[0] <= most:
        raise ValueError(f"an input or output has the scales {scales[:3]} and zero points {zeros[:3]}")
    return Affine(dtype, scales[0], zeros[0])


class _Table:
    """One table of a FlatBuffer. Fields that are absent read as 0, "" or nothing."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self._at = at
        self._vtable = at - self._signed(at)
        if self._vtable < 0:
            raise ValueError("a table describes itself outside the file")
        self._vtable_bytes = self._short(self._vtable)

    @classmethod
    def root(cls, data: bytes) -> _Table:
        (at,) = struct.unpack_from("<I", data, 0)
        return cls(data, at)

    def byte(self, field: int) -> int:
        at = self._field(field)
        return self.data[at] if at else 0

    def unsigned(self, field: int) -> int:
        at = self._field(field)
        return self._unsigned(at) if at else 0

    def text(self, field: int) -> str:
        start, length = self._vector(field, 1)
        return self.data[start : start + length].decode()

    def length(self, field: int) -> int:
        return self._vector(field, 4)[1]

    def integers(self, field: int) -> tuple[int, ...]:
        return self._numbers(field, "i", 4)

    def longs(self, field: int) -> tuple[int, ...]:
        return self._numbers(field, "q", 8)

    def floats(self, field: int) -> tuple[float, ...]:
        return self._numbers(field, "f", 4)

    def table(self, field: int) -> _Table | None:
        at = self._field(field)
        return _Table(self.data, at + self._unsigned(at)) if at else None

    def tables(self, field: int) -> list[_Table]:
        start, length = self._vector(field, 4)
        if length > _MOST_TABLES:
            raise ValueError(f"a list of {length} parts, expected at most {_MOST_TABLES}")
        return [_Table(self.data, at + self._unsigned(at)) for at in range(start, start + 4 * length, 4)]

    def _field(self, field: int) -> int:
        """Where the field stands; 0: absent."""
        entry = 4 + 2 * field
        offset = self._short(self._vtable + entry) if entry + 2 <= self._vtable_bytes else 0
        return self._at + offset if offset else 0

    def _vector(self, field: int, item_bytes: int) -> tuple[int, int]:
        """(first byte, number of items), all of them inside the file."""
        at = self._field(field)
        if not at:
            return 0, 0
        at += self._unsigned(at)
        length = self._unsigned(at)
        if at + 4 + length * item_bytes > len(self.data):
            raise ValueError("a list is longer than the file")
        return at + 4, length

    def _numbers(self, field: int, kind: str, item_bytes: int) -> tuple[int, ...]:
        start, length = self._vector(field, item_bytes)
        if length > _MOST_NUMBERS:
            raise ValueError(f"a list of {length} numbers, expected at most {_MOST_NUMBERS}")
        return struct.unpack_from(f"<{length}{kind}", self.data, start)

    def _short(self, at: int) -> int:
        (number,) = struct.unpack_from("<H", self.data, at)
        return int(number)

    def _signed(self, at: int) -> int:
        (number,) = struct.unpack_from("<i", self.data, at)
        return int(number)

    def _unsigned(self, at: int) -> int:
        (number,) = struct.unpack_from("<I", self.data, at)
        return int(number)
