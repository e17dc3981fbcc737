"""Models on the runtimes that the daemon uses, loaded the same way; failures become refusals with the same codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edged.errors import InferenceError, ModelError
from edged.infer.loading import ModelFile, open_model
from edged.infer.registry import find_runtime
from edged.infer.rung import load_rung
from edged.infer.runtime import LoadOptions
from edged.workbench.refusal import Unfit, unfit

if TYPE_CHECKING:
    from edged.ports import Model

DEFAULT_RUNG = "onnxruntime:cpu"
MAX_MODEL_BYTES = 4_000_000_000  # of the largest hardware class; what a class allows is checked apart
_DEADLINE_S = 600.0


def open_file(path: Path, max_bytes: int = MAX_MODEL_BYTES) -> ModelFile:
    """The checked bytes of one model file. Raises `Unfit` with the codes of `edged.infer.loading`."""
    if path.is_dir():
        raise Unfit("wrong_format", f"{path} is a folder, expected a model file", hint="name the model inside it")
    try:
        return open_model(path, allow_unsigned=True, max_bytes=max_bytes)
    except ModelError as error:
        raise unfit(error) from error


def load(rung: str, file: ModelFile, threads: int = 1) -> Model:
    """The model on one `runtime:device`, with a free batch axis. Raises `Unfit` with the codes of the runtime."""
    try:
        return load_rung(rung, file, LoadOptions(threads=threads), find_runtime)
    except ModelError as error:
        raise unfit(error) from error


def answers(model: Model, inputs: Mapping[str, np.ndarray], *, batch: int = 1) -> dict[str, np.ndarray]:
    """What `model` says to all samples, `batch` at a time; first axis as in the inputs.

    Raises:
        Unfit: the codes of a failed call; `infer_failed` where the answers are not one row per sample.
    """
    length = min(len(array) for array in inputs.values())
    parts: dict[str, list[np.ndarray]] = {spec.name: [] for spec in model.info.outputs}
    for first in range(0, length, batch):
        piece = {name: np.ascontiguousarray(array[first : first + batch]) for name, array in inputs.items()}
        for name, array in call(model, piece).items():
            if array.ndim == 0 or len(array) != min(batch, length - first):
                raise Unfit("infer_failed", f"output {name} has the shape {array.shape} for {batch} samples")
            parts[name].append(array)
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def call(model: Model, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """One call. Raises `Unfit` with the code of the failure."""
    try:
        return model.infer(batch, deadline_s=_DEADLINE_S)
    except InferenceError as error:
        raise Unfit(error.code, error.message, hint=error.hint) from error


def cpu_ms(
    first: Model, second: Model, batch: Mapping[str, np.ndarray], budget_ns: int, cpu_ns: Callable[[], int]
) -> tuple[float, float]:
    """The least processor time of one call of each, called in turns: what disturbs the machine disturbs both."""
    best = [float("inf"), float("inf")]
    started = cpu_ns()
    while True:
        for at, model in enumerate((first, second)):
            before = cpu_ns()
            call(model, batch)
            best[at] = min(best[at], (cpu_ns() - before) / 1e6)
        if cpu_ns() - started > budget_ns:
            return best[0], best[1]
