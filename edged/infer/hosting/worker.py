"""The process of one device: loads models, answers calls, one at a time. Started by `process`, never by hand.

    python -P -m edged.infer.hosting.worker SOCKET INPUTS OUTPUTS PARENT NICE MOST_BYTES

Four descriptors of the parent: a socket for messages, two slots for arrays, and stderr for last words. It ends when the
socket ends, at SIGTERM after the running call, after a lost device, and with its parent, whatever hangs.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edged.errors import InferenceError, ModelError
from edged.infer.fixed_batch import free_batch
from edged.infer.hosting import wire
from edged.infer.hosting.slots import Slot, SlotError
from edged.infer.registry import find_runtime
from edged.infer.runtime import Probe, Runtime

if TYPE_CHECKING:
    from edged.ports import Model

_PR_SET_PDEATHSIG = 1
_LOST = "device_lost"
_OOM_SCORE = "500"  # when the kernel needs a victim, a process that can be replaced goes before the daemon


class Worker:
    """Answers requests from `channel` until it ends, `stop` is called, or the device is lost."""

    def __init__(
        self, channel: socket.socket, inputs: Slot, outputs: Slot, find: Callable[[str], Runtime] = find_runtime
    ) -> None:
        self._channel = channel
        self._inputs = inputs
        self._outputs = outputs
        self._find = find
        self._models: dict[int, Model] = {}
        self._idle = False
        self._stopping = False

    def serve(self) -> None:
        """Answer one request after the other; closes all models at the end."""
        buffer = bytearray(wire.MAX_PACKET_BYTES)
        whole = memoryview(buffer)
        self._channel.send(wire.pack(0, wire.Hello(wire.PROTOCOL)))
        try:
            while size := self._receive(buffer):
                packet = whole[:size]
                reply = self._answer(wire.request_of(packet))
                self._channel.send(_packed(wire.number_of(packet), reply))
                if isinstance(reply, wire.Failed) and reply.code == _LOST:
                    return  # nothing in this process is to be trusted from here on
        except OSError:  # the parent has closed the socket: nobody waits for an answer
            return
        finally:
            for model in self._models.values():
                model.close()

    def stop(self) -> None:
        """Called by a signal: end now when nothing runs, else after the running call."""
        self._stopping = True
        if self._idle:
            raise SystemExit(0)

    def _receive(self, buffer: bytearray) -> int:
        """Length of the next packet; 0 at the end."""
        self._idle = True
        try:
            return 0 if self._stopping else self._channel.recv_into(buffer)
        finally:
            self._idle = False

    def _answer(self, request: wire.Request) -> wire.Reply:
        try:
            match request:
                case wire.Infer():
                    return self._infer(request)
                case wire.Load():
                    return self._load(request)
                case wire.Unload():
                    self._unload(request.model)
                case wire.Look():
                    return wire.Seen(wire.summary(self._look(request)))
                case wire.Prepare():
                    runtime = self._find(request.runtime)
                    formats = runtime.abilities(request.device).formats
                    runtime.prepare(request.file.form_for(formats), request.device, request.options)
                case wire.Ping():
                    pass
        except (ModelError, InferenceError) as error:
            return wire.failed(error)
        except MemoryError:
            return wire.Failed("out_of_memory", f"no memory to {type(request).__name__.lower()}", retryable=True)
        # A plug-in may raise what its contract forbids; the other models of this process must not fall with it.
        except Exception as error:  # noqa: BLE001
            code = "infer_failed" if isinstance(request, wire.Infer) else "load_failed"
            return wire.failed(ModelError(code, f"unexpected {type(error).__name__}: {error}"))
        return wire.Done()

    def _infer(self, request: wire.Infer) -> wire.Answer:
        model = self._models.get(request.model)
        if model is None:
            raise InferenceError("closed", f"model {request.model} is not loaded here")
        outputs = model.infer(self._inputs.views(request.inputs), deadline_s=request.deadline_s)
        try:
            return wire.Answer(self._outputs.put(_as_arrays(outputs)))
        except SlotError as error:
            text = f"{model.info.model}: the outputs cannot be handed over: {error}"
            raise InferenceError("infer_failed", text) from error

    def _load(self, request: wire.Load) -> wire.Loaded:
        runtime = self._find(request.runtime)
        abilities = runtime.abilities(request.device)
        loaded = runtime.load(request.file.form_for(abilities.formats), request.device, request.options)
        try:
            model = free_batch(loaded)
        except ModelError:
            loaded.close()
            raise
        self._models[request.model] = model
        return wire.Loaded(model.info, abilities.exclusive)

    def _unload(self, number: int) -> None:
        model = self._models.pop(number, None)
        if model is not None:
            model.close()

    def _look(self, request: wire.Look) -> Probe:
        try:
            return self._find(request.runtime).probe(request.device)
        except ModelError as error:
            return Probe(False, code=error.code, reason=str(error))
        # A plug-in may raise what its contract forbids; a probe answers all the same.
        except Exception as error:  # noqa: BLE001
            return Probe(False, code="runtime_unavailable", reason=f"unexpected {type(error).__name__}: {error}")


def _as_arrays(outputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Some libraries answer scalars, or their own arrays."""
    if all(type(output) is np.ndarray for output in outputs.values()):
        return outputs
    return {name: np.asarray(output) for name, output in outputs.items()}


def _packed(number: int, reply: wire.Reply) -> bytes:
    try:
        return wire.pack(number, reply)
    except wire.BadPacket as error:
        return wire.pack(number, wire.Failed("incompatible", f"the answer is too long: {error}"))


def guard(parent: int) -> None:
    """No orphan, no core dump, last words on stderr; Ctrl-C in a terminal is the parent's business."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before we asked to be told
        raise SystemExit(0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    try:
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    except OSError:  # a sandbox without /proc, or a higher score already: nothing depends on it
        pass
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def main(arguments: Sequence[str]) -> None:
    channel, inputs, outputs, parent, niceness, most_bytes = map(int, arguments)
    guard(parent)
    if niceness:
        os.nice(niceness)
    worker = Worker(socket.socket(fileno=channel), Slot(inputs, most_bytes), Slot(outputs, most_bytes))
    signal.signal(signal.SIGTERM, lambda _number, _frame: worker.stop())
    try:
        worker.serve()
    finally:  # it ends anyway: the reason must not be replaced by a signal on the way
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


if __name__ == "__main__":
    main(sys.argv[1:])
