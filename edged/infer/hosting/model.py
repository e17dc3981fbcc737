"""A model in another process that looks like any loaded model: copies in, one message each way, copies out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edged.errors import InferenceError
from edged.infer.hosting import wire
from edged.infer.hosting.process import Ended, WorkerProcess
from edged.infer.hosting.slots import SlotError
from edged.policy.faults import fault_of

if TYPE_CHECKING:
    import numpy as np

    from edged.infer.loading import ModelFile
    from edged.infer.runtime import LoadOptions
    from edged.messages import ModelInfo
    from edged.ports import Clock

_LONGEST_S = 1e6  # what the kernel can wait for in one call


class HostedModel:
    """Implements `edged.ports.Model`. `number`: of the model in its process. Made by `Devices`."""

    def __init__(
        self,
        process: WorkerProcess,
        number: int,
        loaded: wire.Loaded,
        origin: tuple[ModelFile, LoadOptions],
        clock: Clock,
        unload_s: float,
    ) -> None:
        self.process = process
        self.number = number
        self.exclusive = loaded.exclusive
        self.origin = origin
        self.closed = False
        self._info = loaded.info
        self._outputs = {spec.name for spec in loaded.info.outputs}
        self._mono_ns = clock.mono_ns
        self._unload_s = unload_s

    @property
    def info(self) -> ModelInfo:
        return self._info

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        """One call in the process. Blocks until the deadline at the longest.

        Raises:
            InferenceError: what the runtime raised; `infer_timeout` when it did not answer and its process is being
                ended; `worker_crashed`; `worker_gone`: the process was ended because of another model;
                `device_busy`: others held the device until the deadline; `invalid_input`; `closed`.
        """
        deadline_ns = self._mono_ns() + int(min(deadline_s, _LONGEST_S) * 1e9)
        process = self.hold(deadline_ns)
        try:
            return self._infer(process, batch, deadline_ns)
        except Ended as ended:
            code = "infer_timeout" if ended.code == "timeout" else ended.code
            raise InferenceError(code, f"{self._info.model}: {ended.message}", retryable=True) from ended
        finally:
            process.lock.release()

    def close(self) -> None:
        """Unload it there. May wait for the running call of another model; never raises."""
        if self.closed:
            return
        self.closed = True
        try:
            process = self._lock(self._mono_ns() + int(self._unload_s * 1e9))
        except InferenceError:  # a call that takes so long: whoever comes next unloads it
            self.process.abandoned.append(self.number)
            return
        try:
            unload(process, self.number, self._mono_ns() + int(self._unload_s * 1e9))
        finally:
            process.lock.release()

    def hold(self, deadline_ns: int) -> WorkerProcess:
        """The process of this model, locked. Raises InferenceError (`closed`, `device_busy`)."""
        process = self._lock(deadline_ns)
        if self.closed:
            process.lock.release()
            raise InferenceError("closed", f"Cannot infer with {self._info.model}: the model is closed")
        return process

    def move(self, successor: HostedModel) -> None:
        """From now on `successor`'s process answers. The caller holds the lock of the old one."""
        self.process, self.number, self.exclusive = successor.process, successor.number, successor.exclusive

    def _lock(self, deadline_ns: int) -> WorkerProcess:
        while True:
            process = self.process
            left_s = (deadline_ns - self._mono_ns()) / 1e9
            if left_s <= 0 or not (process.lock.acquire(blocking=False) or process.lock.acquire(timeout=left_s)):
                text = f"{self._info.model}: no turn on {process.name} before the deadline"
                raise InferenceError("device_busy", text, retryable=True)
            if process is self.process:
                return process
            process.lock.release()  # it was replaced while we waited

    def _infer(
        self, process: WorkerProcess, batch: Mapping[str, np.ndarray], deadline_ns: int
    ) -> Mapping[str, np.ndarray]:
        if process.state != "up":
            raise process.ended()
        try:
            places = process.inputs.put(batch)
            left_s = (deadline_ns - self._mono_ns()) / 1e9
            reply = process.exchange(wire.Infer(self.number, left_s, places), deadline_ns)
        except (SlotError, wire.BadPacket) as error:
            raise InferenceError("invalid_input", f"{self._info.model}: {error}") from error
        except OSError as error:  # the slot cannot grow
            raise InferenceError("out_of_memory", f"{self._info.model}: {error}", retryable=True) from error
        process.calls += 1
        if type(reply) is wire.Answer:
            return self._read(process, reply)
        if type(reply) is wire.Failed:
            raise self._failed(process, reply)
        raise process.broken(f"expected an answer to a call, got {type(reply).__name__}")

    def _read(self, process: WorkerProcess, answer: wire.Answer) -> Mapping[str, np.ndarray]:
        try:
            outputs = process.outputs.copies(answer.outputs)
        except SlotError as error:
            raise process.broken(str(error)) from error
        if outputs.keys() != self._outputs:
            raise InferenceError(
                "infer_failed",
                f"{self._info.model}: expected the outputs {sorted(self._outputs)}, got {sorted(outputs)}",
            )
        return outputs

    def _failed(self, process: WorkerProcess, failure: wire.Failed) -> InferenceError:
        """What the runtime raised. After some errors nothing in its process is to be trusted: it is ended."""
        code = wire.code_of(failure, "infer_failed")
        if fault_of(code).action == "restart":
            process.end("worker_gone", f"{process.name}: ended after {code} of {self._info.model}: {failure.message}")
        return InferenceError(code, failure.message, hint=failure.hint, retryable=failure.retryable)


def unload(process: WorkerProcess, number: int, deadline_ns: int) -> None:
    """Close model `number` in `process`, and those that nobody had time to close. The caller holds its lock."""
    process.abandoned.append(number)
    unload_abandoned(process, deadline_ns)


def unload_abandoned(process: WorkerProcess, deadline_ns: int) -> None:
    """Close what was closed while the process was busy. The caller holds its lock."""
    try:
        while process.abandoned and process.state == "up":
            number = process.abandoned.pop()
            if number in process.models:
                process.exchange(wire.Unload(number), deadline_ns)
                process.models.discard(number)
                process.touched_ns = process.mono_ns()
    except Ended:  # with the process everything in it is closed
        process.abandoned.clear()
