"""What every runtime of .tflite models shares: quantised ports look like float ones, one interpreter answers batches.

Quantised inputs and outputs are float32 outside: the model's scale and zero point are applied here, so that a pipeline
does not care which twin of a model serves. Integers without a scale (indices, labels) stay integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edged.errors import InferenceError
from edged.infer.batch_check import BatchCheck
from edged.messages import ModelInfo, TensorSpec

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile
    from edged.infer.tflite_file import TfliteFile, TfliteTensor

_OUT_OF_MEMORY_TEXTS = ("bad_alloc", "failed to allocate", "out of memory")


class Runner(Protocol):
    """What answers a list of inputs, in the model's order, with a list of outputs. Raises RuntimeError, ValueError."""

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]: ...


class InterpreterRunner:
    """LiteRT's own interpreter, for inputs of any shape that the model declares."""

    def __init__(self, interpreter: Any) -> None:
        self.interpreter = interpreter
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


class TfliteModel:
    """A loaded .tflite model; `infer` may be called from one thread at a time.

    code_of: the code of what the library said when a call failed.
    """

    def __init__(
        self,
        runner: Runner,
        info: ModelInfo,
        declared: TfliteFile,
        code_of: Callable[[str], str] = lambda text: "infer_failed",
    ) -> None:
        self._runner: Runner | None = runner
        self._info = info
        self._inputs, self._outputs = declared.inputs, declared.outputs
        self._code_of = code_of
        self._check = BatchCheck(info)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        """One call for the whole batch. `deadline_s` is not enforced: a kernel in progress cannot be cancelled.

        Raises:
            InferenceError: `invalid_input`, `out_of_memory`, `closed`, and what `code_of` says.
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
        if is_out_of_memory(error):
            return InferenceError("out_of_memory", f"Out of memory in {self._info.model}", retryable=True)
        said = in_short(error)
        return InferenceError(self._code_of(said), f"{self._info.model} failed: {said}")


def describe(model: ModelFile, runtime: str, declared: TfliteFile, interpreter: Any, *, free: bool) -> ModelInfo:
    """What a loaded model says about itself. free: the batch axis is."""
    return ModelInfo(
        model=model.model_id,
        version=model.version,
        sha256=model.sha256,
        runtime=runtime,
        inputs=_specs(declared.inputs, interpreter.get_input_details(), free),
        outputs=_specs(declared.outputs, interpreter.get_output_details(), free),
    )


def is_out_of_memory(error: Exception) -> bool:
    return any(known in str(error).lower() for known in _OUT_OF_MEMORY_TEXTS)


def in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


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
