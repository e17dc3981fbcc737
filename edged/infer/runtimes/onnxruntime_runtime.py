"""onnxruntime on one chosen device, strict: no fallback, no spinning, no telemetry, and a look at every node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from edged.errors import InferenceError, ModelError
from edged.infer.batch_check import BatchCheck
from edged.infer.runtime import Abilities, Device, DeviceHealth, LoadOptions, Probe
from edged.infer.runtimes.onnxruntime_devices import CPU, PLACES, Providers, place_of, plugin_library
from edged.infer.runtimes.onnxruntime_library import ORT_EXCEPTIONS, call_error, load_error
from edged.infer.runtimes.onnxruntime_placement import Assigned, count_by_provider, refuse_elsewhere
from edged.infer.runtimes.shared_objects import is_loaded
from edged.messages import ModelInfo, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edged.infer.loading import ModelFile

_FATAL_ONLY = 4  # severity: every error reaches us as an exception, none needs a second copy on stderr
_CALLS_AT_ONCE = 4  # a session takes any number; so many are tested
_REFUSED_TEXT = "fallback to cpu ep has been explicitly disabled"
_FAILURES: Any = (*ORT_EXCEPTIONS, RuntimeError, ValueError, MemoryError)

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}

# y = Relu(x), float32 (1, 4), as ONNX: the smallest proof that a device computes.
PROBE_MODEL = (
    b'\x08\x07:;\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01p'
    b"Z\x13\n\x01x\x12\x0e\n\x0c\x08\x01\x12\x08\n\x02\x08\x01\n\x02\x08\x04"
    b"b\x13\n\x01y\x12\x0e\n\x0c\x08\x01\x12\x08\n\x02\x08\x01\n\x02\x08\x04"
    b"B\x04\n\x00\x10\r"
)


class OrtModel:
    """A loaded ONNX model; `infer` may be called from several threads, as its runtime declares."""

    def __init__(self, session: Any, info: ModelInfo, run_options: Any) -> None:
        self._session = session
        self._info = info
        self._run_options = run_options
        self._check = BatchCheck(info)
        self._output_names = [spec.name for spec in info.outputs]

    @property
    def info(self) -> ModelInfo:
        return self._info

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        """One run of the session. `deadline_s` is its host's to keep: a run can be ended between two nodes only.

        Raises:
            InferenceError: `invalid_input`, `out_of_memory`, `device_lost`, `infer_failed`, `closed`.
        """
        session = self._session
        if session is None:
            raise InferenceError("closed", f"Cannot infer with {self._info.model}: the model is closed")
        self._check(batch)
        try:
            outputs = session.run(self._output_names, dict(batch), self._run_options)
        except _FAILURES as error:
            raise call_error(self._info.model, error) from error
        return dict(zip(self._output_names, outputs, strict=True))

    def close(self) -> None:
        """From another thread it also ends the call in progress, before its next node: that call is `closed`."""
        self._session = None
        self._run_options.terminate = True


class OnnxRuntime:
    """Implements `edged.infer.runtime.Runtime`. What is given stands for the library, packages and process."""

    name = "onnxruntime"

    def __init__(
        self,
        library: Any = ort,
        plugin: Callable[[str], str] = plugin_library,
        loaded: Callable[[str], bool] = is_loaded,
    ) -> None:
        self._library = library
        self._providers = Providers(library, plugin, loaded)

    def abilities(self, device: str) -> Abilities:
        """Even on the processor OpenVINO's provider needs a process: it brings a copy of the library `openvino`."""
        place = PLACES.get(device.partition(":")[0])
        if place is None or place.provider == CPU:
            return Abilities(("onnx",), concurrent=_CALLS_AT_ONCE)
        return Abilities(("onnx",), isolation="process", prepares=device.startswith("tensorrt"))

    def probe(self, device: str) -> Probe:
        """A plug-in provider lists what is there; of a built-in one only a small model on the device is a proof."""
        versions = {"onnxruntime": str(self._library.__version__)}
        try:
            place, _ = place_of(device)
            if not place.plugin:
                session = self._session(PROBE_MODEL, device, LoadOptions(), None)
                session.run(None, {"x": np.zeros((1, 4), np.float32)})
                found = Device(device, place.hardware.lower(), place.provider)
            else:
                hardware = self._providers.ep_device(device)
                versions[place.provider] = hardware.ep_metadata.get("version", "")
                found = Device(device, place.hardware.lower(), place.provider, hardware.device.vendor)
        except ModelError as error:
            return Probe(False, (), versions, error.code, str(error))
        except _FAILURES as error:
            refusal = load_error("a model of one operator", error, device)
            return Probe(False, (), versions, refusal.code, str(refusal))
        return Probe(True, (found,), versions)

    def prepare(self, model: ModelFile, device: str, options: LoadOptions) -> None:
        """Build what TensorRT needs, unless it is there; the provider builds it with the session that asks for it.

        Raises:
            ModelError: `prepare_failed`; those of `load`.
        """
        cache = self._cache(model, device, options)
        if cache is None or any(cache.glob("*.engine")):
            return
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelError("prepare_failed", f"Cannot make {cache}: {error.strerror}") from error
        self.load(model, device, options).close()

    def load(self, model: ModelFile, device: str, options: LoadOptions) -> OrtModel:
        """Make a session for `model` on `device`: a name of `PLACES`, for several of a kind with `:1`.

        Raises:
            ModelError: `unsupported`, `corrupt`, `incompatible`, `device_unavailable`, `runtime_unavailable`,
                `placement_rejected`, `engine_stale`, `out_of_memory`, `load_failed`; those of reading.
        """
        place, _ = place_of(device)
        if model.format != "onnx":
            raise ModelError("incompatible", f"onnxruntime reads onnx, {model.path.name} is {model.format}")
        data = model.read()
        cache = self._cache(model, device, options)
        try:
            session = self._session(data, device, options, cache)
        except _FAILURES as error:
            refusal = load_error(model.path, error, device)
            if refusal.code == "engine_stale" and cache is not None:
                _forget(cache)
            raise refusal from error
        try:
            nodes, ports = _assigned(session), [session.get_inputs(), session.get_outputs()]
            inputs, outputs = (tuple(_spec(model, node) for node in each) for each in ports)
        except UnicodeDecodeError as error:  # the library takes names as they are; the binding cannot
            raise ModelError("corrupt", f"{model.path} has a name that is no text: {error}") from error
        refuse_elsewhere(str(model.path), place.wanted, nodes)
        info = ModelInfo(
            model=model.model_id,
            version=model.version,
            sha256=model.sha256,
            runtime=f"onnxruntime:{device}",
            inputs=inputs,
            outputs=outputs,
            placement=count_by_provider(nodes),
        )
        return OrtModel(session, info, self._library.RunOptions())

    def health(self, device: str) -> DeviceHealth:
        """The processor is well as long as this runs; a device that is listed may be ill all the same.

        Asked in any process, so no provider is loaded for it: where none is, nothing is known.
        """
        if device == "cpu":
            return DeviceHealth("ok")
        try:
            place, _ = place_of(device)
            if self._providers.lists(place):
                self._providers.ep_device(device)
        except ModelError as error:
            return DeviceHealth("failed", (f"{error.code}: {error.message}",))
        return DeviceHealth()

    def _session(self, data: bytes, device: str, options: LoadOptions, cache: Path | None) -> Any:
        """A session that may use the processor for nothing; else, one whose nodes can be looked at and named.

        Raises:
            ModelError: `device_unavailable` when the provider did not start; what the library raises, as it is.
        """
        if device != "cpu":
            try:
                return self._make(data, device, options, cache, strict=True)
            except _FAILURES as error:
                if _REFUSED_TEXT not in str(error).lower():
                    raise
        session = self._make(data, device, options, cache, strict=False)
        provider = place_of(device)[0].provider
        if provider not in session.get_providers():
            raise ModelError(
                "device_unavailable",
                f"{provider} did not start, and onnxruntime would compute elsewhere{self._providers.missing(provider)}",
                hint="install the driver and the libraries that the provider needs",
            )
        return session

    def _make(self, data: bytes, device: str, options: LoadOptions, cache: Path | None, *, strict: bool) -> Any:
        chosen = self._library.SessionOptions()
        chosen.intra_op_num_threads = options.threads
        chosen.inter_op_num_threads = 1
        chosen.log_severity_level = _FATAL_ONLY
        # Idle sessions must not burn the processor that the broker and the store need.
        chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
        chosen.add_session_config_entry("session.inter_op.allow_spinning", "0")
        chosen.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if strict:
            chosen.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        more = self._providers.attach(device, chosen, options, cache)
        session = self._library.InferenceSession(data, chosen, **more)
        session.disable_fallback()  # a failing run would otherwise be repeated on the processor
        return session

    def _cache(self, model: ModelFile, device: str, options: LoadOptions) -> Path | None:
        """Where the engines of this model on this device and version lie; None when nothing is kept."""
        if options.cache is None or not self.abilities(device).prepares:
            return None
        name = f"{model.sha256[:32]}-{device.replace(':', '-')}-ort{self._library.__version__}"
        return options.cache / "onnxruntime-tensorrt" / name


def _assigned(session: Any) -> list[Assigned]:
    return [
        Assigned(part.ep_name, node.op_type, node.name)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]


def _forget(cache: Path) -> None:
    """Remove engines that do not fit, so that the next `prepare` makes them again."""
    for path in cache.glob("*"):
        path.unlink(missing_ok=True)


def _spec(model: ModelFile, node: Any) -> TensorSpec:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise ModelError(
            "incompatible", f"{model.path.name}: {node.name} is {node.type}; expected one of {sorted(_DTYPES)}"
        )
    return TensorSpec(node.name, dtype, tuple(axis if isinstance(axis, int) else -1 for axis in node.shape))


RUNTIME = OnnxRuntime()
load = RUNTIME.load
