"""Runs the daemon and samples where its CPU time goes: `sampler.py OUTPUT run --config FILE` does what edged does.

The kernel's profiling timer interrupts after so much CPU time of the process; each thread's time since the last
interrupt is booked on the innermost function of `edged` in its stack. Calls into C count for the function that makes
them; what the event loop does in C (polling, reading the socket) counts for the callback that it calls next.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType

import edged
from edged.cli.main import main

INTERVAL_S = 0.002
PACKAGE = Path(edged.__file__).resolve().parent
OUTSIDE = "(outside edged)"


class Sampler:
    """CPU nanoseconds by function."""

    def __init__(self) -> None:
        self.cpu_ns: Counter[str] = Counter()
        self._seen_ns: dict[int, int] = {}

    def sample(self, _signal: int, interrupted: FrameType | None) -> None:
        """Signal handler: book every thread's CPU time since the last call."""
        for thread, frame in sys._current_frames().items():
            used_ns = time.clock_gettime_ns(time.pthread_getcpuclockid(thread))
            here = interrupted if frame.f_code is self.sample.__code__ else frame
            self.cpu_ns[_place(here)] += used_ns - self._seen_ns.get(thread, 0)
            self._seen_ns[thread] = used_ns


def _place(frame: FrameType | None) -> str:
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            return f"{path.relative_to(PACKAGE.parent)}: {frame.f_code.co_qualname}"
        frame = frame.f_back
    return OUTSIDE


def run(output: Path, arguments: list[str]) -> None:
    """The daemon until it stops; then the samples as JSON, function → seconds."""
    sampler = Sampler()
    signal.signal(signal.SIGPROF, sampler.sample)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)
    sys.argv = ["edged", *arguments]
    try:
        main()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        output.write_text(json.dumps({place: cpu_ns / 1e9 for place, cpu_ns in sampler.cpu_ns.most_common()}))


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2:])
