"""The devices that onnxruntime drives, as a table, and how a session is told to use exactly one of them."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edged.errors import ModelError
from edged.infer.runtimes.onnxruntime_library import ORT_EXCEPTIONS, first_line
from edged.infer.runtimes.shared_objects import is_loaded

if TYPE_CHECKING:
    from edged.infer.runtime import LoadOptions

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
QNN = "QNNExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

_REGISTERED_TEXT = "already registered"
_BUILT_IN_FILES = {CUDA: "libonnxruntime_providers_cuda.so", TENSORRT: "libonnxruntime_providers_tensorrt.so"}


class Place(NamedTuple):
    """One device name of a chain.

    provider: what computes there. hardware: its type, as the library lists devices. extra: what installs it.
    plugin: Python package that holds the provider; empty: it is built into the wheel. helpers: providers of the same
    hardware that may take what the first one does not know.
    """

    provider: str
    hardware: str
    extra: str
    plugin: str = ""
    helpers: tuple[str, ...] = ()

    @property
    def wanted(self) -> tuple[str, ...]:
        return (self.provider, *self.helpers)


PLACES: Mapping[str, Place] = {
    "cpu": Place(CPU, "CPU", "cpu"),
    "gpu": Place(CUDA, "GPU", "cuda"),
    "tensorrt": Place(TENSORRT, "GPU", "cuda", helpers=(CUDA,)),
    "npu": Place(QNN, "NPU", "qnn", "onnxruntime_qnn"),
    "openvino-cpu": Place(OPENVINO, "CPU", "ort-openvino", "onnxruntime_ep_openvino"),
    "openvino-gpu": Place(OPENVINO, "GPU", "ort-openvino", "onnxruntime_ep_openvino"),
    "openvino-npu": Place(OPENVINO, "NPU", "ort-openvino", "onnxruntime_ep_openvino"),
}


def place_of(device: str) -> tuple[Place, int]:
    """(row of the table, number of the device) of `gpu` or `gpu:1`. Raises ModelError (`device_unavailable`)."""
    kind, colon, number = device.partition(":")
    place = PLACES.get(kind)
    if place is None or (colon and (place.hardware == "CPU" or not number.isdecimal())):
        raise ModelError(
            "device_unavailable", f"onnxruntime has no device {device!r}; expected one of {', '.join(PLACES)}"
        )
    return place, int(number or 0)


def plugin_library(package: str) -> str:
    """The path of a provider that a package of its own installs. Raises ImportError."""
    found: str = import_module(package).get_library_path()
    return found


class Providers:
    """What the installed library offers.

    library: onnxruntime. plugin: package name -> path of its library. loaded: is a library with this in its path here?
    """

    def __init__(
        self, library: Any, plugin: Callable[[str], str] = plugin_library, loaded: Callable[[str], bool] = is_loaded
    ) -> None:
        self._library = library
        self._plugin = plugin
        self._is_loaded = loaded
        self._registered: set[str] = set()

    def attach(self, device: str, session_options: Any, options: LoadOptions, cache: Path | None) -> dict[str, Any]:
        """Tell a session to compute on `device` and nowhere else; gives what its constructor needs besides.

        Raises:
            ModelError: `device_unavailable`, `runtime_unavailable`.
        """
        place, number = place_of(device)
        if place.plugin:
            found = self.ep_device(device)
            session_options.add_provider_for_devices([found], _plugin_options(place, options))
            return {}
        self._require_built_in(place, device)
        return {
            "providers": [(provider, _built_in_options(provider, number, cache)) for provider in place.wanted],
            "enable_fallback": 0,
        }

    def ep_device(self, device: str) -> Any:
        """The device of a plug-in provider, as the library lists it. Raises ModelError as `attach` does."""
        place, number = place_of(device)
        self._register(place, device)
        listed = [each for each in self._library.get_ep_devices() if each.ep_name == place.provider]
        found = [each for each in listed if _type_of(each) == place.hardware and _is_real(each)]
        if number >= len(found):
            intel = ", and OpenVINO's provider drives hardware of Intel only" if place.provider == OPENVINO else ""
            kinds = ", ".join(sorted({_type_of(each) for each in listed if _is_real(each)})) or "none"
            raise ModelError(
                "device_unavailable",
                f"{place.provider} offers no {place.hardware} number {number} on this machine; it offers {kinds}",
                hint=f"install the driver of the device; the service user needs access to it{intel}",
            )
        return found[number]

    def lists(self, place: Place) -> bool:
        """Whether the provider's library is in this process: asking for its devices would load it."""
        return place.plugin in self._registered

    def missing(self, provider: str) -> str:
        """Which library a built-in provider lacks, as ": reason"; empty where that is not the cause."""
        path = Path(self._library.__file__).parent / "capi" / _BUILT_IN_FILES.get(provider, "")
        try:
            if path.is_file():
                ctypes.CDLL(os.fspath(path))
        except OSError as error:
            return f": {error}" if "cannot open shared object" in str(error) else ""
        return ""

    def _require_built_in(self, place: Place, device: str) -> None:
        """What is listed here was compiled in; whether it works only a session can tell."""
        available = self._library.get_available_providers()
        if place.provider not in available:
            raise ModelError(
                "runtime_unavailable",
                f"Cannot use onnxruntime:{device}: this onnxruntime has {', '.join(available)}, not {place.provider}",
                hint=f"pip install 'edged[{place.extra}]' in an environment without other onnxruntime wheels",
            )
        if place.hardware == "GPU" and CUDA not in self._registered:
            self._registered.add(CUDA)
            with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; the session will fail
                self._library.preload_dlls()

    def _register(self, place: Place, device: str) -> None:
        """Load the provider's library, once per process: a second time is an error."""
        if place.plugin in self._registered:
            return
        hint = f"pip install 'edged[{place.extra}]'"
        if place.provider == OPENVINO and self._is_loaded("/openvino/libs/"):
            raise ModelError(
                "runtime_unavailable",
                f"Cannot use onnxruntime:{device}: this process has loaded the package openvino already",
                hint="chains host the two in processes of their own; in a program, start another process",
            )
        try:
            path = self._plugin(place.plugin)
        except (ImportError, AttributeError, OSError) as error:
            raise ModelError("runtime_unavailable", f"Cannot use onnxruntime:{device}: {error}", hint=hint) from error
        try:
            self._library.register_execution_provider_library(place.plugin, os.fspath(path))
        except (*ORT_EXCEPTIONS, RuntimeError) as error:
            if _REGISTERED_TEXT not in str(error):  # by another object of this process: it stays for good
                raise ModelError(
                    "runtime_unavailable", f"Cannot load {place.provider}: {first_line(str(error))}", hint=hint
                ) from error
        self._registered.add(place.plugin)


