"""OpenVINO on one chosen device, strict: no AUTO, no HETERO, no bfloat16, and a look at what really computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edged.errors import InferenceError, ModelError
from edged.infer.batch_check import BatchCheck
from edged.infer.runtime import Abilities, Device, DeviceHealth, Probe
from edged.infer.runtimes.openvino_library import FAILURES, VERSION, call_error, core, in_short, load_error, ov
from edged.infer.runtimes.openvino_reading import FRONTENDS, read, refuse_double, specs
from edged.infer.runtimes.openvino_shapes import Shapes
from edged.messages import ModelInfo

if TYPE_CHECKING:
    from edged.infer.affine import Affine
    from edged.infer.loading import ModelFile
    from edged.infer.runtime import LoadOptions

_KINDS = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}
_FORMATS = ("onnx", "tflite")

# The devices compute 64-bit integers with 32 bits and say nothing: 2**40 + 5 becomes 5.
_NARROWED = {np.dtype("int64"), np.dtype("uint64")}
_INT32 = np.iinfo(np.int32)


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
        """One call for the whole batch. `deadline_s` is its host's to keep: a call in progress cannot be cancelled.

        Raises:
            InferenceError: `invalid_input`, `out_of_memory`, `device_lost`, `infer_failed`, `closed`.
        """
        request = self._request
        if request is None:
            raise InferenceError("closed", f"Cannot infer with {self._info.model}: the model is closed")
        self._check(batch)
        inputs = [self._input(spec.name, batch[spec.name]) for spec in self._info.inputs]
        if refusal := self._shapes.refusal(tuple(array.shape for array in inputs)):
            raise InferenceError("invalid_input", f"{self._info.model}: {refusal}")
        try:
            for index, array in enumerate(inputs):
                request.set_input_tensor(index, ov.Tensor(array, shared_memory=True))
            request.infer()
            outputs = [request.get_output_tensor(index).data for index in range(len(self._info.outputs))]
            return {
                spec.name: self._output(spec.name, array)
                for spec, array in zip(self._info.outputs, outputs, strict=True)
            }
        except FAILURES as error:
            raise call_error(self._info.model, error) from error

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


class OpenvinoRuntime:
    """Implements `edged.infer.runtime.Runtime`. `get_core`: gives `openvino.Core`."""

    name = "openvino"

    def __init__(self, get_core: Callable[[], Any] = core) -> None:
        self._get_core = get_core

    def abilities(self, device: str) -> Abilities:
        if device.partition(":")[0] in ("gpu", "npu"):
            return Abilities(_FORMATS, isolation="process", prepares=True)
        return Abilities(_FORMATS)

    def probe(self, device: str) -> Probe:
        """Whether the library lists the device: it does so only when the driver answers."""
        versions = {"openvino": VERSION}
        try:
            chosen = choose_device(device, self._get_core().available_devices)
            name = str(self._get_core().get_property(chosen, "FULL_DEVICE_NAME"))
        except ModelError as error:
            return Probe(False, (), versions, error.code, str(error))
        except FAILURES as error:
            return Probe(False, (), versions, "device_unavailable", in_short(error))
        return Probe(True, (Device(chosen, chosen.partition(".")[0].lower(), name, "Intel"),), versions)

    def prepare(self, model: ModelFile, device: str, options: LoadOptions) -> None:
        """Compile for a GPU or NPU into the cache, which the library keys by model, device and version.

        Raises:
            ModelError: those of `load`.
        """
        if options.cache is not None and self.abilities(device).prepares:
            self.load(model, device, options).close()

    def load(self, model: ModelFile, device: str, options: LoadOptions) -> OpenvinoModel:
        """Compile `model` for `device`: `cpu`, `gpu`, `gpu:1`, `npu`.

        Raises:
            ModelError: `unsupported`, `corrupt`, `incompatible`, `device_unavailable`, `placement_rejected`,
                `out_of_memory`; those of reading.
        """
        chosen = choose_device(device, self._get_core().available_devices)
        if model.format not in FRONTENDS:
            raise ModelError(
                "incompatible", f"OpenVINO here reads onnx and tflite, {model.path.name} is {model.format}"
            )
        data = model.read()
        try:
            graph, inputs, outputs, affine = read(model, data)
            refuse_double(model, graph)
            shapes = Shapes(graph)
            compiled = self._get_core().compile_model(shapes.settle(), chosen, properties(chosen, options))
            placed = tuple(compiled.get_property("EXECUTION_DEVICES"))
            nodes = len(compiled.get_runtime_model().get_ops())
            request = compiled.create_infer_request()
        except OSError as error:
            raise ModelError("io", f"Cannot hand {model.path} to OpenVINO: {error}", retryable=True) from error
        except FAILURES as error:
            raise load_error(model, error) from error
        refuse_elsewhere(chosen, placed)
        info = ModelInfo(
            model=model.model_id,
            version=model.version,
            sha256=model.sha256,
            runtime=f"openvino:{device}",
            inputs=specs(model, inputs, compiled.inputs, affine),
            outputs=specs(model, outputs, compiled.outputs, affine),
            placement=((placed[0], nodes),),
        )
        return OpenvinoModel(request, info, affine, shapes)

    def health(self, device: str) -> DeviceHealth:
        """The processor is well as long as this runs; a device that is listed may be ill all the same."""
        probe = self.probe(device)
        if not probe.usable:
            return DeviceHealth("failed", (f"{probe.code}: {probe.reason}",))
        return DeviceHealth("ok" if device == "cpu" else "unknown")


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
            f"OpenVINO {VERSION} has no device {wanted!r} here, it found {', '.join(names) or 'none'}",
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


def properties(device: str, options: LoadOptions) -> dict[str, Any]:
    chosen: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    kind = device.partition(".")[0]
    if kind == "CPU":
        # Pinned threads would share one core with whatever else is pinned there.
        chosen |= {"INFERENCE_NUM_THREADS": options.threads, "ENABLE_CPU_PINNING": False}
    if kind in ("CPU", "GPU"):
        # The default is bfloat16 or float16 where the hardware has it: other answers on other gateways.
        chosen |= {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
    if options.cache is not None and kind != "CPU":
        chosen["CACHE_DIR"] = str(options.cache / "openvino")
    return chosen


RUNTIME = OpenvinoRuntime()
load = RUNTIME.load
