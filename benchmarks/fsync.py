"""What the disk alone takes to make 4 KiB durable: the floor under every latency of a durable daemon."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from benchmarks.processes import realtime

BLOCK = bytes(4096)
WRITES = 1500
PACE_S = 0.001  # one write per millisecond, as at 1000 messages per second


@dataclass(frozen=True)
class FsyncFloor:
    """Append of 4 KiB and fdatasync, in milliseconds."""

    p50_ms: float
    p99_ms: float


def fsync_floor(folder: Path) -> FsyncFloor:
    """Measure in `folder` for about two seconds, with the same scheduling as the latency loads."""
    path = folder / "fsync.bin"
    took_ms = []
    with path.open("wb", buffering=0) as file, realtime([os.getpid()], wanted=True):
        for _ in range(WRITES):
            begun = time.perf_counter()
            file.write(BLOCK)
            os.fdatasync(file.fileno())
            took_s = time.perf_counter() - begun
            took_ms.append(took_s * 1e3)
            time.sleep(max(0.0, PACE_S - took_s))
    path.unlink()
    cuts = quantiles(took_ms, n=100)
    return FsyncFloor(p50_ms=cuts[49], p99_ms=cuts[98])
