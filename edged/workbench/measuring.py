"""One model on one rung, measured in this process: load, first call, then calls by the clock. The child's half."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from edged.errors import ModelError
from edged.infer.registry import find_runtime
from edged.infer.warmup import probe_inputs
from edged.workbench import rungs
from edged.workbench.arrays import model_inputs, read_npz
from edged.workbench.refusal import unfit

if TYPE_CHECKING:
    from edged.ports import Clock, Model

_WARM_CALLS = 3
_LEAST_CALLS = 5
_MAX_CALLS = 200_000
_P95_CALLS, _P99_CALLS = 20, 100  # fewer calls do not have such a percentile
_CURVE_POINTS = 101


class Order(msgspec.Struct, frozen=True):
    """What a child is to measure. `data`: an .npz with inputs, None: a ramp."""

    model: str
    rung: str
    threads: int
    seconds: float
    batches: tuple[int, ...]
    data: str | None = None


class BatchFigures(msgspec.Struct, frozen=True):
    """Calls with `batch` samples. Milliseconds of one call; percentiles that so few calls do not have are None.

    cpu_ms: least processor time of a call over all threads. curve: latency at each whole percent of the calls.
    """

    batch: int
    calls: int
    p50_ms: float
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float
    cpu_ms: float
    samples_per_s: float
    curve_ms: tuple[float, ...]


class RungFigures(msgspec.Struct, frozen=True):
    """A model on a rung. `import_ms`: the runtime's packages; bytes are resident memory, growth over the bare process.

    drift_bytes: growth while the same calls were repeated.
    """

    import_ms: float
    load_ms: float
    first_ms: float
    runtime_bytes: int
    model_bytes: int
    peak_bytes: int
    drift_bytes: int
    batches: tuple[BatchFigures, ...]


class Memory(NamedTuple):
    """Resident now, and the most there ever was; 0 where the system does not say."""

    resident_bytes: int
    peak_bytes: int


def read_memory(status: Path = Path("/proc/self/status")) -> Memory:
    fields = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines() if ":" in line)
    return Memory(*(int(fields.get(key, "0 kB").split()[0]) * 1024 for key in ("VmRSS", "VmHWM")))


def measure(
    order: Order, clock: Clock, cpu_ns: Callable[[], int], memory: Callable[[], Memory] = read_memory
) -> RungFigures:
    """Everything about one model on one rung. Raises `Unfit` with the code of what kept it from running."""
    file = rungs.open_file(Path(order.model))
    bare = memory()
    started_ns = clock.mono_ns()
    try:
        find_runtime(order.rung.partition(":")[0])
    except ModelError as error:
        raise unfit(error) from error
    imported_ns, with_runtime = clock.mono_ns(), memory()
    model = rungs.load(order.rung, file, order.threads)
    loaded_ns, with_model = clock.mono_ns(), memory()
    inputs = _inputs(model, order)
    one = _batch_of(inputs, 1)
    before_ns = clock.mono_ns()
    rungs.call(model, one)
    first_ns = clock.mono_ns() - before_ns
    share_ns = int(order.seconds * 1e9 / len(order.batches))
    figures, drift_bytes = [], 0
    for batch in order.batches:
        pieces = _batch_of(inputs, batch)
        for _ in range(_WARM_CALLS):
            rungs.call(model, pieces)
        early = memory()
        figures.append(_run(model, batch, pieces, share_ns, clock, cpu_ns))
        drift_bytes += memory().resident_bytes - early.resident_bytes
    late = memory()
    model.close()
    return RungFigures(
        import_ms=(imported_ns - started_ns) / 1e6,
        load_ms=(loaded_ns - imported_ns) / 1e6,
        first_ms=first_ns / 1e6,
        runtime_bytes=with_runtime.resident_bytes - bare.resident_bytes,
        model_bytes=with_model.resident_bytes - with_runtime.resident_bytes,
        peak_bytes=late.peak_bytes - bare.resident_bytes,
        drift_bytes=drift_bytes,
        batches=tuple(figures),
    )


def summarize(batch: int, wall_ns: np.ndarray, cpu_ns: np.ndarray) -> BatchFigures:
    """Figures of one batch size from the nanoseconds of each call. Pure."""
    ms = wall_ns / 1e6
    calls = len(ms)
    curve = np.percentile(ms, np.linspace(0, 100, _CURVE_POINTS))
    return BatchFigures(
        batch=batch,
        calls=calls,
        p50_ms=float(np.percentile(ms, 50)),
        p95_ms=float(np.percentile(ms, 95)) if calls >= _P95_CALLS else None,
        p99_ms=float(np.percentile(ms, 99)) if calls >= _P99_CALLS else None,
        max_ms=float(ms.max()),
        cpu_ms=float(cpu_ns.min()) / 1e6,
        samples_per_s=batch * calls / max(float(ms.sum()) / 1e3, 1e-9),
        curve_ms=tuple(round(float(value), 4) for value in curve),
    )


def _run(
    model: Model,
    batch: int,
    pieces: Mapping[str, np.ndarray],
    share_ns: int,
    clock: Clock,
    cpu_ns: Callable[[], int],
) -> BatchFigures:
    wall: list[int] = []
    cpu: list[int] = []
    end_ns = clock.mono_ns() + share_ns
    while (len(wall) < _LEAST_CALLS or clock.mono_ns() < end_ns) and len(wall) < _MAX_CALLS:
        cpu_before, before = cpu_ns(), clock.mono_ns()
        rungs.call(model, pieces)
        after, cpu_after = clock.mono_ns(), cpu_ns()
        wall.append(after - before)
        cpu.append(cpu_after - cpu_before)
    return summarize(batch, np.array(wall, np.int64), np.array(cpu, np.int64))


def _inputs(model: Model, order: Order) -> dict[str, np.ndarray]:
    if order.data is None:
        return probe_inputs(model.info.inputs, 1)
    return model_inputs(read_npz(Path(order.data)), model.info.inputs, besides=("labels",))


def _batch_of(inputs: Mapping[str, np.ndarray], batch: int) -> dict[str, np.ndarray]:
    """The first `batch` samples, from the start again where there are fewer."""
    return {name: np.ascontiguousarray(np.resize(array, (batch, *array.shape[1:]))) for name, array in inputs.items()}
