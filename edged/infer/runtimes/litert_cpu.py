"""LiteRT (TensorFlow Lite) on the processor with XNNPACK: .tflite models, float and quantised.

Quantised inputs and outputs are float32 outside: the model's scale and zero point are applied here, so that a pipeline
does not care which twin of a model serves. Integers without a scale (indices, labels) stay integers.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edged.errors import InferenceError, ModelError
from edged.infer.batch_check import BatchCheck
from edged.infer.tflite_file import TfliteFile, TfliteTensor, read_declared
from edged.messages import ModelInfo, TensorSpec

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile
    from edged.infer.runtime import LoadOptions

RUNTIME = "litert:cpu"
_TRIAL_S = 60.0
_TRIAL_COMMAND = (sys.executable, "-P", "-m", "edged.infer.runtimes.litert_cpu")
_CORRUPT_TEXTS = ("not a valid flatbuffer", "required_bytes <= bytes", "number of elements overflowed")
_OUT_OF_MEMORY_TEXTS = ("bad_alloc", "failed to allocate", "out of memory")

_survived: set[str] = set()  # digests that a trial has shown not to end the process


class Runner(Protocol):
    """What answers a list of inputs, in the model's order, with a list of outputs. Raises RuntimeError, ValueError."""

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]: ...


class _Interpreter:
    """LiteRT's own, for inputs of any shape that the model declares."""

    def __init__(self, data: bytes, threads: int) -> None:
        self.interpreter = Interpreter(model_content=data, num_threads=threads)
        self.interpreter.allocate_tensors()
        inputs, outputs = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        self.ones = [np.zeros(detail["shape"], detail["dtype"]) for detail in inputs]
        self._inputs = [detail["index"] for detail in inputs]
        self._outputs = [detail["index"] for detail in outputs]
        self._shapes = [array.shape for array in self.ones]

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """One invocation; what has another shape than last time is resized first. Copies of the outputs."""
        shapes = [array.shape for array in arrays]
        if shapes != self._shapes:
            self._shapes = []  # unknown until all of it succeeds
            for index, shape in zip(self._inputs, shapes, strict=True):
                self.interpreter.resize_tensor_input(index, shape, strict=True)
            self.interpreter.allocate_tensors()
            self._shapes = shapes
        for index, array in zip(self._inputs, arrays, strict=True):
            self.interpreter.set_tensor(index, array)
        self.interpreter.reset_all_variables()  # what a recurrent model remembers must not change the next answer
        self.interpreter.invoke()
        return [self.interpreter.get_tensor(index) for index in self._outputs]

    def takes_any_batch(self) -> bool:
        """Whether the batch is declared free, and really is: somewhere inside a 1 may be written down."""
        signatures = [detail["shape_signature"] for detail in self.interpreter.get_input_details()]
        if not signatures or any(not len(signature) or signature[0] != -1 for signature in signatures):
            return False
        try:
            answers = self.run([np.repeat(array, 2, axis=0) for array in self.ones])
        except (RuntimeError, ValueError):
            return False
        return all(answer.ndim and len(answer) == 2 * len(self.ones[0]) for answer in answers)


class LitertModel:
    """A loaded .tflite model; `infer` may be called from one thread at a time."""

    def __init__(self, runner: Runner, info: ModelInfo, declared: TfliteFile) -> None:
        self._runner: Runner | None = runner
        self._info = info
        self._inputs, self._outputs = declared.inputs, declared.outputs
        self._check = BatchCheck(info)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        """One call for the whole batch. `deadline_s` is not enforced: a kernel in progress cannot be cancelled.

        Raises:
            InferenceError: `invalid_input`, `out_of_memory`, `infer_failed`, `closed`.
        """
        if self._runner is None:
            raise InferenceError("closed", f"Cannot infer with {self._info.model}: the model is closed")
        self._check(batch)
        try:
            arrays = [_stored(port, batch[port.name]) for port in self._inputs]
        except ValueError as error:
            raise InferenceError("invalid_input", f"{self._info.model}: {error}") from error
        try:
            outputs = self._runner.run(arrays)
        except MemoryError as error:
            raise InferenceError("out_of_memory", f"Out of memory in {self._info.model}", retryable=True) from error
        except (RuntimeError, ValueError) as error:
            raise self._failed(error) from error
        return {
            port.name: array if port.affine is None else port.affine.dequantise(array)
            for port, array in zip(self._outputs, outputs, strict=True)
        }

    def close(self) -> None:
        self._runner = None

    def _failed(self, error: Exception) -> InferenceError:
        if _is_out_of_memory(error):
            return InferenceError("out_of_memory", f"Out of memory in {self._info.model}", retryable=True)
        return InferenceError("infer_failed", f"{self._info.model} failed: {_in_short(error)}")


