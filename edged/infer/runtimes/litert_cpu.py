"""LiteRT (TensorFlow Lite) on the processor with XNNPACK: .tflite models, float and quantised."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edged.errors import ModelError
from edged.infer.runtime import Abilities, Device, DeviceHealth, Probe
from edged.infer.runtimes.tflite_io import InterpreterRunner, TfliteModel, describe, in_short, is_out_of_memory
from edged.infer.tflite_file import read_declared

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile
    from edged.infer.runtime import LoadOptions

_RUNG = "litert:cpu"
_TRIAL_S = 60.0
_TRIAL_COMMAND = (sys.executable, "-P", "-m", "edged.infer.runtimes.litert_cpu")
_CORRUPT_TEXTS = ("not a valid flatbuffer", "required_bytes <= bytes", "number of elements overflowed")

_survived: set[str] = set()  # digests that a trial has shown not to end the process


class _Runner(InterpreterRunner):
    """An interpreter on the processor."""

    def __init__(self, data: bytes, threads: int) -> None:
        super().__init__(Interpreter(model_content=data, num_threads=threads))

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


def load(model: ModelFile, device: str, options: LoadOptions) -> TfliteModel:
    """Make an interpreter for `model` on `device`, which must be `cpu`.

    A model that was not loaded before in this process is loaded by another one first: the interpreter trusts what a
    model says about itself and can crash on contradictions, and a crash here would take every pipeline with it.

    Raises:
        ModelError: `unsupported`, `corrupt`, `incompatible`, `device_unavailable`, `out_of_memory`, `crashes`; those
            of reading.
    """
    _require_cpu(device)
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
    info = describe(model, _RUNG, declared, runner.interpreter, free=free)
    return TfliteModel(runner, info, declared)


def _require_cpu(device: str) -> None:
    if device != "cpu":
        raise ModelError("device_unavailable", f"LiteRT here runs on cpu, not on {device!r}")


def _open(data: bytes, threads: int) -> tuple[_Runner, bool]:
    """(a runner whose model has answered once, whether its batch axis is free)."""
    runner = _Runner(data, threads)
    runner.run(runner.ones)
    if runner.takes_any_batch():
        return runner, True
    return _Runner(data, threads), False  # a resize that failed leaves an interpreter behind that answers nothing


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
    if is_out_of_memory(error):
        return ModelError("out_of_memory", f"Cannot load {model.path}: not enough memory", retryable=True)
    if any(known in text for known in _CORRUPT_TEXTS):
        return ModelError("corrupt", f"LiteRT cannot read {model.path}: {in_short(error)}", hint="copy the model again")
    return ModelError(
        "unsupported",
        f"LiteRT cannot run {model.path}: {in_short(error)}",
        hint="export the model again with built-in operators",
    )


class LitertRuntime:
    """Implements `edged.infer.runtime.Runtime`, for the processor."""

    name = "litert"

    def abilities(self, device: str) -> Abilities:
        return Abilities(("tflite",))

    def probe(self, device: str) -> Probe:
        """The library was imported, and it always has the processor."""
        versions = {"ai-edge-litert": version("ai-edge-litert")}
        try:
            _require_cpu(device)
        except ModelError as error:
            return Probe(False, (), versions, error.code, str(error))
        return Probe(True, (Device("cpu", "cpu", "XNNPACK"),), versions)

    def prepare(self, model: ModelFile, device: str, options: LoadOptions) -> None:
        """Nothing to make."""

    def load(self, model: ModelFile, device: str, options: LoadOptions) -> TfliteModel:
        return load(model, device, options)

    def health(self, device: str) -> DeviceHealth:
        """The processor is well as long as this runs."""
        return DeviceHealth("ok" if device == "cpu" else "unknown")


RUNTIME = LitertRuntime()

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is expected here, and no reason to fill the flash
    _trial(sys.stdin.buffer.read())
