"""`edged model benchmark`: each model on each rung, one after the other, each in a process of its own."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from edged import __version__
from edged.workbench import rungs
from edged.workbench.bench_child import Answer
from edged.workbench.hardware import Target
from edged.workbench.measuring import BatchFigures, Order, RungFigures
from edged.workbench.onnx_model import first_line

VERSION = "edged.benchmark/1"
State = Literal["measured", "not_installed", "refused", "crashed", "hung"]
_NOT_INSTALLED = frozenset({"runtime_unknown", "runtime_unavailable", "device_unavailable"})
_GRACE_S = 60.0
_SETTLE_S = 5.0
_TAIL_BYTES = 4000
_CHILD = (sys.executable, "-m", "edged.workbench.bench_child")


class Run(NamedTuple):
    """One model on one rung. `figures` only when measured; else `code` and `detail` say why not."""

    model: str
    rung: str
    state: State
    figures: RungFigures | None = None
    code: str = ""
    detail: str = ""
    hint: str = ""


class Benchmark(NamedTuple):
    """All runs of one command. `sizes`: bytes of each model; `notes`: what the figures mean for the class."""

    runs: tuple[Run, ...]
    sizes: dict[str, int]
    digests: dict[str, str]
    threads: int
    seconds: float
    target: Target
    notes: tuple[str, ...]

    @property
    def measured(self) -> tuple[tuple[Run, RungFigures], ...]:
        return tuple((run, run.figures) for run in self.runs if run.figures is not None)


def benchmark(
    models: Sequence[Path],
    chain: Sequence[str],
    *,
    threads: int,
    seconds: float,
    batches: Sequence[int],
    target: Target,
    data: Path | None = None,
    child: Sequence[str] = _CHILD,
    grace_s: float = _GRACE_S,
) -> Benchmark:
    """Measure. A rung that is not installed, crashes or hangs is an answer.

    grace_s: what loading may take beyond the measurement itself. Raises `Unfit` for files that are no models.
    """
    files = [rungs.open_file(path) for path in models]
    names = _short_names(models)
    runs = []
    for file, name in zip(files, names, strict=True):
        for rung in chain:
            order = Order(str(file.path), rung, threads, seconds, tuple(batches), str(data) if data else None)
            runs.append(_run(name, order, child, seconds + grace_s))
    sizes = {name: file.size_bytes for name, file in zip(names, files, strict=True)}
    digests = {name: file.sha256 for name, file in zip(names, files, strict=True)}
    return Benchmark(tuple(runs), sizes, digests, threads, seconds, target, tuple(_notes(runs, target)))


def _run(name: str, order: Order, child: Sequence[str], limit_s: float) -> Run:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as answer:
        try:
            process = subprocess.Popen(
                [*child, str(writing)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(writing,),
            )
        finally:
            os.close(writing)
        try:
            _, said = process.communicate(msgspec.json.encode(order), timeout=limit_s)
        except subprocess.TimeoutExpired:
            _stop(process)
            return Run(name, order.rung, "hung", code="runtime_stuck", detail=f"no answer in {limit_s:.0f} s")
        return _read(name, order.rung, answer.read(), process.returncode, said)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM first: a device that is killed in mid-call may need a power cycle."""
    process.terminate()
    try:
        process.communicate(timeout=_SETTLE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _read(name: str, rung: str, data: bytes, code: int, said: bytes) -> Run:
    try:
        answer = msgspec.json.decode(data, type=Answer)
    except msgspec.DecodeError:
        words = said[-_TAIL_BYTES:].decode(errors="replace").strip().splitlines()
        ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        last = f": {first_line(words[-1])}" if words else ""
        return Run(name, rung, "crashed", code="worker_crashed", detail=f"the process ended with {ended}{last}")
    if answer.figures is not None:
        return Run(name, rung, "measured", answer.figures)
    state: State = "not_installed" if answer.code in _NOT_INSTALLED else "refused"
    return Run(name, rung, state, None, answer.code, answer.detail, answer.hint)


def _short_names(models: Sequence[Path]) -> list[str]:
    """File names, with their folders where two are called the same."""
    names = [path.name for path in models]
    return [str(path) if names.count(path.name) > 1 else path.name for path in models]


def _notes(runs: Sequence[Run], target: Target) -> list[str]:
    """What the class says about the figures; nothing without a class."""
    if not target.name:
        return []
    notes = []
    for run in runs:
        for batch in run.figures.batches if run.figures is not None else ():
            where = f"{run.model} on {run.rung}, batch {batch.batch}"
            if batch.p99_ms is None:
                notes.append(f"{where}: {batch.calls} calls are too few for a p99; measure longer")
            elif batch.p99_ms > target.p99_ms:
                allowed = f"the class {target.name} allows {target.p99_ms:g} ms"
                notes.append(f"{where}: p99 {batch.p99_ms:.1f} ms, {allowed}")
    return notes


def document(found: Benchmark) -> dict[str, Any]:
    """`edged.benchmark/1`."""
    return {
        "v": VERSION,
        "edged": __version__,
        "threads": found.threads,
        "seconds": found.seconds,
        "hardware_class": found.target.name or None,
        "machine": describe_machine(),
        "models": [{"file": name, "sha256": found.digests[name], "bytes": size} for name, size in found.sizes.items()],
        "runs": [_facts(run) for run in found.runs],
        "notes": list(found.notes),
    }


def describe_machine() -> dict[str, Any]:
    """The processor by its own name, as far as it says; whether it has the instructions that INT8 lives from."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    fields: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = f" {fields.get('flags', fields.get('Features', ''))} "
    return {
        "cpu": fields.get("model name", platform.machine()),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "int8_instructions": any(f" {flag} " in flags for flag in ("avx512_vnni", "avx_vnni", "asimddp", "i8mm")),
    }


def _facts(run: Run) -> dict[str, Any]:
    facts: dict[str, Any] = {"model": run.model, "rung": run.rung, "state": run.state}
    if run.figures is None:
        return {**facts, "code": run.code, "detail": run.detail}
    figures = msgspec.to_builtins(run.figures)
    figures["batches"] = [_batch(batch) for batch in run.figures.batches]
    return {**facts, **figures}


def _batch(batch: BatchFigures) -> dict[str, Any]:
    figures: dict[str, Any] = msgspec.to_builtins(batch)
    del figures["curve_ms"]
    return figures
