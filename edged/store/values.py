"""What goes into the store besides units, and what it says about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class StoreSettings:
    """Where the store lives and how large it may grow."""

    state_dir: Path
    budget_bytes: int = 2_000_000_000  # database file, WAL and `other_bytes` together
    free_floor_bytes: int = 64_000_000  # left free on the file system for everything else
    check_limit_s: float = 1.0  # how long the integrity check at start may take
    salvage_limit_s: float = 30.0  # how long rows are copied out of a damaged file
    keep_bytes: int = 64_000_000  # rows that nobody needs any more stay while the file is no larger
    alarm_surroundings_s: float = 60.0  # rows this close to an alarm are given up after all others
    instance: str = ""  # of the running process, for people; "": a random one


class PastEpoch(NamedTuple):
    """Sequence numbers up to `last_*` belong to `epoch`, after the end of the epoch before it."""

    epoch: str
    last_event: int
    last_result: int
    last_batch: int


@dataclass(frozen=True)
class SalvageReport:
    """What a damaged store cost. Ranges are inclusive; what was lost after the newest salvaged row is not knowable."""

    cause: str
    set_aside: Path | None  # the damaged file; None when it was kept in use or there was no room for it
    rows: int
    events: int
    results: int
    holes: tuple[tuple[str, int, int], ...]  # (stream, first, last) missing between salvaged rows
    complete: bool  # False: stopped by the time limit or a full disk


@dataclass(frozen=True)
class Recovered:
    """What the store knows at start. `next_*` are the numbers the next unit must use."""

    epoch: str
    next_event: int
    next_result: int
    next_batch: int
    meta: bytes | None  # of the newest row
    snapshot: tuple[int, bytes] | None  # (event seq, folded state)
    new_store: bool
    next_alarm: int = 1
    next_health: int = 1
    past_epochs: tuple[PastEpoch, ...] = ()
    salvage: SalvageReport | None = None
    migrated: tuple[str, ...] = ()
    check_complete: bool = True  # False: the integrity check ran into its time limit
    warnings: tuple[str, ...] = ()


class RowSpan(NamedTuple):
    """The oldest or the newest row: its batch, its first numbers, when it arrived."""

    batch: int
    event_first: int
    result_first: int
    arrival_wall_ms: int


COMMIT_US_BOUNDS = (100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000)


@dataclass(frozen=True)
class StoreStatistics:
    """One look at the store, for health and metrics. Counters start with the process."""

    units: int
    oldest: RowSpan | None
    newest: RowSpan | None
    file_bytes: int
    free_bytes: int  # inside the file, reused before it grows
    wal_bytes: int
    budget_bytes: int
    checkpoints: int
    evicted_events: int
    evicted_results: int
    evicted_unsent_results: int
    commit_us: tuple[int, ...]  # commits up to each of COMMIT_US_BOUNDS, not cumulative; one more for all above
    commit_us_sum: int
    trouble: str  # code of the fault that is being retried, or ""
    unsent: dict[str, int]  # numbers that wait to go home, by stream; without a receiver: results the broker has not
    tombstones: int
    summary_rows: int  # what is kept of rows that were given up
    summary_bytes: int
    protected_bytes: int  # about what the surroundings of alarms hold
    bytes_per_day: float  # stored, at the rate of the last day or since the start
    days_of_room: float | None  # until what is not home fills the budget at that rate; None when it is not known
