"""Interleaved rounds: every contestant under each of its loads once per round, all on the same broker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.broker import Broker
from benchmarks.contestants.contestant import Contestant
from benchmarks.fsync import FsyncFloor, fsync_floor
from benchmarks.native import LOADGEN, NotMeasured
from benchmarks.plan import HERE, Load, Plan
from benchmarks.processes import realtime, resident_mb, usage

DRAIN_S = 20.0  # how long after the last event a result may come before it counts as lost


@dataclass(frozen=True)
class Sample:
    """One contestant under one load, once. CPU and bytes are per result, over all its threads and processes."""

    rate_per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float
    written_bytes: float
    resident_mb: float
    sent: int
    lost: int
    duplicates: int
    broker_cpu_us: float
    loadgen_cpu_us: float
    realtime: bool
    load_average: float


# (contestant, load) -> sample; what failed is absent
Round = Mapping[tuple[str, str], Sample]


@dataclass
class Outcome:
    """All rounds, and what could not be measured: (what, why)."""

    rounds: list[Round] = field(default_factory=list)
    not_measured: list[tuple[str, str]] = field(default_factory=list)
    features: dict[str, bool] = field(default_factory=dict)  # of the daemon; true: shown in every round
    fsync: list[FsyncFloor] = field(default_factory=list)  # one per round

    def note_features(self, shown: Mapping[str, bool]) -> None:
        """Add what one round has shown."""
        for name, works in shown.items():
            self.features[name] = works and self.features.get(name, True)


def run_rounds(contestants: Sequence[Contestant], broker: Broker, plan: Plan, workdir: Path) -> Outcome:
    """Measure all contestants `plan.rounds` times; the order rotates, so that nobody always comes first."""
    outcome = Outcome()
    for number in range(plan.rounds):
        turn = number % len(contestants)
        samples: dict[tuple[str, str], Sample] = {}
        outcome.fsync.append(fsync_floor(workdir))
        for contestant in (*contestants[turn:], *contestants[:turn]):
            print(f"round {number + 1} of {plan.rounds}: {contestant.title}", flush=True)
            home = workdir / f"{number}-{contestant.name}"
            home.mkdir()
            try:
                contestant.start(broker, home)
                _measure(contestant, broker, plan, samples)
                outcome.note_features(contestant.verify(broker, home))
            except NotMeasured as why:
                log = (home / "output.txt").read_text(errors="replace") if (home / "output.txt").exists() else ""
                outcome.not_measured.append(
                    (f"{contestant.title}, round {number + 1}", f"{why} {_end_of(log)}".strip())
                )
                print(f"  not measured: {why}", flush=True)
            finally:
                contestant.stop()
            shutil.rmtree(home)
        outcome.rounds.append(samples)
    return outcome


def _measure(contestant: Contestant, broker: Broker, plan: Plan, samples: dict[tuple[str, str], Sample]) -> None:
    first_seq = 0
    for load in contestant.loads:
        sample, first_seq = measure(contestant, broker, load, plan, first_seq)
        samples[contestant.name, load.key] = sample
        print(
            f"  {load.key:12} {sample.rate_per_s:8.0f}/s  p50 {sample.p50_us / 1e3:8.2f} ms  "
            f"p99 {sample.p99_us / 1e3:8.2f} ms  CPU {sample.cpu_us:7.1f} µs  disk {sample.written_bytes:7.0f} B  "
            f"RSS {sample.resident_mb:5.0f} MB  lost {sample.lost}  duplicates {sample.duplicates}",
            flush=True,
        )


def measure(contestant: Contestant, broker: Broker, load: Load, plan: Plan, first_seq: int) -> tuple[Sample, int]:
    """One load; returns the sample and the sequence number to go on with, so that every device counts without gaps."""
    pids = contestant.pids()
    load_average = os.getloadavg()[0]
    with realtime([*pids, broker.pid], wanted=load.realtime) as granted:
        before, broker_before = usage(pids), usage([broker.pid])
        seen = _run_loadgen(contestant, broker, load, plan, first_seq)
        cost, broker_cost = usage(pids) - before, usage([broker.pid]) - broker_before
    if not contestant.pids():
        raise NotMeasured(f"it died under the load {load.key}")
    results = max(1, int(seen["received"]))
    sample = Sample(
        rate_per_s=seen["rate_per_s"],
        p50_us=seen["p50_us"],
        p99_us=seen["p99_us"],
        cpu_us=cost.cpu_ns / 1e3 / results,
        written_bytes=cost.written_bytes / results,
        resident_mb=resident_mb(pids),
        sent=int(seen["sent"]),
        lost=int(seen["sent"] - seen["received"]),
        duplicates=int(seen["duplicates"]),
        broker_cpu_us=broker_cost.cpu_ns / 1e3 / results,
        loadgen_cpu_us=seen["loadgen_cpu_us"],
        realtime=granted and bool(seen["realtime"]),
        load_average=load_average,
    )
    return sample, int(seen["next_seq"])


def _run_loadgen(contestant: Contestant, broker: Broker, load: Load, plan: Plan, first_seq: int) -> dict[str, float]:
    seconds = plan.steady_s if load.rate_per_s else plan.saturated_s
    options: dict[str, object] = {
        "port": broker.port,
        "rate": load.rate_per_s,
        "seconds": seconds,
        "warm-s": plan.warm_s,
        "drain-s": DRAIN_S,
        "window": contestant.window,
        "first-seq": first_seq,
        "filter": contestant.results.topic_filter,
        "device-level": contestant.results.device_level,
        "marker": contestant.results.marker,
    }
    command = [str(LOADGEN.path), *(text for key, value in options.items() for text in (f"--{key}", str(value)))]
    if load.realtime:
        command.append("--fifo")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + DRAIN_S + 30, check=True)
    except subprocess.CalledProcessError as failed:
        raise NotMeasured(f"the load generator gave up under {load.key}: {failed.stderr.strip()}") from failed
    except subprocess.TimeoutExpired as late:
        raise NotMeasured(f"the load generator did not end under {load.key}") from late
    seen: dict[str, float] = json.loads(done.stdout)
    if not seen["received"]:
        raise NotMeasured(
            f"no result came back under {load.key}: {seen['sent']} events sent, {seen['foreign']} foreign"
        )
    return seen


def _end_of(log: str) -> str:
    """The last line a contestant wrote, without the paths of this machine."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f"(its last words: {lines[-1][:300].replace(str(HERE.parent), '.')})" if lines else ""
