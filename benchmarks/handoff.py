"""What it costs to have a model in a process of its own, and how soon its end is noticed: figures against must and aim.

    python -m benchmarks.handoff [handoff|hang|crash|memory ...] [--calls 5000] [--deaths 30] [--cycles 10000]

handoff: one call of `Model.infer` with a picture of 224 × 224 × 3 bytes, for a model that does nothing. hang: from the
deadline to the error. crash: from abort() in a call, and from SIGKILL while one runs, to the error. memory: growth over
load/unload cycles of a real model, in the daemon's process directly, in a process of its own, and in the daemon's
process meanwhile. Times are judged by their median: the worst, printed beside it, is the machine's as much as ours.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.errors import InferenceError
from edged.infer.hosting.devices import Devices
from edged.infer.hosting.limits import WorkerLimits
from edged.infer.loading import ModelFile, open_model
from edged.infer.registry import find_runtime
from edged.infer.runtime import LoadOptions
from edged.ops.clock import SystemClock
from edged.ports import Model
from tests.doubles import worker_runtimes as scripted
from tests.unit.infer.models import sum_model

SHARED_MODEL = Path(__file__).resolve().parents[2] / "shared" / "data" / "onnx" / "mnist_8" / "model.onnx"
OPTIONS = LoadOptions()
WARM_CALLS = 500
WARM_CYCLES = 1000  # until the allocator has what it needs
MB = 1_000_000


def conclude(name: str, value: float, must: float, aim: float, unit: str, **more: Any) -> bool:
    """Print a figure for people and for machines; whether the must holds."""
    word = "aim reached" if value <= aim else "must holds" if value <= must else "MISSED"
    worst = f", worst {more['worst_ms']:.4g} ms" if "worst_ms" in more else ""
    print(f"{name}: {value:,.4g} {unit}{worst} (must {must:g}, aim {aim:g}): {word}")
    figure = {"figure": name, "value": round(value, 4), "must": must, "aim": aim, "unit": unit, "holds": value <= must}
    print(json.dumps(figure | more | {"load_average": round(os.getloadavg()[0], 1)}), flush=True)
    return value <= must


@contextmanager
def processes(folder: Path) -> Iterator[Devices]:
    limits = WorkerLimits(starts_count=1000, grace_s=0.05)
    devices = Devices(SystemClock(), limits, command=scripted.scripted_command(folder / "site"))
    try:
        yield devices
    finally:
        devices.close(10)


def handoff(folder: Path, options: argparse.Namespace) -> bool:
    batch = {"x": np.random.default_rng(0).integers(0, 255, (1, 224, 224, 3), dtype=np.uint8)}
    with processes(folder) as devices:
        model = devices.load("nothing:here", plain(folder), OPTIONS)
        taken_us = []
        for _ in range(WARM_CALLS + options.calls):
            started_ns = time.perf_counter_ns()
            model.infer(batch, deadline_s=1.0)
            taken_us.append((time.perf_counter_ns() - started_ns) / 1000)
    ordered = sorted(taken_us[WARM_CALLS:])
    p50_us, p99_us = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return conclude("hand-over of 151 kB to a process, p50", p50_us, 60, 20, "µs", p99_us=round(p99_us, 1))


def hang(folder: Path, options: argparse.Namespace) -> bool:
    deadline_s = 0.1
    late_ms = []
    with processes(folder) as devices:
        for _ in range(options.deaths):
            model = devices.load("scripted:plain", plain(folder), OPTIONS)
            late_ms.append(failing(model, scripted.HANG, "infer_timeout", deadline_s) - deadline_s * 1000)
    p50_ms = statistics.median(late_ms)
    return conclude("hang noticed after its deadline, p50", p50_ms, 50, 20, "ms", worst_ms=round(max(late_ms), 3))


def crash(folder: Path, options: argparse.Namespace) -> bool:
    aborted_ms, killed_ms = [], []
    with processes(folder) as devices:
        for _ in range(options.deaths):
            model = devices.load("scripted:plain", plain(folder), OPTIONS)
            aborted_ms.append(failing(model, scripted.ABORT, "worker_crashed", 10))
            model = devices.load("scripted:plain", plain(folder), OPTIONS)
            killed_ms.append(killed(model, devices.statistics()[0].pid))
    held = []
    for name, taken_ms in (("abort() in a call", aborted_ms), ("SIGKILL during a call", killed_ms)):
        p50_ms = statistics.median(taken_ms)
        held.append(conclude(f"crash noticed, {name}, p50", p50_ms, 20, 10, "ms", worst_ms=round(max(taken_ms), 3)))
    return all(held)


def memory(folder: Path, options: argparse.Namespace) -> bool:
    """Loads of a real model again and again; the growth after the first ones."""
    known = SHARED_MODEL.is_file()
    file = open_model(SHARED_MODEL if known else sum_model(folder / "sum.onnx"), allow_unsigned=True)
    name = "mnist_8" if known else "a sum (the real model is absent)"
    runtime = find_runtime("onnxruntime")

    def directly() -> None:
        runtime.load(file, "cpu", OPTIONS).close()

    here = grown(options.cycles, directly, {"": lambda: rss_bytes(os.getpid())})[""]
    with processes(folder) as devices:
        devices.load("onnxruntime:cpu", file, OPTIONS).close()
        pid = devices.statistics()[0].pid
        ours, theirs = lambda: rss_bytes(os.getpid()), lambda: rss_bytes(pid)
        found = grown(
            options.cycles,
            lambda: devices.load("onnxruntime:cpu", file, OPTIONS).close(),
            {"here": ours, "there": theirs},
        )
        assert devices.statistics()[0].pid == pid, "the process was replaced: nothing was measured"
    cycles = f"{options.cycles:,} load/unload cycles"
    more = {"model": name, "cycles": options.cycles}
    return all([
        conclude(f"growth over {cycles}, directly in the daemon", here / MB, 5, 0, "MB", **more),
        conclude(f"growth over {cycles}, process of the device", found["there"] / MB, 5, 0, "MB", **more),
        conclude(f"growth over {cycles}, the daemon meanwhile", found["here"] / MB, 5, 0, "MB", **more),
    ])  # fmt: skip


def grown(cycles: int, cycle: Callable[[], None], sizes: dict[str, Callable[[], int]]) -> dict[str, int]:
    """Bytes by which each of `sizes` grows over so many cycles, after a tenth as many to warm up."""
    for _ in range(min(WARM_CYCLES, cycles)):
        cycle()
    gc.collect()
    before = {name: size() for name, size in sizes.items()}
    for _ in range(cycles):
        cycle()
    gc.collect()
    return {name: size() - before[name] for name, size in sizes.items()}


def plain(folder: Path) -> ModelFile:
    return open_model(sum_model(folder / "sum.onnx"), allow_unsigned=True)


def failing(model: Model, what: float, code: str, deadline_s: float) -> float:
    """Milliseconds until a call fails with `code`."""
    started_ns = time.perf_counter_ns()
    with pytest.raises(InferenceError) as caught:
        model.infer(scripted.batch_of(what), deadline_s=deadline_s)
    taken_ms = (time.perf_counter_ns() - started_ns) / 1e6
    assert caught.value.code == code, caught.value
    return taken_ms


def killed(model: Model, pid: int) -> float:
    """Milliseconds from SIGKILL, while a call hangs, until it fails."""
    ended_ns: list[int] = []

    def call() -> None:
        failing(model, scripted.HANG, "worker_crashed", 10)
        ended_ns.append(time.perf_counter_ns())

    thread = threading.Thread(target=call)
    thread.start()
    threading.Event().wait(0.05)
    started_ns = time.perf_counter_ns()
    os.kill(pid, signal.SIGKILL)
    thread.join()
    return (ended_ns[0] - started_ns) / 1e6


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE")


FIGURES = {"handoff": handoff, "hang": hang, "crash": crash, "memory": memory}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", choices=[*FIGURES, []], help="default: all")
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--deaths", type=int, default=30, help="hangs, and crashes of each kind")
    parser.add_argument("--cycles", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        held = [FIGURES[name](Path(folder), options) for name in options.figures or FIGURES]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
