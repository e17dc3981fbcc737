"""OpenVINO on one chosen device, strict: no AUTO, no HETERO, no bfloat16, and a look at what really computes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
from openvino import frontend as ov_frontend

from edged.errors import InferenceError, ModelError
from edged.infer.batch_check import BatchCheck
from edged.infer.runtimes.openvino_shapes import Shapes, in_short
from edged.infer.tflite_file import read_declared
from edged.messages import ModelInfo, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edged.infer.affine import Affine
    from edged.infer.loading import ModelFile
    from edged.infer.runtime import LoadOptions

_VERSION = ov.__version__.partition("-")[0]
_KINDS = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}
_FRONTENDS = {"onnx": "onnx", "tflite": "tflite", "tflite-edgetpu": "tflite"}

_DTYPES = {
    "f32": "float32",
    "f16": "float16",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "boolean": "bool",
}
# The devices compute 64-bit integers with 32 bits and say nothing: 2**40 + 5 becomes 5.
_NARROWED = {np.dtype("int64"), np.dtype("uint64")}
_INT32 = np.iinfo(np.int32)

# Every exception class of the frontends (they share no parent); a test compares this list with the installed library.
FRONTEND_EXCEPTIONS: Any = (
    ov_frontend.GeneralFailure,
    ov_frontend.InitializationFailure,
    ov_frontend.NotImplementedFailure,
    ov_frontend.OpConversionFailure,
    ov_frontend.OpValidationFailure,
)
# What the binding makes of the exceptions of C++.
_FAILURES: Any = (*FRONTEND_EXCEPTIONS, RuntimeError, ValueError, IndexError, OverflowError, TypeError)

_CORRUPT_TEXTS = ("error during import of onnx model", "nullptr for inputmodel", "flatbuffer verification failed")
_OUT_OF_MEMORY_TEXTS = ("bad_alloc", "bad allocation", "failed to allocate", "out of memory", "cannot allocate memory")


class OpenvinoModel:
    """A compiled model with one request; `infer` may be called from one thread at a time."""

    def __init__(self, request: Any, info: ModelInfo, affine: Mapping[str, Affine], shapes: Shapes) -> None:
        self._request = request
        self._info = info
        self._affine = affine
        self._shapes = shapes
        self._check = BatchCheck(info)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        """One call for the whole batch. `deadline_s` is not enforced: a kernel in progress cannot be cancelled.

        Raises:
            InferenceError: `invalid_input`, `out_of_memory`, `infer_failed`, `closed`.
        """
        if self._request is None:
            raise InferenceError("closed", f"Cannot infer with {self._info.model}: the model is closed")
        self._check(batch)
        inputs = [self._input(spec.name, batch[spec.name]) for spec in self._info.inputs]
        if refusal := self._shapes.refusal(tuple(array.shape for array in inputs)):
            raise InferenceError("invalid_input", f"{self._info.model}: {refusal}")
        try:
            for index, array in enumerate(inputs):
                self._request.set_input_tensor(index, ov.Tensor(array, shared_memory=True))
            self._request.infer()
            outputs = [self._request.get_output_tensor(index).data for index in range(len(self._info.outputs))]
            return {
                spec.name: self._output(spec.name, array)
                for spec, array in zip(self._info.outputs, outputs, strict=True)
            }
        except MemoryError as error:
            raise InferenceError("out_of_memory", f"Out of memory in {self._info.model}", retryable=True) from error
        except _FAILURES as error:
            raise self._failed(error) from error

    def close(self) -> None:
        self._request = None

    def _input(self, name: str, array: np.ndarray) -> np.ndarray:
        """The array as the device reads it: the model's integers, in one piece, in memory that may be shared."""
        affine = self._affine.get(name)
        if affine is not None:
            try:
                return np.ascontiguousarray(affine.quantise(array))
            except ValueError as error:
                raise InferenceError("invalid_input", f"{self._info.model}: input {name}: {error}") from error
        if array.dtype in _NARROWED and array.size and (array.max() > _INT32.max or array.min() < _INT32.min):
            raise InferenceError(
                "invalid_input",
                f"{self._info.model}: input {name} holds a number beyond 32 bits, which would be cut off silently",
            )
        return np.require(array, requirements=("C", "W"))

    def _output(self, name: str, array: np.ndarray) -> np.ndarray:
        """A copy: the request writes its next answer into the same memory."""
        affine = self._affine.get(name)
        return array.copy() if affine is None else affine.dequantise(array)

    def _failed(self, error: Exception) -> InferenceError:
        text = in_short(error)
        if _is_out_of_memory(error):
            return InferenceError("out_of_memory", f"Out of memory in {self._info.model}", retryable=True)
        return InferenceError("infer_failed", f"{self._info.model} failed: {text}")


