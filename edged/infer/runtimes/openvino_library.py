"""OpenVINO itself: imported once and without its telemetry, and what its errors mean.

`import openvino` alone reports the import to the maker: with the package `openvino_telemetry`, which is a dependency
of it, it makes an identity in `~/intel` and a forked process that posts to an analytics service. There is no switch for
that but a file in the home of each user. The library has a stand-in for the case that the package is missing; that case
is made here, before the import.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from edged.errors import InferenceError, ModelError
from edged.infer.runtimes.fault_texts import is_device_lost, is_out_of_memory
from edged.infer.runtimes.shared_objects import is_loaded

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile

if is_loaded("/onnxruntime_ep_openvino/"):
    # Its copy of libopenvino, which lacks most readers of formats, would be taken for ours.
    raise ImportError("onnxruntime has loaded its own OpenVINO into this process; another process can have this one")
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # to Python: it is not installed
ov: Any = import_module("openvino")
ov_frontend: Any = import_module("openvino.frontend")
VERSION: str = ov.__version__.partition("-")[0]

# Every exception class of the frontends (they share no parent); a test compares this list with the installed library.
FRONTEND_EXCEPTIONS: Any = (
    ov_frontend.GeneralFailure,
    ov_frontend.InitializationFailure,
    ov_frontend.NotImplementedFailure,
    ov_frontend.OpConversionFailure,
    ov_frontend.OpValidationFailure,
)
# What the binding makes of the exceptions of C++.
FAILURES: Any = (*FRONTEND_EXCEPTIONS, RuntimeError, ValueError, IndexError, OverflowError, TypeError, MemoryError)

_CORRUPT_TEXTS = ("error during import of onnx model", "nullptr for inputmodel", "flatbuffer verification failed")


@lru_cache(maxsize=1)
def core() -> Any:
    """One per process: each holds its plug-ins for as long as it lives."""
    return ov.Core()


def load_error(model: ModelFile, error: Exception) -> ModelError:
    """What a refusal to read or compile means."""
    text = str(error)
    if isinstance(error, MemoryError) or is_out_of_memory(text):
        return ModelError("out_of_memory", f"Cannot load {model.path}: not enough memory", retryable=True)
    if is_device_lost(text):
        return ModelError(
            "device_unavailable",
            f"Cannot load {model.path}: the device has gone: {in_short(error)}",
            hint="a new process, else a power cycle",
            retryable=True,
        )
    if any(known in text.lower() for known in _CORRUPT_TEXTS):
        return ModelError(
            "corrupt", f"OpenVINO cannot read {model.path}: {in_short(error)}", hint="copy the model again"
        )
    return ModelError(
        "unsupported",
        f"OpenVINO {VERSION} cannot run {model.path}: {in_short(error)}",
        hint="export the model again with standard operators",
    )


def call_error(name: str, error: Exception) -> InferenceError:
    """What a failed call of the model `name` means."""
    text = str(error)
    if is_device_lost(text):
        return InferenceError("device_lost", f"{name}: the device has gone: {in_short(error)}")
    if isinstance(error, MemoryError) or is_out_of_memory(text):
        return InferenceError("out_of_memory", f"Out of memory in {name}", retryable=True)
    return InferenceError("infer_failed", f"{name} failed: {in_short(error)}")


def in_short(error: Exception) -> str:
    """What failed in 300 characters; the lines before it name the library's own source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '", "FrontEnd API", "Summary:"))]
    return " ".join(telling or lines)[:300]