def _type_of(ep_device: Any) -> str:
    name: str = ep_device.device.type.name
    return name


def _is_real(ep_device: Any) -> bool:
    """Some providers list hardware that is not there, to compile for it."""
    return ep_device.device.metadata.get("is_virtual", "0") in ("", "0")


def _built_in_options(provider: str, number: int, cache: Path | None) -> dict[str, str]:
    if provider == CPU:
        return {}
    chosen = {"device_id": str(number)}
    if provider == CUDA:
        chosen["use_tf32"] = "0"  # float32 with ten bits of mantissa: other answers than everywhere else
        chosen["cudnn_conv_algo_search"] = "HEURISTIC"  # the default tries all, anew for each number of waiting inputs
    elif cache is not None:
        chosen |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(cache),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(cache),
        }
    return chosen


def _plugin_options(place: Place, options: LoadOptions) -> dict[str, str]:
    if place.provider == QNN:
        # Quantising at the borders would otherwise be left to the processor.
        return {"backend_type": "htp", "offload_graph_io_quantization": "0"}
    properties: dict[str, str] = {}
    if place.hardware == "CPU":
        properties["INFERENCE_NUM_THREADS"] = str(options.threads)
    if place.hardware in ("CPU", "GPU"):  # an NPU has a precision of its own; parity decides whether that will do
        properties |= {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
    return {"load_config": json.dumps({place.hardware: properties})} if properties else {}
