"""Small .tflite models made on the spot, without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_TYPES = {"float32": 0, "int32": 2, "uint8": 3, "int64": 4, "string": 5, "int8": 9}


def tensor(
    name: str,
    dtype: str,
    shape: Sequence[int],
    *,
    buffer: int = 0,
    affine: tuple[float, int] | None = None,
) -> Any:
    """An axis of -1 is free. affine: (scale, zero point)."""
    made = schema.TensorT()
    made.name, made.type, made.buffer = name, _TYPES[dtype], buffer
    made.shape = [max(axis, 1) for axis in shape]
    made.shapeSignature = list(shape)
    if affine is not None:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = [affine[0]], [affine[1]]
    return made


def save(
    path: Path,
    tensors: Sequence[Any],
    inputs: Sequence[int],
    outputs: Sequence[int],
    *,
    builtin: int,
    operands_first: Sequence[int] = (),
    operands: Sequence[int] = (),
    options: tuple[int, Any] = (0, None),
    custom: str = "",
    constants: Sequence[bytes] = (),
) -> Path:
    """Write a graph of one operator. constants: the buffers from 1 on. options: (kind, table)."""
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), 1
    code.customCode = custom or None
    operator = schema.OperatorT()
    operator.opcodeIndex = 0
    operator.inputs, operator.outputs = [*operands_first, *inputs, *operands], list(outputs)
    operator.builtinOptionsType, operator.builtinOptions = options
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = list(tensors), [operator]
    graph.inputs, graph.outputs = list(inputs), list(outputs)
    model = schema.ModelT()
    model.version, model.description = 3, "made by a test"
    model.operatorCodes, model.subgraphs, model.buffers = [code], [graph], [schema.BufferT()]
    for data in constants:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(data, np.uint8)
        model.buffers.append(buffer)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def sum_tflite(path: Path, *, rows: int = -1) -> Path:
    """Computes y = sum over axis 1 of x, float32 (rows, 4), as `models.sum_model` does in ONNX."""
    options = schema.ReducerOptionsT()
    options.keepDims = False
    return save(
        path,
        [tensor("x", "float32", (rows, 4)), tensor("axes", "int32", (1,), buffer=1), tensor("y", "float32", (rows,))],
        [0],
        [2],
        operands=[1],
        builtin=schema.BuiltinOperator.SUM,
        options=(schema.BuiltinOptions.ReducerOptions, options),
        constants=[np.array([1], np.int32).tobytes()],
    )


def unary(
    path: Path, dtype: str, *, builtin: int, custom: str = "", affine: tuple[float, int] | None = None, rows: int = -1
) -> Path:
    """Computes y = operator(x), 4 values each, free batch unless said."""
    ports = [tensor(name, dtype, (rows, 4), affine=affine) for name in ("x", "y")]
    return save(path, ports, [0], [1], builtin=builtin, custom=custom)