def load(model: ModelFile, device: str, options: LoadOptions) -> OpenvinoModel:
    """Compile `model` for `device`: `cpu`, `gpu`, `gpu:1`, `npu`.

    Raises:
        ModelError: `unsupported`, `corrupt`, `incompatible`, `device_unavailable`, `placement_rejected`,
            `out_of_memory`; those of reading.
    """
    core = _core()
    chosen = choose_device(device, core.available_devices)
    if model.format not in _FRONTENDS:
        raise ModelError("incompatible", f"OpenVINO here reads onnx and tflite, {model.path.name} is {model.format}")
    data = model.read()
    try:
        graph, inputs, outputs, affine = _read(model, data)
        _refuse_double(model, graph)
        shapes = Shapes(graph)
        compiled = core.compile_model(shapes.settle(), chosen, _properties(chosen, options))
        placed = tuple(compiled.get_property("EXECUTION_DEVICES"))
        request = compiled.create_infer_request()
    except MemoryError as error:
        raise ModelError("out_of_memory", f"Cannot load {model.path}: not enough memory", retryable=True) from error
    except OSError as error:
        raise ModelError("io", f"Cannot hand {model.path} to OpenVINO: {error}", retryable=True) from error
    except _FAILURES as error:
        raise _load_error(model, error) from error
    refuse_elsewhere(chosen, placed)
    info = ModelInfo(
        model=model.model_id,
        version=model.version,
        sha256=model.sha256,
        runtime=f"openvino:{device}",
        inputs=_specs(model, inputs, compiled.inputs, affine),
        outputs=_specs(model, outputs, compiled.outputs, affine),
    )
    return OpenvinoModel(request, info, affine, shapes)


def choose_device(wanted: str, available: Iterable[str]) -> str:
    """OpenVINO's name of `cpu`, `gpu`, `npu` or `gpu:1`, if this machine has it; `gpu` is the first of several.

    Raises:
        ModelError: `device_unavailable`.
    """
    kind, _, index = wanted.partition(":")
    names = sorted(available)
    found = [name for name in names if name.partition(".")[0] == _KINDS.get(kind)]
    if index:
        found = [name for name in found if (name.partition(".")[2] or "0") == index]
    if not found:
        raise ModelError(
            "device_unavailable",
            f"OpenVINO {_VERSION} has no device {wanted!r} here, it found {', '.join(names) or 'none'}",
            hint="install the driver of the GPU or NPU; the service user needs access to /dev/dri or /dev/accel",
        )
    return found[0]


def refuse_elsewhere(chosen: str, placed: Sequence[str]) -> None:
    """Raise ModelError (`placement_rejected`) unless every device that really computes is the chosen one."""
    kind, _, index = chosen.partition(".")
    for device in placed or ("none",):
        found, _, number = device.partition(".")
        if found != kind or (index and number and index != number):
            raise ModelError(
                "placement_rejected",
                f"OpenVINO was told to compute on {chosen} and computes on {', '.join(placed) or 'no device'}",
                hint="a silent fallback is refused: the next rung of the chain says openly where it computes",
            )


@lru_cache(maxsize=1)
def _core() -> Any:
    """One per process: each holds its plug-ins for as long as it lives."""
    return ov.Core()


