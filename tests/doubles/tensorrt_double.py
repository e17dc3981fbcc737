"""What edged uses of the Python module `tensorrt`, without NVIDIA: engines hold the ONNX model, onnxruntime computes.

An engine of another version or another GPU is refused as the real library does it: with a message and None. Names and
behaviour follow the documentation of 10.x and 11.x; that a real engine computes right is not shown by this.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from enum import Enum, IntEnum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from tests.doubles.waiting import until

ORT_EXCEPTIONS: tuple[type[Exception], ...] = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class Severity(Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        self.made = True

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class NetworkFlag10(IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class NetworkFlag11(IntEnum):
    PREFER_AOT_PYTHON_PLUGINS = 2


class BuilderFlag(Enum):
    TF32 = "tf32"


class MemoryPoolType(Enum):
    WORKSPACE = "workspace"


class DeviceType(Enum):
    GPU = "gpu"
    DLA = "dla"


class TensorIOMode(Enum):
    INPUT = "input"
    OUTPUT = "output"


class TensorLocation(Enum):
    DEVICE = "device"
    HOST = "host"


class ErrorCode(Enum):
    MODEL_DESERIALIZE_FAILED = 3
    UNSUPPORTED_NODE = 8


class _Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]


class _Fault(NamedTuple):
    """A complaint of the parser."""

    kind: ErrorCode
    text: str
    at: int = 0
    name: str = ""
    operator: str = ""

    def code(self) -> ErrorCode:
        return self.kind

    def desc(self) -> str:
        return self.text

    def node(self) -> int:
        return self.at

    def node_name(self) -> str:
        return self.name

    def node_operator(self) -> str:
        return self.operator


class _Network:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.onnx = b""
        self.inputs: list[_Tensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, index: int) -> _Tensor:
        return self.inputs[index]


class _Bytes:
    """What holds memory of the library."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def serialize(self) -> bytes:
        return self._data


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.shapes[name] = [tuple(shape) for shape in shapes]


class _Config:
    def __init__(self, world: TensorrtDouble) -> None:
        self._world = world
        self.default_device_type = DeviceType.GPU
        self.DLA_core = -1
        self.flags = {BuilderFlag.TF32}
        self.profiles: list[_Profile] = []
        self.limits: dict[MemoryPoolType, int] = {}
        self._timing = _Bytes(b"")

    def set_memory_pool_limit(self, pool: MemoryPoolType, size_bytes: int) -> None:
        self.limits[pool] = size_bytes

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.profiles.append(profile)
        return 0

    def create_timing_cache(self, data: bytes) -> _Bytes:
        return _Bytes(data)

    def set_timing_cache(self, cache: _Bytes, ignore_mismatch: bool) -> bool:
        fits = cache.serialize() in (b"", self._world.timing) and not ignore_mismatch
        if fits:
            self._world.calls.append(f"timing {len(cache.serialize())}")
            self._timing = cache
        return fits

    def get_timing_cache(self) -> _Bytes:
        return _Bytes(self._world.timing)


class _Builder:
    def __init__(self, world: TensorrtDouble, logger: ILogger) -> None:
        assert logger.made
        if world.builder_error:
            logger.log(Severity.ERROR, world.builder_error)
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._world = world
        self._logger = logger
        world.calls.append("Builder")

    def create_network(self, flags: int) -> _Network:
        return _Network(flags)

    def create_builder_config(self) -> _Config:
        self._world.config = _Config(self._world)
        return self._world.config

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes | None:
        self._world.calls.append("build")
        if (gate := self._world.gate) is not None:
            until(gate.exists, "the build may go on")
        if self._world.build_error:
            self._logger.log(Severity.ERROR, self._world.build_error)
            return None
        self._world.flags = network.flags
        shapes = config.profiles[0].shapes if config.profiles else {}
        header = {"version": self._world.__version__, "gpu": self._world.gpu, "shapes": shapes}
        return json.dumps(header).encode() + b"\n" + network.onnx


class _Parser:
    def __init__(self, world: TensorrtDouble, network: _Network, logger: ILogger) -> None:
        self._world = world
        self._network = network
        self._faults: list[_Fault] = []

    @property
    def num_errors(self) -> int:
        return len(self._faults)

    def get_error(self, index: int) -> _Fault:
        return self._faults[index]

    def parse(self, data: bytes) -> bool:
        if self._world.parser_is_mute:
            return False
        try:
            graph = onnx.load_model_from_string(data).graph
        except DecodeError as error:
            self._faults.append(_Fault(ErrorCode.MODEL_DESERIALIZE_FAILED, str(error)))
            return False
        for at, node in enumerate(graph.node):
            if node.domain or node.op_type in self._world.unsupported:
                text = f"No importer registered for op: {node.op_type}"
                self._faults.append(_Fault(ErrorCode.UNSUPPORTED_NODE, text, at, node.name, node.op_type))
        self._network.onnx = data
        for value in graph.input:
            shape = value.type.tensor_type.shape.dim
            self._network.inputs.append(_Tensor(value.name, tuple(axis.dim_value or -1 for axis in shape)))
        if not self._faults:
            try:
                ort.InferenceSession(data, providers=["CPUExecutionProvider"])
            except ORT_EXCEPTIONS as error:
                self._faults.append(_Fault(ErrorCode.UNSUPPORTED_NODE, str(error)))
        return not self._faults


