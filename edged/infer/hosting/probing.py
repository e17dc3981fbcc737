"""What is asked in a child of its own, because it may hang, crash or take minutes: probes, and making engines ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edged.errors import ModelError
from edged.infer.hosting import wire
from edged.infer.hosting.process import Ended, WorkerProcess
from edged.infer.runtime import Probe

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile
    from edged.infer.runtime import LoadOptions

NICENESS = 15  # an engine is built beside a plant that goes on producing


def look(process: WorkerProcess, rung: str, deadline_ns: int) -> Probe:
    """The probe of `rung` in `process`. Raises nothing: a child that crashed or hung is an answer, too."""
    name, _, device = rung.partition(":")
    try:
        with process.lock:
            reply = process.exchange(wire.Look(name, device or "cpu"), deadline_ns)
    except Ended as ended:
        code = "device_unavailable" if ended.code == "timeout" else "runtime_unavailable"
        return Probe(False, code=code, reason=f"a process that probed it did not answer: {ended.message}")
    if isinstance(reply, wire.Seen):
        return reply.probe
    return Probe(False, code="runtime_unavailable", reason=f"a process that probed it answered {reply}")


def prepare(process: WorkerProcess, rung: str, file: ModelFile, options: LoadOptions, deadline_ns: int) -> None:
    """Make `file` ready in `process`. Raises ModelError."""
    name, _, device = rung.partition(":")
    try:
        with process.lock:
            reply = process.exchange(wire.Prepare(name, device or "cpu", file, options), deadline_ns)
    except Ended as ended:
        raise ModelError("prepare_failed", f"{rung}: cannot prepare {file.path}: {ended.message}") from ended
    if isinstance(reply, wire.Failed):
        code = wire.code_of(reply, "prepare_failed")
        raise ModelError(
            "prepare_failed" if code == "load_failed" else code,
            reply.message, hint=reply.hint, retryable=reply.retryable,
        )  # fmt: skip
    if not isinstance(reply, wire.Done):
        raise ModelError("prepare_failed", f"{rung}: a process that prepared {file.path} answered {reply}")
