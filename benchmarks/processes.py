"""What a process has cost so far, from /proc, and real-time scheduling for the length of a measurement."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FIFO_PRIORITY = 10


@dataclass(frozen=True)
class Usage:
    """Totals since the processes began; subtract two readings."""

    cpu_ns: int
    written_bytes: int

    def __sub__(self, earlier: Usage) -> Usage:
        return Usage(self.cpu_ns - earlier.cpu_ns, self.written_bytes - earlier.written_bytes)


def family(pid: int) -> list[int]:
    """`pid` and its descendants."""
    found = [pid]
    for member in found:  # grows while it is walked: children of children
        for task in _tasks(member):
            try:
                found.extend(int(child) for child in Path(f"/proc/{member}/task/{task}/children").read_text().split())
            except OSError:  # the thread ended between listing and reading
                continue
    return found


def usage(pids: Iterable[int]) -> Usage:
    """CPU of all threads (scheduler's nanoseconds) and bytes caused to be written to storage (dirtied pages)."""
    cpu_ns = written = 0
    for pid in pids:
        for task in _tasks(pid):
            try:
                cpu_ns += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
            except OSError:
                continue
        written += _field(Path(f"/proc/{pid}/io"), "write_bytes")
    return Usage(cpu_ns, written)


def resident_mb(pids: Iterable[int]) -> float:
    """Resident memory now, all processes together (VmRSS; 1 MB = 1,000,000 bytes)."""
    return sum(_field(Path(f"/proc/{pid}/status"), "VmRSS") for pid in pids) * 1024 / 1e6


@contextmanager
def realtime(pids: Iterable[int], *, wanted: bool) -> Iterator[bool]:
    """SCHED_FIFO for all present threads while the block runs; yields whether that is so.

    Threads started meanwhile inherit it from the thread that starts them. Kernel threads that do the disk's work
    stay outside, so a latency that waits for fsync is an upper bound.
    """
    tasks = [int(task) for pid in pids for task in _tasks(pid)]
    granted = wanted and _schedule(tasks, os.SCHED_FIFO, FIFO_PRIORITY)
    try:
        yield granted
    finally:
        if granted:
            _schedule([int(task) for pid in pids for task in _tasks(pid)], os.SCHED_OTHER, 0)


def _schedule(tasks: Iterable[int], policy: int, priority: int) -> bool:
    for task in tasks:
        try:
            os.sched_setscheduler(task, policy, os.sched_param(priority))
        except PermissionError:
            return False
        except ProcessLookupError:  # the thread has ended
            continue
    return True


def _tasks(pid: int) -> list[str]:
    try:
        return [entry.name for entry in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []


def _field(path: Path, name: str) -> int:
    """The number after `name:` in a /proc file of `key: value` lines; 0 when the process has gone."""
    try:
        for line in path.read_text().splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0])
    except OSError:
        pass  # gone, or not ours to read: the caller sees 0, and the missing results tell why
    return 0