def load(model: ModelFile, device: str, options: LoadOptions) -> LitertModel:
    """Make an interpreter for `model` on `device`, which must be `cpu`.

    A model that was not loaded before in this process is loaded by another one first: the interpreter trusts what a
    model says about itself and can crash on contradictions, and a crash here would take every pipeline with it.

    Raises:
        ModelError: `unsupported`, `corrupt`, `incompatible`, `device_unavailable`, `out_of_memory`, `crashes`; those
            of reading.
    """
    if device != "cpu":
        raise ModelError("device_unavailable", f"LiteRT here runs on cpu, not on {device!r}")
    if not model.format.startswith("tflite"):
        raise ModelError("incompatible", f"LiteRT reads tflite, {model.path.name} is {model.format}")
    data = model.read()
    declared = read_declared(model.path, data)
    try_elsewhere(model, data)
    try:
        runner, free = _open(data, options.threads)
    except MemoryError as error:
        raise ModelError("out_of_memory", f"Cannot load {model.path}: not enough memory", retryable=True) from error
    except (RuntimeError, ValueError) as error:
        raise _load_error(model, error) from error
    info = ModelInfo(
        model=model.model_id,
        version=model.version,
        sha256=model.sha256,
        runtime=RUNTIME,
        inputs=_specs(declared.inputs, runner.interpreter.get_input_details(), free),
        outputs=_specs(declared.outputs, runner.interpreter.get_output_details(), free),
    )
    return LitertModel(runner, info, declared)


def _open(data: bytes, threads: int) -> tuple[_Interpreter, bool]:
    """(a runner whose model has answered once, whether its batch axis is free)."""
    runner = _Interpreter(data, threads)
    runner.run(runner.ones)
    if runner.takes_any_batch():
        return runner, True
    return _Interpreter(data, threads), False  # a resize that failed leaves an interpreter behind that answers nothing


def _stored(port: TfliteTensor, array: np.ndarray) -> np.ndarray:
    """The array as the model stores it. Raises ValueError for NaN in a quantised input."""
    if port.affine is None:
        return array
    try:
        return port.affine.quantise(array)
    except ValueError as error:
        raise ValueError(f"input {port.name}: {error}") from error


def _specs(ports: tuple[TfliteTensor, ...], details: Any, free: bool) -> tuple[TensorSpec, ...]:
    """Shapes as declared when the batch is free, else as they are."""
    found = []
    for port, detail in zip(ports, details, strict=True):
        shape = [int(axis) for axis in (detail["shape_signature"] if free else detail["shape"])]
        if free:
            shape[0] = -1
        found.append(TensorSpec(port.name, "float32" if port.affine else port.dtype, tuple(shape)))
    return tuple(found)


def try_elsewhere(
    model: ModelFile, data: bytes, command: Sequence[str] = _TRIAL_COMMAND, timeout_s: float = _TRIAL_S
) -> None:
    """Load and run `data` in a process of its own, unless that was done before; only its death says something here.

    Raises:
        ModelError: `crashes`.
    """
    if model.sha256 in _survived:
        return
    try:
        done = subprocess.run(
            command,
            input=data,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        how = f"has not ended after {timeout_s:g} s"
    else:
        if done.returncode >= 0:
            _survived.add(model.sha256)
            return
        how = f"was ended by signal {-done.returncode}"
    raise ModelError(
        "crashes",
        f"Refusing to load {model.path}: a process that loaded it for a trial {how}",
        hint="copy the model again; if it is whole, export it again or use another runtime",
    )


def _trial(data: bytes) -> None:
    """What the process of a trial does. A refusal is no news: it comes again where it is reported."""
    try:
        _open(data, 1)
    except (RuntimeError, ValueError, MemoryError):
        return


def _load_error(model: ModelFile, error: Exception) -> ModelError:
    text = str(error).lower()
    if _is_out_of_memory(error):
        return ModelError("out_of_memory", f"Cannot load {model.path}: not enough memory", retryable=True)
    if any(known in text for known in _CORRUPT_TEXTS):
        return ModelError(
            "corrupt", f"LiteRT cannot read {model.path}: {_in_short(error)}", hint="copy the model again"
        )
    return ModelError(
        "unsupported",
        f"LiteRT cannot run {model.path}: {_in_short(error)}",
        hint="export the model again with built-in operators",
    )


def _is_out_of_memory(error: Exception) -> bool:
    return any(known in str(error).lower() for known in _OUT_OF_MEMORY_TEXTS)


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is expected here, and no reason to fill the flash
    _trial(sys.stdin.buffer.read())
