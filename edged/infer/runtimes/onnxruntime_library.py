"""onnxruntime itself: imported once, with telemetry off, refused when several wheels have overwritten one another."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library is loaded, so before the import

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from edged.errors import InferenceError, ModelError
from edged.infer.runtimes.fault_texts import is_device_lost, is_out_of_memory

if TYPE_CHECKING:
    from pathlib import Path

# All of them install the folder `onnxruntime/`.
_WHEELS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-migraphx",
    "onnxruntime-rocm",
    "onnxruntime-training",
)

# Every exception class of the library; a test compares this list with what the installed one exports.
ORT_EXCEPTIONS: Any = tuple(
    found
    for found in vars(ort_errors).values()
    if isinstance(found, type) and issubclass(found, Exception) and found is not ort_errors.ModelLoaded
)
_DEVICE_RESET = getattr(ort_errors, "DeviceReset", ())  # an NPU's subsystem was restarted; since 1.30

# The library has one exception for many causes; these texts mean a valid model that this build cannot run.
_UNSUPPORTED_TEXTS = (
    "could not find an implementation",
    "is not a registered function/op",
    "no op registered",
    "no opset import for domain",
    "guarantees* support for models stamped",
    "unsupported model ir version",
    "exception during initialization",
)
_UNAVAILABLE_TEXTS = ("please install", "failed to load library", "cannot open shared object", "no kernel image")
_TERMINATED = "terminate flag"
_STALE_ENGINE = "deserialize engine"


def refuse_mixture(installed: Iterable[str]) -> None:
    """Raise ImportError when several wheels that install the same `onnxruntime/` have overwritten one another."""
    found = sorted(installed)
    if len(found) > 1:
        raise ImportError(f"{' and '.join(found)} overwrite one another: keep one, uninstall both and install it again")


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


refuse_mixture(name for name in _WHEELS if _is_installed(name))
ort.disable_telemetry_events()
ort.set_default_logger_severity(4)  # fatal only: what it cannot do reaches us as an exception


def load_error(path: Path | str, error: Exception, device: str = "cpu") -> ModelError:
    """What a refusal to make a session on `device` means."""
    text = str(error)
    lowered = text.lower()
    if isinstance(error, MemoryError) or is_out_of_memory(text):
        return ModelError("out_of_memory", f"Cannot load {path}: not enough memory", retryable=True)
    if isinstance(error, _DEVICE_RESET) or is_device_lost(text):
        return ModelError(
            "device_unavailable",
            f"Cannot load {path}: the device is not there: {first_line(text)}",
            hint="a new process, else a power cycle",
            retryable=True,
        )
    if any(known in lowered for known in _UNAVAILABLE_TEXTS):
        return ModelError(
            "runtime_unavailable",
            f"onnxruntime:{device} lacks a library, or one that fits the device: {first_line(text)}",
            hint="install the libraries of the provider, in the versions of its page",
        )
    if _STALE_ENGINE in lowered:
        return ModelError("engine_stale", f"The engine of {path} does not fit any more: {first_line(text)}")
    if isinstance(error, ort_errors.NotImplemented) or any(known in lowered for known in _UNSUPPORTED_TEXTS):
        return ModelError(
            "unsupported",
            f"onnxruntime {ort.__version__} cannot run {path}: {first_line(text)}",
            hint="export the model again with a current opset and standard operators",
        )
    if device != "cpu" and not isinstance(error, (ort_errors.InvalidProtobuf, ort_errors.InvalidGraph)):
        return ModelError("load_failed", f"onnxruntime:{device} cannot load {path}: {first_line(text)}")
    return ModelError("corrupt", f"onnxruntime cannot read {path}: {first_line(text)}", hint="copy the model again")


def call_error(name: str, error: Exception) -> InferenceError:
    """What a failed run of the model `name` means."""
    text = str(error)
    if isinstance(error, _DEVICE_RESET) or is_device_lost(text):
        return InferenceError("device_lost", f"{name}: the device has gone: {first_line(text)}")
    if isinstance(error, MemoryError) or is_out_of_memory(text):
        return InferenceError("out_of_memory", f"Out of memory in {name}", retryable=True)
    if isinstance(error, ort_errors.InvalidArgument):
        return InferenceError("invalid_input", f"{name} refused the batch: {first_line(text)}")
    if _TERMINATED in text:
        return InferenceError("closed", f"{name} was closed during this call")
    return InferenceError("infer_failed", f"{name} failed: {first_line(text)}")


def first_line(text: str) -> str:
    """The library's texts carry build paths and advice over many lines; the first 300 characters say what failed."""
    return text.strip().partition("\n")[0][:300]
