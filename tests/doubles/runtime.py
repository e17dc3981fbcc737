"""A model that follows a script: delays, errors, hangs, wrong numbers. Deterministic; a hang ends when told to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Event
from typing import TYPE_CHECKING

import numpy as np

from edged.errors import InferenceError, ModelError
from edged.infer.runtime import PlainRuntime
from edged.messages import ModelInfo, TensorSpec

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile
    from edged.infer.runtime import LoadOptions, Runtime
    from tests.doubles.clock import FakeClock

INPUTS = (TensorSpec("x", "float32", (-1, 4)),)
OUTPUTS = (TensorSpec("y", "float32", (-1,)),)


def rows_summed(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the stand-in computes unless told otherwise."""
    return {"y": batch["x"].reshape(len(batch["x"]), -1).sum(axis=1, dtype=np.float32)}


class StandInModel:
    """Implements `edged.ports.Model`.

    script: one entry per call, then `rows_summed` for ever: an exception, an `Event` to hang on, or a function.
    cost_us: (per call, per item); advances `clock` as a real model lets time pass.
    """

    def __init__(
        self,
        *,
        script: Sequence[BaseException | Event | Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]] = (),
        clock: FakeClock | None = None,
        cost_us: tuple[float, float] = (0.0, 0.0),
        inputs: tuple[TensorSpec, ...] = INPUTS,
        outputs: tuple[TensorSpec, ...] = OUTPUTS,
        runtime: str = "stand-in:cpu",
    ) -> None:
        self.info = ModelInfo("stand-in", "1", "0" * 64, runtime, inputs, outputs)
        self.calls: list[int] = []
        self.closed = Event()
        self.entered = Event()
        self._script = list(script)
        self._clock = clock
        self._cost_us = cost_us

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        if self.closed.is_set():
            raise InferenceError("closed", "the stand-in is closed")
        items = len(next(iter(batch.values())))
        self.calls.append(items)
        if self._clock is not None:
            self._clock.advance_us(self._cost_us[0] + self._cost_us[1] * items)
        step = self._script.pop(0) if self._script else rows_summed
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, Event):
            self.entered.set()
            assert step.wait(30), "a scripted hang was never ended"
            step = rows_summed
        return step(batch)

    def close(self) -> None:
        self.closed.set()


def loaders(**models: StandInModel | ModelError | Exception) -> Callable[[str], Runtime]:
    """A stand-in for `find_runtime`: runtime name -> what loading it gives or raises."""

    def find(name: str) -> Runtime:
        if name not in models:
            raise ModelError("runtime_unknown", f"There is no runtime {name!r}")

        def load(model: ModelFile, device: str, options: LoadOptions) -> StandInModel:
            found = models[name]
            if isinstance(found, Exception):
                raise found
            return found

        return PlainRuntime(name, load)

    return find
