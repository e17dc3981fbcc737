"""TensorRT 10 and 11 on NVIDIA GPUs and DLAs, without another runtime between: engines are built here and kept.

Without a working driver the library makes an object and then ends the process: the driver is asked first. Not verified
on hardware.
"""

from __future__ import annotations

import ctypes
import platform
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from edged.errors import ModelError
from edged.infer.engine_cache import EngineCache
from edged.infer.runtime import Abilities, Device, DeviceHealth, LoadOptions, Probe
from edged.infer.runtimes.cuda_driver import CudaContext, CudaDriver, CudaError, Gpu
from edged.infer.runtimes.tensorrt_build import FLAGS, PROFILE, Errors, build, make_logger
from edged.infer.runtimes.tensorrt_model import Loaded, TensorrtModel, bind, check_shapes, code_of, describe

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile

_DEVICE = re.compile(r"(gpu|dla)(?::(\d{1,3}))?")
_MAJORS = ("10", "11")  # older ones are weakly typed, newer ones are not known


class _Ready(NamedTuple):
    """A device that may be used, and what for."""

    trt: Any
    driver: CudaDriver
    gpu: Gpu
    dla: int | None


def import_tensorrt() -> Any:
    """The library. Raises ImportError, OSError."""
    import tensorrt

    return tensorrt


class Tensorrt:
    """The runtime `tensorrt`. Devices: `gpu`, `gpu:1`; `dla`, `dla:1` (of the first GPU, without its help).

    find_library, find_driver: where TensorRT and the driver come from; tests give doubles.
    """

    name = "tensorrt"

    def __init__(
        self, find_library: Callable[[], Any] = import_tensorrt, find_driver: Callable[[], CudaDriver] = CudaDriver
    ) -> None:
        self._find_library = find_library
        self._find_driver = find_driver
        self._errors = Errors()
        self._logger: Any = None  # made once: the library knows one per process, and uses it to its end

    def abilities(self, device: str) -> Abilities:
        return Abilities(("onnx",), isolation="process", prepares=True)

    def probe(self, device: str) -> Probe:
        """Asks the driver, and only then TensorRT."""
        versions: dict[str, str] = {}
        try:
            ready = self._ready(device, versions)
            self._make_runtime(ready)
        except ModelError as error:
            return Probe(False, (), versions, error.code, str(error))
        kind = "gpu" if ready.dla is None else "dla"
        number = ready.gpu.number if ready.dla is None else ready.dla
        found = Device(f"{kind}:{number}", kind, ready.gpu.name, "NVIDIA", ready.driver.version)
        return Probe(True, (found,), versions)

    def prepare(self, model: ModelFile, device: str, options: LoadOptions) -> None:
        """Build the engine for this device, driver and version, unless there is one. Takes minutes.

        Raises:
            ModelError: `prepare_failed`, `unsupported`, `corrupt`, `incompatible`, `placement_rejected`,
                `runtime_unavailable`, `device_unavailable`; those of reading.
        """
        cache, data = _cache(options), _read(model)
        ready = self._ready(device)
        parts = _parts(ready, model.sha256)
        if cache.holds(parts):
            return
        timing_parts = {**parts, "onnx": "any"}
        context = self._open(ready)  # now current: what the library makes is made for this device
        try:
            self._make_runtime(ready)  # whether library, driver and device get on with one another
            logger = self._logger_for(ready.trt)
            timing = cache.read_timing(timing_parts)
            built = build(ready.trt, logger, self._errors, data, model.path, dla=ready.dla, timing=timing)
        finally:
            context.close()
        cache.write(parts, built.plan)
        cache.write_timing(timing_parts, built.timing)

    def load(self, model: ModelFile, device: str, options: LoadOptions) -> TensorrtModel:
        """Put the engine that was prepared on the device.

        Raises:
            ModelError: `engine_stale`: there is none for this model, device, driver and version, or it does not load;
                `incompatible`, `runtime_unavailable`, `device_unavailable`, `out_of_memory`, `load_failed`.
        """
        cache, _ = _cache(options), _read(model)
        ready = self._ready(device)
        parts = _parts(ready, model.sha256)
        plan = cache.read(parts)
        context = self._open(ready)
        try:
            return self._start(ready, context, plan, model, f"{self.name}:{device}")
        except CudaError as error:
            context.close()
            raise _load_error(str(error), model) from error
        except ModelError as error:
            context.close()
            if error.code == "engine_stale":
                cache.remove(parts)
            raise

    def health(self, device: str) -> DeviceHealth:
        """Does the driver still show it? How warm and how busy it is says the device health of the daemon."""
        try:
            self._ready(device)
        except ModelError as error:
            return DeviceHealth("failed" if error.code == "device_unavailable" else "unknown", (str(error),))
        return DeviceHealth("ok")

    def _ready(self, device: str, versions: dict[str, str] | None = None) -> _Ready:
        """The device and the library. `versions` is filled in as far as it gets. Raises ModelError."""
        versions = {} if versions is None else versions
        match = _DEVICE.fullmatch(device)
        if match is None:
            raise ModelError(
                "device_unavailable", f"TensorRT here runs on gpu, gpu:N, dla and dla:N, not on {device!r}"
            )
        kind, number = match[1], int(match[2] or 0)
        try:
            driver = self._find_driver()
            gpus = driver.gpus()
        except OSError as error:
            what = f"No driver of NVIDIA here: {error}"
            raise ModelError("device_unavailable", what, hint="install the driver of the GPU") from error
        except CudaError as error:
            what = f"The driver of NVIDIA shows no device: {error}"
            raise ModelError("device_unavailable", what, hint="see dmesg and nvidia-smi", retryable=True) from error
        versions["driver"] = driver.version
        at = number if kind == "gpu" else 0
        if at >= len(gpus):
            names = ", ".join(gpu.name for gpu in gpus) or "none"
            raise ModelError("device_unavailable", f"There is no {device!r}; the driver shows: {names}")
        trt = self._library()
        versions["tensorrt"] = trt.__version__
        if trt.__version__.partition(".")[0] not in _MAJORS:
            raise ModelError(
                "runtime_unavailable", f"TensorRT {trt.__version__} is installed, 10 and 11 are known", hint=_INSTALL
            )
        return _Ready(trt, driver, gpus[at], number if kind == "dla" else None)

    def _library(self) -> Any:
        try:
            return self._find_library()
        except (ImportError, OSError) as error:
            raise ModelError("runtime_unavailable", f"Cannot use TensorRT: {error}", hint=_INSTALL) from error

    def _logger_for(self, trt: Any) -> Any:
        if self._logger is None:
            self._logger = make_logger(trt, self._errors)
        return self._logger

    def _make_runtime(self, ready: _Ready) -> Any:
        """Raises ModelError when TensorRT complains: what it makes all the same must not be touched."""
        logger = self._logger_for(ready.trt)
        self._errors.take()
        runtime = ready.trt.Runtime(logger)
        if said := self._errors.take():
            _never_destroy(runtime)
            raise ModelError(
                "device_unavailable",
                f"TensorRT {ready.trt.__version__} does not get on with the driver {ready.driver.version}: {said}",
                hint="install a driver that this TensorRT knows",
            )
        if ready.dla is not None:
            if ready.dla >= runtime.num_DLA_cores:
                raise ModelError("device_unavailable", f"There is no DLA {ready.dla} of {runtime.num_DLA_cores}")
            runtime.DLA_core = ready.dla
        return runtime

    def _open(self, ready: _Ready) -> CudaContext:
        try:
            return ready.driver.open(ready.gpu.number)
        except CudaError as error:
            raise ModelError(
                "device_unavailable", f"{ready.gpu.name} does not open: {error}", retryable=True
            ) from error

    def _start(self, ready: _Ready, context: CudaContext, plan: bytes, model: ModelFile, rung: str) -> TensorrtModel:
        """Raises CudaError, ModelError."""
        runtime = self._make_runtime(ready)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            said = self._errors.take()
            if code_of(said) != "infer_failed":  # no memory, or no device: nothing is wrong with the engine
                raise _load_error(said, model)
            what = f"TensorRT refuses the engine of {model.path.name}: {said or 'it does not say why'}"
            raise ModelError("engine_stale", what, hint="prepare builds it again")
        info = describe(ready.trt, engine, model, rung)
        execution = engine.create_execution_context()
        if execution is None:
            raise _load_error(self._errors.take(), model)
        check_shapes(execution, info)
        inputs, outputs = bind(execution, context, info.inputs), bind(execution, context, info.outputs)
        return TensorrtModel(Loaded(runtime, engine, execution, inputs, outputs), context, self._errors, info)