class _Runtime:
    def __init__(self, world: TensorrtDouble, logger: ILogger) -> None:
        self._world = world
        self._logger = logger
        self.DLA_core = -1
        self.num_DLA_cores = world.dla_cores
        world.calls.append("Runtime")
        if world.runtime_error:
            logger.log(Severity.ERROR, world.runtime_error)

    def __del__(self) -> None:
        if self._world.runtime_error:
            self._world.calls.append("destroy")  # ends the process, as does whatever else is done with it

    def deserialize_cuda_engine(self, plan: bytes) -> _Engine | None:
        self._world.calls.append("deserialize")
        assert not self._world.runtime_error, "the real library ends the process here"
        if self._world.deserialize_error:
            self._logger.log(Severity.ERROR, self._world.deserialize_error)
            return None
        header, _, model = plan.partition(b"\n")
        told = json.loads(header)
        if (told["version"], told["gpu"]) != (self._world.__version__, self._world.gpu):
            self._logger.log(Severity.ERROR, "The engine plan file is not compatible with this version of TensorRT")
            return None
        return _Engine(self._world, self._logger, model, told["shapes"])


class _Engine:
    num_layers = 3

    def __init__(self, world: TensorrtDouble, logger: ILogger, model: bytes, shapes: dict[str, Any]) -> None:
        self.world = world
        self.logger = logger
        self.shapes = shapes
        self.session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.inputs, self.outputs = self.session.get_inputs(), self.session.get_outputs()
        self._nodes: dict[str, Any] = {node.name: node for node in (*self.inputs, *self.outputs)}

    @property
    def num_io_tensors(self) -> int:
        return len(self._nodes)

    def get_tensor_name(self, index: int) -> str:
        return list(self._nodes)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if any(node.name == name for node in self.inputs) else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        kind: str = self._nodes[name].type
        return kind

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(axis if isinstance(axis, int) else -1 for axis in self._nodes[name].shape)

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.HOST if name in self.world.on_host else TensorLocation.DEVICE

    def create_execution_context(self) -> _Execution | None:
        if self.world.context_error:
            self.logger.log(Severity.ERROR, self.world.context_error)
            return None
        return _Execution(self)


class _Execution:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name not in self._engine.world.refuses_address

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        least, _, most = self._engine.shapes.get(name, [shape] * 3)
        fits = all(low <= axis <= high for low, axis, high in zip(least, shape, most, strict=True))
        self._shapes[name] = tuple(shape)
        return fits and not self._engine.world.refuses_shape

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """What follows from the shapes of the inputs; -1 where only the data decide."""
        symbols: dict[object, int] = {}
        for node in self._engine.inputs:
            symbols |= dict(zip(node.shape, self._shapes[node.name], strict=True))
        output = next(node for node in self._engine.outputs if node.name == name)
        return tuple(axis if isinstance(axis, int) else symbols.get(axis, -1) for axis in output.shape)

    def execute_async_v3(self, stream_handle: int) -> bool:
        world = self._engine.world
        world.calls.append(f"execute {next(iter(self._shapes.values()))[0]}")
        assert stream_handle
        if world.execute_error:
            self._engine.logger.log(Severity.ERROR, world.execute_error)
        if world.execute_fails:
            return False
        feeds = {node.name: self._fetch(node.name, _DTYPES[node.type]) for node in self._engine.inputs}
        for node, array in zip(self._engine.outputs, self._engine.session.run(None, feeds), strict=True):
            data = np.ascontiguousarray(array * world.factor if array.dtype.kind == "f" else array, array.dtype)
            ctypes.memmove(self._addresses[node.name], data.ctypes.data, data.nbytes)
        return True

    def _fetch(self, name: str, dtype: str) -> np.ndarray:
        array = np.empty(self._shapes[name], dtype)
        ctypes.memmove(array.ctypes.data, self._addresses[name], array.nbytes)
        return array


_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(uint8)": "uint8"}


class TensorrtDouble:
    """One module. calls: what was asked, in order. The other attributes are what goes wrong, and may be set."""

    ILogger = ILogger
    BuilderFlag = BuilderFlag
    MemoryPoolType = MemoryPoolType
    DeviceType = DeviceType
    TensorIOMode = TensorIOMode
    TensorLocation = TensorLocation

    def __init__(self, version: str = "10.3.0.26", gpu: str = "Test GPU 0") -> None:
        self.__version__ = version
        self.gpu = gpu
        self.timing = f"timing of {version}".encode()
        self.calls: list[str] = []
        self.config: _Config | None = None
        self.flags = -1
        self.unsupported: set[str] = set()
        self.on_host: set[str] = set()
        self.refuses_address: set[str] = set()
        self.dla_cores = 0
        self.gate: Path | None = None
        self.factor = 1
        self.parser_is_mute = self.refuses_shape = self.execute_fails = False
        self.builder_error = self.deserialize_error = self.build_error = self.runtime_error = self.context_error = (
            self.execute_error
        ) = ""
        self.NetworkDefinitionCreationFlag = NetworkFlag10 if version.startswith("10.") else NetworkFlag11
        self.Builder = partial(_Builder, self)
        self.OnnxParser = partial(_Parser, self)
        self.Runtime = partial(_Runtime, self)

    @staticmethod
    def nptype(kind: str) -> Any:
        try:
            return np.dtype(_DTYPES[kind]).type
        except KeyError:
            raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.") from None
