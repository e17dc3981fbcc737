"""What was made under which number, and what the receiver has: the truth that a store is held against."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import msgspec

from edged.messages import EventColumns, Notice, RecordColumns, ResultColumns, TelemetryColumns, Unit
from edged.store.summary import Summary
from edged.sync import ranges
from edged.sync.protocol import STREAMS, Lost, Stream
from edged.sync.ranges import Ranges
from tests.doubles.clock import FakeClock
from tests.unit.store.samples import events, results

Content = tuple[object, ...]


def contents(columns: ResultColumns | TelemetryColumns | RecordColumns) -> list[Content]:
    """One value per row, with everything that belongs to it."""
    if isinstance(columns, ResultColumns):
        shared = [msgspec.structs.astuple(columns.contexts[i]) for i in columns.context]
        fields = [getattr(columns, name) for name in columns.__struct_fields__[2:]]
        return list(zip(shared, *fields, strict=True))
    return list(zip(*(getattr(columns, name) for name in columns.__struct_fields__), strict=True))


class Ledger:
    """Numbers go on from epoch to epoch, so that a number alone finds its row.

    rows: what was made. epoch: of each number. home: what the receiver has. lost: what was said to be lost.
    """

    def __init__(self) -> None:
        self.rows: dict[Stream, dict[int, Content]] = {stream: {} for stream in STREAMS}
        self.epoch: dict[Stream, dict[int, str]] = {stream: {} for stream in STREAMS}
        self.home: dict[Stream, Ranges] = dict.fromkeys(STREAMS, ())
        self.lost: dict[Stream, dict[int, str]] = {stream: {} for stream in STREAMS}
        self.units: list[tuple[int, Unit]] = []
        """(batch, unit), as committed."""

    def copy(self) -> Ledger:
        twin = Ledger()
        twin.rows, twin.epoch, twin.lost = copy.deepcopy((self.rows, self.epoch, self.lost))
        twin.home, twin.units = dict(self.home), list(self.units)
        return twin

    def next(self, stream: Stream) -> int:
        return max(self.rows[stream], default=0) + 1

    def committed(self, batch: int, unit: Unit, epoch: str) -> None:
        self.units.append((batch, unit))
        when = (unit.arrival_wall_ms, unit.arrival_mono_ns, unit.boot, unit.clock)
        if unit.results is not None:
            self._made("result", unit.result_first, contents(unit.results), epoch)
        if unit.events is not None:
            fields = (getattr(unit.events, name) for name in EventColumns.__struct_fields__)
            self._made("telemetry", unit.event_first, [(*row, *when) for row in zip(*fields, strict=True)], epoch)
        for notice in unit.notices:
            if notice.stream:
                self._made(
                    "alarm" if notice.stream == "alarm" else "health",
                    notice.seq,
                    [(notice.kind, *when, notice.payload)],
                    epoch,
                )

    def _made(self, stream: Stream, first: int, rows: list[Content], epoch: str) -> None:
        for seq, row in enumerate(rows, first):
            self.rows[stream][seq] = row
            self.epoch[stream][seq] = epoch

    def arrived(self, stream: Stream, first: int, last: int) -> None:
        self.home[stream] = ranges.add(self.home[stream], first, last)

    def is_home(self, stream: Stream, seq: int) -> bool:
        return ranges.covers(self.home[stream], seq, seq)

    def summary(self, stream: Stream, first: int, last: int, interval_s: int) -> Summary:
        """What the summary of these numbers must say."""
        summary = Summary(interval_s)
        for _, unit in self.units:
            if stream == "result" and unit.results is not None:
                low, high = _overlap(unit.result_first, len(unit.results.context), first, last)
                summary.add_results(unit.results, low, high)
            elif stream == "telemetry" and unit.events is not None:
                low, high = _overlap(unit.event_first, len(unit.events.source), first, last)
                summary.add_events(unit.events, low, high)
        return summary

    def around_alarms(self, around_ns: int) -> set[int]:
        """Batches that arrived so close to a unit with an alarm, of the same boot."""
        alarms = [unit for _, unit in self.units if any(notice.stream == "alarm" for notice in unit.notices)]
        return {
            batch
            for batch, unit in self.units
            if any(
                unit.boot == alarm.boot and abs(unit.arrival_mono_ns - alarm.arrival_mono_ns) <= around_ns
                for alarm in alarms
            )
        }

    def check_lost(self, stream: Stream, first: int, last: int, lost: Lost) -> None:
        """A tombstone as the receiver hears it: reason known, summary as counted again from what was made."""
        for seq in range(first, last + 1):
            if not self.is_home(stream, seq):
                assert lost.reason in ("budget", "refused"), (stream, seq, lost.reason)
                self.lost[stream].setdefault(seq, lost.reason)
        if lost.interval_s:
            expected = self.summary(stream, first, last, lost.interval_s).rows()
            assert [(*row[:5], row.labels) for row in map(_as_tuple, lost.summary)] == [
                (*row[:5], row.labels) for row in map(_as_tuple, expected)
            ], (stream, first, last)


class _Told(tuple[Any, ...]):
    labels: dict[str, int]


def _as_tuple(row: Any) -> _Told:
    told = _Told((row.name, row.device, row.start_ms, row.n, row.worst))
    told.labels = row.labels
    return told


def _overlap(begin: int, n: int, first: int, last: int) -> tuple[int, int]:
    """Entries of a unit that lie in first..last."""
    low = max(first, begin) - begin
    return low, max(low, min(last + 1, begin + n) - begin)


def make_unit(ledger: Ledger, rng: Random, clock: FakeClock, *, alarm: bool) -> Unit:
    """Something that a daemon could commit next; no two lives make the same rows."""
    n_events = rng.choice([0, 1, 5, 12, 25])
    n_results = rng.choice([0, 1, 5, 12, 25]) if n_events else rng.choice([0, 0, 2])
    event, result = ledger.next("telemetry"), ledger.next("result")
    made_events = events(event, n_events, noise=rng.choice([0, 60]))
    made_events.ts = [clock.wall_ms() + i for i in range(n_events)]
    made_events.in_seq = [rng.getrandbits(30) for _ in range(n_events)]
    made_results = results(result, n_results)
    made_results.ts = [clock.wall_ms() + i for i in range(n_results)]
    made_results.mono_ns = [rng.getrandbits(40) for _ in range(n_results)]
    notices = []
    if alarm:
        payload = b'{"n":%d}' % rng.getrandbits(30)
        notices.append(Notice("alarm/x", payload, stream="alarm", seq=ledger.next("alarm"), kind="alarm"))
    for i in range(rng.choice([0, 0, 0, 1, 3])):
        payload = b'{"n":%d}' % rng.getrandbits(30)
        seq = ledger.next("health") + i
        notices.append(Notice("gap/x", payload, stream="health", seq=seq, kind="gap", plant=i == 0))
    return Unit(
        event_first=event,
        result_first=result,
        events=made_events if n_events else None,
        results=made_results if n_results else None,
        notices=notices,
        meta=b'{"n":%d}' % rng.getrandbits(30),
        arrival_wall_ms=clock.wall_ms(),
        arrival_mono_ns=clock.mono_ns(),
        boot=clock.boot_id,
        clock="synced",
    )
