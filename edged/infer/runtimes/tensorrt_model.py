"""A TensorRT engine that answers batches: buffers on the device, one execution context, one stream."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edged.errors import InferenceError, ModelError
from edged.infer.batch_check import BatchCheck
from edged.infer.runtimes.cuda_driver import CudaContext, CudaError
from edged.infer.runtimes.fault_texts import is_device_lost, is_out_of_memory
from edged.infer.runtimes.tensorrt_build import LEAST, MOST, Errors
from edged.messages import ModelInfo, TensorSpec

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile


class Port(NamedTuple):
    """One input or output and its buffer on the device."""

    spec: TensorSpec
    address: int


class Loaded(NamedTuple):
    """What an engine consists of at run time; each of the library's objects needs those before it."""

    runtime: Any
    engine: Any
    execution: Any
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


class TensorrtModel:
    """A loaded engine; `infer` may be called from one thread at a time.

    A free batch axis takes up to MOST items in one call of the engine; what is more is answered in several.
    """

    def __init__(self, loaded: Loaded, cuda: CudaContext, errors: Errors, info: ModelInfo) -> None:
        self._loaded: Loaded | None = loaded
        self._execution = loaded.execution
        self._cuda = cuda
        self._errors = errors
        self._info = info
        self._inputs, self._outputs = loaded.inputs, loaded.outputs
        self._free = bool(info.inputs) and all(spec.shape[:1] == (-1,) for spec in info.inputs)
        self._check = BatchCheck(info)
        self._broken = ""  # the code of the failure after which nothing on this device can be trusted

    @property
    def info(self) -> ModelInfo:
        return self._info

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        """As many calls of the engine as the batch needs, all within `deadline_s`.

        A call that is not done by then goes on: nothing can cancel it, and the process has to end.

        Raises:
            InferenceError: `invalid_input`, `infer_timeout`, `device_lost`, `out_of_memory`, `infer_failed`, `closed`.
        """
        if self._loaded is None:
            raise InferenceError("closed", f"Cannot infer with {self._info.model}: the model is closed")
        if self._broken:
            raise InferenceError(self._broken, f"{self._info.model}: an earlier call has left the device unusable")
        self._check(batch)
        try:
            self._cuda.use()
            if not self._free:
                return self._call(batch, deadline_s)[0]
            return self._in_pieces(batch, deadline_s)
        except CudaError as error:
            raise self._failed(str(error)) from error
        except TimeoutError as error:
            self._broken = "infer_timeout"
            raise InferenceError("infer_timeout", f"{self._info.model}: no answer within {deadline_s:g} s") from error

    def close(self) -> None:
        """Give the memory back, unless a call may still write into it: then only the end of the process frees it."""
        if self._loaded is not None and not self._broken:
            self._execution = self._loaded = None  # TensorRT's objects go before the context that they live in
            self._cuda.close()
        self._loaded = None

    def _in_pieces(self, batch: Mapping[str, np.ndarray], deadline_s: float) -> dict[str, np.ndarray]:
        lengths = {len(array) for array in batch.values()}
        if len(lengths) != 1:
            raise InferenceError("invalid_input", f"{self._info.model}: inputs of different lengths {sorted(lengths)}")
        (length,) = lengths
        if not length:
            return {port.spec.name: np.empty(_sized(port.spec, 0), port.spec.dtype) for port in self._outputs}
        pieces, left_s = [], deadline_s
        for first in range(0, length, MOST):
            piece, waited_s = self._call({name: array[first : first + MOST] for name, array in batch.items()}, left_s)
            pieces.append(piece)
            left_s -= waited_s
        if len(pieces) == 1:
            return pieces[0]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def _call(self, batch: Mapping[str, np.ndarray], timeout_s: float) -> tuple[dict[str, np.ndarray], float]:
        """One call of the engine. (answers, seconds waited). Raises CudaError, TimeoutError, InferenceError."""
        self._errors.take()
        arrays = [np.ascontiguousarray(batch[port.spec.name]) for port in self._inputs]  # held until it has been read
        for port, array in zip(self._inputs, arrays, strict=True):
            if not self._execution.set_input_shape(port.spec.name, array.shape):
                raise self._failed(self._errors.take() or f"it does not take {array.shape} for {port.spec.name}")
            self._cuda.upload(port.address, array)
        if not self._execution.execute_async_v3(self._cuda.stream):
            raise self._failed(self._errors.take() or "the engine was not started, and it does not say why")
        waited_s = self._cuda.wait(timeout_s)
        if said := self._errors.take():
            raise self._failed(said)
        items = len(arrays[0]) if self._free else 0
        answers = {port.spec.name: np.empty(_sized(port.spec, items), port.spec.dtype) for port in self._outputs}
        for port in self._outputs:
            self._cuda.download(answers[port.spec.name], port.address)
        return answers, waited_s

    def _failed(self, said: str) -> InferenceError:
        code = code_of(said)
        if code == "device_lost":
            self._broken = code
        return InferenceError(code, f"{self._info.model} failed: {said}", retryable=code == "out_of_memory")