def _never_destroy(made: Any) -> None:
    """An object that the library has made without a working driver ends the process when it is used or destroyed."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))


_INSTALL = "pip install 'edged[tensorrt]' (its libraries come from NVIDIA's index), on a Jetson the package of JetPack"


def _read(model: ModelFile) -> bytes:
    """The bytes that were checked; an engine whose model is no longer there does not load, either."""
    if model.format != "onnx":
        raise ModelError("incompatible", f"TensorRT reads onnx, {model.path.name} is {model.format}")
    return model.read()


def _cache(options: LoadOptions) -> EngineCache:
    if options.cache is None:
        raise ModelError("prepare_failed", "There is no folder for engines, and an engine is not built at every start")
    return EngineCache(options.cache / "tensorrt")


def _parts(ready: _Ready, sha256: str) -> dict[str, str]:
    """Everything that an engine depends on."""
    return {
        "onnx": sha256,
        "precision": "as the model declares",
        "profile": PROFILE,
        "flags": FLAGS,
        "tensorrt": ready.trt.__version__,
        "gpu": ready.gpu.name,
        "sm": ready.gpu.sm,
        "driver": ready.driver.version,
        "device": "gpu" if ready.dla is None else f"dla:{ready.dla}",
        "system": f"{platform.system()}/{platform.machine()}",
    }


def _load_error(said: str, model: ModelFile) -> ModelError:
    code = code_of(said)
    if code == "out_of_memory":
        return ModelError(code, f"Cannot load {model.path}: not enough memory on the device", retryable=True)
    if code == "device_lost":
        return ModelError("device_unavailable", f"Lost the device while loading {model.path.name}: {said}")
    return ModelError("load_failed", f"TensorRT cannot start {model.path.name}: {said or 'it does not say why'}")


RUNTIME = Tensorrt()
