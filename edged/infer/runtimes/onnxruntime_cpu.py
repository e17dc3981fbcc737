"""onnxruntime on the processor, strict: one provider, no fallback, no spinning threads, no telemetry."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library is loaded, so before the import

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from edged.errors import InferenceError, ModelError
from edged.infer.batch_check import BatchCheck
from edged.messages import ModelInfo, TensorSpec

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile
    from edged.infer.runtime import LoadOptions

RUNTIME = "onnxruntime:cpu"
_WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
_PROVIDER = "CPUExecutionProvider"
_FATAL_ONLY = 4  # severity: every error reaches us as an exception, none needs a second copy on stderr

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

# Every exception class of the library; a test compares this list with what the installed one exports.
ORT_EXCEPTIONS: Any = tuple(
    found
    for found in vars(ort_errors).values()
    if isinstance(found, type) and issubclass(found, Exception) and found is not ort_errors.ModelLoaded
)

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
_OUT_OF_MEMORY_TEXTS = ("bad_alloc", "bad allocation", "failed to allocate memory", "out of memory")


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


class OrtCpuModel:
    """A loaded ONNX model; `infer` may be called from one thread at a time."""

    def __init__(self, session: Any, info: ModelInfo) -> None:
        self._session = session
        self._info = info
        self._check = BatchCheck(info)
        self._output_names = [spec.name for spec in info.outputs]

    @property
    def info(self) -> ModelInfo:
        return self._info

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        """One run of the session. `deadline_s` is not enforced: a run in progress cannot be cancelled reliably.

        Raises:
            InferenceError: `invalid_input`, `out_of_memory`, `infer_failed`, `closed`.
        """
        if self._session is None:
            raise InferenceError("closed", f"Cannot infer with {self._info.model}: the model is closed")
        self._check(batch)
        try:
            outputs = self._session.run(self._output_names, dict(batch))
        except MemoryError as error:
            raise InferenceError("out_of_memory", f"Out of memory in {self._info.model}", retryable=True) from error
        except (*ORT_EXCEPTIONS, RuntimeError, ValueError) as error:
            raise self._failed(error) from error
        return dict(zip(self._output_names, outputs, strict=True))

    def close(self) -> None:
        self._session = None

    def _failed(self, error: Exception) -> InferenceError:
        text = str(error)
        if isinstance(error, ort_errors.InvalidArgument):
            return InferenceError("invalid_input", f"{self._info.model} refused the batch: {_first_line(text)}")
        if any(known in text.lower() for known in _OUT_OF_MEMORY_TEXTS):
            return InferenceError("out_of_memory", f"Out of memory in {self._info.model}", retryable=True)
        return InferenceError("infer_failed", f"{self._info.model} failed: {_first_line(text)}")


def load(model: ModelFile, device: str, options: LoadOptions) -> OrtCpuModel:
    """Make a session for `model` on `device`, which must be `cpu`.

    Raises:
        ModelError: `unsupported`, `corrupt`, `incompatible`, `device_unavailable`, `out_of_memory`; those of reading.
    """
    if device != "cpu":
        raise ModelError("device_unavailable", f"onnxruntime here runs on cpu, not on {device!r}")
    if model.format != "onnx":
        raise ModelError("incompatible", f"onnxruntime reads onnx, {model.path.name} is {model.format}")
    try:
        session = ort.InferenceSession(model.read(), _session_options(options), providers=[_PROVIDER])
    except MemoryError as error:
        raise ModelError("out_of_memory", f"Cannot load {model.path}: not enough memory", retryable=True) from error
    except (*ORT_EXCEPTIONS, RuntimeError, ValueError) as error:
        raise _load_error(model, error) from error
    session.disable_fallback()
    if session.get_providers() != [_PROVIDER]:
        raise ModelError("incompatible", f"expected the providers {[_PROVIDER]}, got {session.get_providers()}")
    info = ModelInfo(
        model=model.model_id,
        version=model.version,
        sha256=model.sha256,
        runtime=RUNTIME,
        inputs=tuple(_spec(model, node) for node in session.get_inputs()),
        outputs=tuple(_spec(model, node) for node in session.get_outputs()),
    )
    return OrtCpuModel(session, info)


def _session_options(options: LoadOptions) -> Any:
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = options.threads
    chosen.inter_op_num_threads = 1
    chosen.log_severity_level = _FATAL_ONLY
    # Idle sessions must not burn the processor that the broker and the store need.
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    chosen.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return chosen


def _spec(model: ModelFile, node: Any) -> TensorSpec:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise ModelError(
            "incompatible", f"{model.path.name}: {node.name} is {node.type}; expected one of {sorted(_DTYPES)}"
        )
    return TensorSpec(node.name, dtype, tuple(axis if isinstance(axis, int) else -1 for axis in node.shape))


def _load_error(model: ModelFile, error: Exception) -> ModelError:
    text = str(error)
    lowered = text.lower()
    if isinstance(error, ort_errors.NotImplemented) or any(known in lowered for known in _UNSUPPORTED_TEXTS):
        return ModelError(
            "unsupported",
            f"onnxruntime {ort.__version__} cannot run {model.path}: {_first_line(text)}",
            hint="export the model again with a current opset and standard operators",
        )
    if any(known in lowered for known in _OUT_OF_MEMORY_TEXTS):
        return ModelError("out_of_memory", f"Cannot load {model.path}: not enough memory", retryable=True)
    return ModelError(
        "corrupt", f"onnxruntime cannot read {model.path}: {_first_line(text)}", hint="copy the model again"
    )


def _first_line(text: str) -> str:
    """The library's texts carry build paths and advice over many lines; the first 300 characters say what failed."""
    return text.strip().partition("\n")[0][:300]
