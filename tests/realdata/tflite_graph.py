"""A trained TFLite network as a float ONNX model, so that real weights meet the ONNX toolchain.

Knows the operators of the MLPerf Tiny networks and nothing else. Weights of quantised files are dequantised; the
activations stay float, so that the result is the float twin of the file. Field numbers are those of TFLite's schema.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_DTYPES = {0: np.float32, 2: np.int32, 3: np.uint8, 4: np.int64, 9: np.int8}
_ADD, _POOL, _CONV, _DEPTHWISE, _DENSE, _RESHAPE, _SOFTMAX = 0, 1, 3, 4, 9, 22, 25
_ACTIVATIONS = {0: None, 1: "Relu", 3: "Clip"}


class Table:
    """A flatbuffer table: fields by number."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._vtable = at - struct.unpack_from("<i", data, at)[0]

    def scalar(self, field: int, kind: str, default: int = 0) -> int:
        at = self._find(field)
        return default if at is None else int(struct.unpack_from(f"<{kind}", self._data, at)[0])

    def table(self, field: int) -> Table | None:
        at = self._find(field)
        return None if at is None else Table(self._data, self._follow(at))

    def tables(self, field: int) -> list[Table]:
        start, count = self._vector(field)
        return [Table(self._data, self._follow(start + 4 * index)) for index in range(count)]

    def array(self, field: int, dtype: Any) -> np.ndarray:
        start, count = self._vector(field)
        found: np.ndarray = np.frombuffer(self._data, dtype, count, start)
        return found

    def _find(self, field: int) -> int | None:
        size = struct.unpack_from("<H", self._data, self._vtable)[0]
        if 4 + 2 * field >= size:
            return None
        offset = struct.unpack_from("<H", self._data, self._vtable + 4 + 2 * field)[0]
        return self._at + offset if offset else None

    def _follow(self, at: int) -> int:
        return int(at + struct.unpack_from("<I", self._data, at)[0])

    def _vector(self, field: int) -> tuple[int, int]:
        at = self._find(field)
        if at is None:
            return 0, 0
        start = self._follow(at)
        return start + 4, int(struct.unpack_from("<I", self._data, start)[0])


class Tensor(NamedTuple):
    shape: tuple[int, ...]
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int
    values: np.ndarray | None

    def floats(self) -> np.ndarray:
        """The weights, dequantised where they are quantised."""
        assert self.values is not None
        values = self.values.reshape(self.shape).astype(np.float64)
        if not len(self.scale):
            return np.asarray(values, np.float32)
        along = [1] * len(self.shape)
        along[self.axis] = len(self.scale)
        return np.asarray((values - self.zero_point.reshape(along)) * self.scale.reshape(along), np.float32)


class Converted(NamedTuple):
    """`scale`, `zero_point`: how the file's own integer input becomes the model's floats; 1 and 0 for a float file."""

    model: onnx.ModelProto
    scale: float
    zero_point: int


def to_onnx(path: Path) -> Converted:
    data = path.read_bytes()
    root = Table(data, struct.unpack_from("<I", data, 0)[0])
    codes = [max(code.scalar(0, "b"), code.scalar(3, "i")) for code in root.tables(1)]
    buffers = [buffer.array(0, np.uint8) for buffer in root.tables(4)]
    (graph,) = root.tables(2)
    tensors = [_tensor(table, buffers) for table in graph.tables(0)]
    first, last = int(graph.array(1, np.int32)[0]), int(graph.array(2, np.int32)[0])
    made = _Builder(tensors, first)
    for operator in graph.tables(3):
        made.add(codes[operator.scalar(0, "I")], operator)
    shape, out = tensors[first].shape, tensors[last].shape
    made.nodes.append(helper.make_node("Identity", [made.flat(last)], ["output"]))
    proto = helper.make_graph(
        made.nodes,
        path.stem,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", *shape[1:]])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", *out[1:]])],
        made.weights,
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    quantized = len(tensors[first].scale)
    scale = float(tensors[first].scale[0]) if quantized else 1.0
    return Converted(model, scale, int(tensors[first].zero_point[0]) if quantized else 0)


def _tensor(table: Table, buffers: list[np.ndarray]) -> Tensor:
    dtype, raw = _DTYPES[table.scalar(1, "b")], buffers[table.scalar(2, "I")]
    quantization = table.table(4)
    none = np.empty(0)
    return Tensor(
        shape=tuple(int(axis) for axis in table.array(0, np.int32)),
        scale=quantization.array(2, np.float32) if quantization else none,
        zero_point=quantization.array(3, np.int64) if quantization else none,
        axis=quantization.scalar(6, "i") if quantization else 0,
        values=raw.view(dtype) if len(raw) else None,
    )