def code_of(text: str) -> str:
    """The code for what the library or the driver said when a call failed."""
    if is_out_of_memory(text):
        return "out_of_memory"
    # TensorRT quotes errors of CUDA without their number; all but a lack of memory poison the process.
    if is_device_lost(text) or "cuda runtime (" in text.lower():
        return "device_lost"
    return "infer_failed"


def describe(trt: Any, engine: Any, model: ModelFile, rung: str) -> ModelInfo:
    """What an engine takes and gives.

    Raises:
        ModelError: `incompatible`: a number format that numpy lacks, or shapes that only the data decide.
    """
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    modes = [engine.get_tensor_mode(name) for name in names]
    specs = [_spec(trt, engine, name, model) for name in names]
    return ModelInfo(
        model=model.model_id,
        version=model.version,
        sha256=model.sha256,
        runtime=rung,
        inputs=tuple(spec for spec, mode in zip(specs, modes, strict=True) if mode == trt.TensorIOMode.INPUT),
        outputs=tuple(spec for spec, mode in zip(specs, modes, strict=True) if mode == trt.TensorIOMode.OUTPUT),
        placement=((rung.partition(":")[2], int(engine.num_layers)),),
    )


def check_shapes(execution: Any, info: ModelInfo) -> None:
    """Raise ModelError (`incompatible`) unless the shapes of all answers follow from the number of items alone."""
    for items in (LEAST, MOST):
        for spec in info.inputs:
            execution.set_input_shape(spec.name, _sized(spec, items))
        for spec in info.outputs:
            found = tuple(int(axis) for axis in execution.get_tensor_shape(spec.name))
            if found != _sized(spec, items):
                raise ModelError(
                    "incompatible",
                    f"{info.model}: output {spec.name} has the shape {found} for {items} items, not {spec.shape}",
                    hint="export the model with outputs whose first axis is the batch, or is fixed",
                )


def bind(execution: Any, cuda: CudaContext, specs: Sequence[TensorSpec]) -> tuple[Port, ...]:
    """Give every tensor a buffer for the largest batch. Raises CudaError; ModelError when the engine takes it not."""
    ports = []
    for spec in specs:
        size_bytes = math.prod(_sized(spec, MOST)) * np.dtype(spec.dtype).itemsize
        ports.append(Port(spec, cuda.allocate(size_bytes)))
        if not execution.set_tensor_address(spec.name, ports[-1].address):
            raise ModelError("load_failed", f"TensorRT takes no buffer for {spec.name}")
    return tuple(ports)


def _spec(trt: Any, engine: Any, name: str, model: ModelFile) -> TensorSpec:
    try:
        dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name
    except TypeError as error:
        raise ModelError("incompatible", f"{model.path.name}: {name} has a type that numpy lacks: {error}") from error
    shape = tuple(int(axis) for axis in engine.get_tensor_shape(name))
    if -1 in shape[1:] or engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
        raise ModelError(
            "incompatible",
            f"{model.path.name}: {name} has the shape {shape}; expected one that is known before the call",
            hint="export the model with fixed shapes, the batch excepted",
        )
    return TensorSpec(name, dtype, shape)


def _sized(spec: TensorSpec, items: int) -> tuple[int, ...]:
    """The shape for so many items, where the first axis is free."""
    return (items, *spec.shape[1:]) if spec.shape[:1] == (-1,) else spec.shape
