"""How long and how often is measured: one quick plan, one full plan, and the loads that contestants are put under."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
CACHE = HERE / ".cache"
RESULTS = HERE / "results"


@dataclass(frozen=True)
class Load:
    """What the load generator does to a contestant.

    rate_per_s: events offered per second on a fixed schedule; 0 keeps a fixed number outstanding (saturation).
    realtime: broker, contestant and load generator get SCHED_FIFO where the system permits it, so that a latency
        is the contestant's and not that of whatever else runs on the machine.
    """

    key: str
    rate_per_s: int = 0
    realtime: bool = False


SATURATED = Load("saturated")
STEADY_1000 = Load("steady_1000", 1000, realtime=True)
STEADY_5000 = Load("steady_5000", 5000, realtime=True)
STEADY_50 = Load("steady_50", 50, realtime=True)  # what a commit per message can follow


@dataclass(frozen=True)
class Plan:
    """Durations of one run. Every contestant is measured once per round; ratios are taken within a round."""

    name: str
    rounds: int
    saturated_s: float
    steady_s: float
    stored_rows: int
    warm_s: float = 1.0  # first part of every load that no figure sees: caches fill, Node compiles


QUICK = Plan("quick", rounds=2, saturated_s=4, steady_s=5, stored_rows=1_000_000)
FULL = Plan("full", rounds=5, saturated_s=6, steady_s=9, stored_rows=10_000_000)