class _Builder:
    """Nodes so far. Images flow as NCHW under `c<index>`, everything else as TFLite has it under `t<index>`."""

    def __init__(self, tensors: list[Tensor], first: int) -> None:
        self.tensors = tensors
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._names = {first: "input"}
        self._planes: dict[int, str] = {}

    def add(self, code: int, operator: Table) -> None:
        sources = [int(at) for at in operator.array(1, np.int32)]
        (target,) = (int(at) for at in operator.array(2, np.int32))
        options = operator.table(4)
        if code in (_CONV, _DEPTHWISE):
            assert options is not None
            self._convolve(code == _DEPTHWISE, sources, target, options)
        elif code == _POOL:
            assert options is not None
            strides, kernel = (
                (options.scalar(2, "i"), options.scalar(1, "i")),
                (options.scalar(4, "i"), options.scalar(3, "i")),
            )
            self._emit("AveragePool", [self.plane(sources[0])], f"c{target}", kernel_shape=kernel, strides=strides)
            self._planes[target] = f"c{target}"
        elif code == _ADD:
            self._planes[target] = self._activated(
                "Add", [self.plane(at) for at in sources], f"c{target}", options.scalar(0, "b") if options else 0
            )
        elif code == _DENSE:
            weights = self.weight(self.tensors[sources[1]].floats())
            bias = self.weight(self._bias(sources))
            self._names[target] = self._activated(
                "Gemm",
                [self.flat(sources[0]), weights, bias],
                f"t{target}",
                options.scalar(0, "b") if options else 0,
                transB=1,
            )
        elif code == _RESHAPE:
            shape = np.array([-1, *self.tensors[target].shape[1:]], np.int64)
            self._emit("Reshape", [self.flat(sources[0]), self.weight(shape)], f"t{target}")
            self._names[target] = f"t{target}"
        elif code == _SOFTMAX:
            self._emit("Softmax", [self.flat(sources[0])], f"t{target}", axis=-1)
            self._names[target] = f"t{target}"
        else:
            raise NotImplementedError(f"TFLite operator {code}")

    def plane(self, at: int) -> str:
        """The tensor as NCHW."""
        if at not in self._planes:
            self._emit("Transpose", [self._names[at]], f"c{at}", perm=[0, 3, 1, 2])
            self._planes[at] = f"c{at}"
        return self._planes[at]

    def flat(self, at: int) -> str:
        """The tensor with its axes as in TFLite."""
        if at not in self._names:
            self._emit("Transpose", [self._planes[at]], f"t{at}", perm=[0, 2, 3, 1])
            self._names[at] = f"t{at}"
        return self._names[at]

    def weight(self, values: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def _convolve(self, depthwise: bool, sources: list[int], target: int, options: Table) -> None:
        kernel = self.tensors[sources[1]].floats()
        kernel = kernel.transpose(3, 0, 1, 2) if depthwise else kernel.transpose(0, 3, 1, 2)
        strides = (options.scalar(2, "i"), options.scalar(1, "i"))
        same = options.scalar(0, "b") == 0
        self._planes[target] = self._activated(
            "Conv",
            [self.plane(sources[0]), self.weight(kernel), self.weight(self._bias(sources))],
            f"c{target}",
            options.scalar(4 if depthwise else 3, "b"),
            strides=strides,
            group=kernel.shape[0] if depthwise else 1,
            auto_pad="SAME_UPPER" if same else "VALID",
        )

    def _bias(self, sources: list[int]) -> np.ndarray:
        """Integer biases count in steps of input times weight."""
        bias, weights = self.tensors[sources[2]], self.tensors[sources[1]]
        assert bias.values is not None
        if bias.values.dtype != np.int32:
            return bias.floats()
        steps = self.tensors[sources[0]].scale[0].astype(np.float64) * weights.scale
        return np.asarray(bias.values * steps, np.float32)

    def _activated(self, kind: str, inputs: list[str], name: str, activation: int, **attributes: Any) -> str:
        wanted = _ACTIVATIONS[activation]
        self._emit(kind, inputs, f"{name}_raw" if wanted else name, **attributes)
        if wanted == "Relu":
            self._emit("Relu", [f"{name}_raw"], name)
        elif wanted == "Clip":
            low, high = self.weight(np.array(0, np.float32)), self.weight(np.array(6, np.float32))
            self._emit("Clip", [f"{name}_raw", low, high], name)
        return name

    def _emit(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{kind}_{output}", **attributes))
