"""`python -m benchmarks.hotspots`: where the daemon's CPU time goes at saturation, in µs per message and function."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.broker import Broker, broker
from benchmarks.contestants.edged_daemon import EdgedDaemon
from benchmarks.model import write_model
from benchmarks.native import LOADGEN, NotMeasured, build
from benchmarks.plan import CACHE, HERE, QUICK, SATURATED
from benchmarks.rounds import measure

PLAN = replace(QUICK, saturated_s=8)
SHOWN = 25  # functions; the rest together is less than one of them


class Profiled(EdgedDaemon):
    """The daemon under the sampler."""

    def command(self, port: int, workdir: Path) -> list[str]:
        _, *arguments = super().command(port, workdir)
        return [sys.executable, str(HERE / "sampler.py"), str(workdir / "samples.json"), *arguments]


def hotspots(running: Broker, workdir: Path, *, linger_ms: int = 0) -> dict[str, float]:
    """Function → CPU µs per message at saturation, dearest first; starting is in it and shows as <module>."""
    daemon = Profiled(workdir, linger_ms=linger_ms)
    home = workdir / "profile"
    home.mkdir()
    try:
        daemon.start(running, home)
        sample, _ = measure(daemon, running, SATURATED, PLAN, 0)
    finally:
        daemon.stop()
    seconds: dict[str, float] = json.loads((home / "samples.json").read_text())
    shutil.rmtree(home)
    return {place: round(cpu_s * 1e6 / sample.sent, 2) for place, cpu_s in list(seconds.items())[:SHOWN]}


def main() -> int:
    """Print the profile of a run with linger 0, or with the milliseconds given."""
    CACHE.mkdir(parents=True, exist_ok=True)
    workdir = Path(tempfile.mkdtemp(prefix="run-", dir=CACHE))
    try:
        build(LOADGEN)
        write_model(workdir)
        with broker(workdir, stock=False) as running:
            for place, cpu_us in hotspots(running, workdir, linger_ms=int((sys.argv[1:] or ["0"])[0])).items():
                print(f"{cpu_us:7.2f} µs  {place}")
    except NotMeasured as why:
        print(f"Not measured: {why}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(workdir, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