def _properties(device: str, options: LoadOptions) -> dict[str, Any]:
    chosen: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    kind = device.partition(".")[0]
    if kind == "CPU":
        # Pinned threads would share one core with whatever else is pinned there.
        chosen |= {"INFERENCE_NUM_THREADS": options.threads, "ENABLE_CPU_PINNING": False}
    if kind in ("CPU", "GPU"):
        # The default is bfloat16 or float16 where the hardware has it: other answers on other gateways.
        chosen |= {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
    return chosen


def _read(model: ModelFile, data: bytes) -> tuple[Any, list[str], list[str], dict[str, Affine]]:
    """(graph, names of inputs, names of outputs, how quantised ones store reals).

    The frontend is named: left to itself the library tries seven, and TensorFlow's takes what is broken ONNX.
    """
    frontend = ov_frontend.FrontEndManager().load_by_framework(_FRONTENDS[model.format])
    if model.format == "onnx":
        source = frontend.load(io.BytesIO(data))
        inputs = [place.get_names()[0] for place in source.get_inputs()]
        outputs = [place.get_names()[0] for place in source.get_outputs()]
        if not outputs:
            raise ModelError("corrupt", f"{model.path} holds no graph with an output", hint="copy the model again")
        return frontend.convert(source), inputs, outputs, {}
    declared = read_declared(model.path, data)
    with _as_file(data, ".tflite") as path:
        graph = frontend.convert(frontend.load(str(path)))
    affine = {each.name: each.affine for each in (*declared.inputs, *declared.outputs) if each.affine is not None}
    return graph, [each.name for each in declared.inputs], [each.name for each in declared.outputs], affine


@contextmanager
def _as_file(data: bytes, suffix: str) -> Iterator[Path]:
    """A path to these very bytes, in memory: this frontend takes paths only, and the file may have been swapped."""
    descriptor = os.memfd_create("model", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(data)
        with TemporaryDirectory(prefix="edged-model-") as folder:
            path = Path(folder, f"model{suffix}")
            path.symlink_to(f"/proc/self/fd/{descriptor}")
            yield path
    finally:
        os.close(descriptor)


def _refuse_double(model: ModelFile, graph: Any) -> None:
    """Doubles would be computed as float32: 2.4e198 becomes 3.4e38, silently."""
    for node in graph.get_ops():
        if any(output.get_element_type().get_type_name() == "f64" for output in node.outputs()):
            raise ModelError(
                "unsupported",
                f"OpenVINO computes float64 as float32, and {model.path} needs float64 at {node.get_friendly_name()}",
                hint="export the model in float32, or run it with onnxruntime:cpu",
            )


def _specs(
    model: ModelFile, names: Sequence[str], ports: Sequence[Any], affine: Mapping[str, Affine]
) -> tuple[TensorSpec, ...]:
    if [name for name, port in zip(names, ports, strict=False) if name in port.get_names()] != list(names):
        raise ModelError(
            "incompatible",
            f"{model.path.name} declares {list(names)}, left of it are {[sorted(port.get_names()) for port in ports]}",
            hint="remove inputs that nothing reads",
        )
    return tuple(_spec(model, name, port, name in affine) for name, port in zip(names, ports, strict=True))


def _spec(model: ModelFile, name: str, port: Any, quantised: bool) -> TensorSpec:
    kind = port.get_element_type().get_type_name()
    dtype = "float32" if quantised else _DTYPES.get(kind)
    shape = port.get_partial_shape()
    if dtype is None or shape.rank.is_dynamic:
        raise ModelError(
            "incompatible",
            f"{model.path.name}: {name} is {kind} {shape}; expected one of {sorted(_DTYPES.values())} with known axes",
        )
    return TensorSpec(name, dtype, tuple(-1 if axis.is_dynamic else axis.get_length() for axis in shape))


def _load_error(model: ModelFile, error: Exception) -> ModelError:
    text = in_short(error)
    if _is_out_of_memory(error):
        return ModelError("out_of_memory", f"Cannot load {model.path}: not enough memory", retryable=True)
    if any(known in str(error).lower() for known in _CORRUPT_TEXTS):
        return ModelError("corrupt", f"OpenVINO cannot read {model.path}: {text}", hint="copy the model again")
    return ModelError(
        "unsupported",
        f"OpenVINO {_VERSION} cannot run {model.path}: {text}",
        hint="export the model again with standard operators",
    )


def _is_out_of_memory(error: Exception) -> bool:
    return any(known in str(error).lower() for known in _OUT_OF_MEMORY_TEXTS)
