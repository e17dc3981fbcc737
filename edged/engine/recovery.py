"""From a stored snapshot and what was committed after it to the state of the moment the last process ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edged.engine.snapshot import State, unfold

if TYPE_CHECKING:
    from edged.engine.devices import Devices
    from edged.engine.engine import Engine
    from edged.ingest.sequence import Gap
    from edged.ports import Journal

CHUNK_ROWS = 2000
REPLAY_LIMIT_EVENTS = 500_000  # without a usable snapshot: older duplicates are no longer recognised, which is counted
_FAR_FUTURE_MS = 1 << 62


class Recovery(NamedTuple):
    """What the restart found. gaps: missing numbers whose report did not make it into the store."""

    snapshot_used: bool
    replayed_events: int
    replayed_results: int
    gaps: list[Gap]


async def recover(
    engine: Engine, journal: Journal, devices: Devices, snapshot: tuple[int, bytes] | None, now_ms: int
) -> Recovery:
    """Fold what is stored. Pipelines are left lagging at their cursor; `CatchUp` brings them up to date."""
    state = unfold(snapshot[1]) if snapshot is not None else None
    newest = engine.next_event - 1
    _restore(engine, state, newest, now_ms)
    first = state.event_seq + 1 if state else max(1, newest - REPLAY_LIMIT_EVENTS)
    devices.restore(state.devices if state else {}, now_ms)
    events = await _replay_events(engine, journal, devices, first, newest, now_ms)
    results = await _replay_results(engine, journal, state.result_seq + 1 if state else 1)
    told = await _told_gaps(journal, state.batch if state else 0)
    gaps = [
        gap
        for source in engine.parts.intake.sources.values()
        for gap in source.tracker.expire(_FAR_FUTURE_MS)
        if (gap.device, gap.first, gap.last, gap.kind) not in told
    ]
    return Recovery(state is not None, events, results, gaps)


def _restore(engine: Engine, state: State | None, newest: int, now_ms: int) -> None:
    done = engine.parts.meta.done
    for name, source in engine.parts.intake.sources.items():
        if state is not None and (blob := state.trackers.get(name)) is not None:
            source.tracker.load(blob, now_ms)
    for runner in engine.parts.runners:
        # A pipeline that is new in the configuration begins with the next event, not with history.
        runner.answered_up_to = done.get(runner.name, newest)
        stored = state.runners.get(runner.name) if state is not None else None
        if stored is not None and runner.load(stored):
            continue
        if state is None and runner.name in done:
            runner.cursor = max(0, newest - REPLAY_LIMIT_EVENTS)
        else:
            runner.cursor = runner.answered_up_to


async def _replay_events(
    engine: Engine, journal: Journal, devices: Devices, first: int, newest: int, now_ms: int
) -> int:
    """Show every stored event to its tracker again. The verdicts are known: all of them were accepted."""
    sources = engine.parts.intake.sources
    replayed = 0
    while first <= newest and (groups := await journal.read_events(first, CHUNK_ROWS)):
        for group in groups:
            rows = group.columns
            devices.seen(rows.device, now_ms, group.arrival_wall_ms)
            for name, device, topic, ts, in_seq, boot, flags, payload in zip(
                rows.source, rows.device, rows.topic, rows.ts, rows.in_seq, rows.boot, rows.flags, rows.payload,
                strict=True,
            ):  # fmt: skip
                source = sources.get(name)
                if source is None:
                    continue
                own_ts = None if flags & 1 else ts
                if in_seq is not None:
                    source.tracker.admit(device, boot, in_seq, own_ts, now_ms)
                else:
                    source.tracker.admit_unnumbered(device, topic, own_ts, payload)
            replayed += len(rows.source)
            first = group.first_seq + len(rows.source)
    return replayed


async def _replay_results(engine: Engine, journal: Journal, first: int) -> int:
    """Calibration and alarms follow from the results; show them again."""
    runners = {runner.name: runner for runner in engine.parts.runners}
    newest = engine.next_result - 1
    first = max(first, newest - REPLAY_LIMIT_EVENTS)
    replayed = 0
    while first <= newest and (groups := await journal.read_results(first, CHUNK_ROWS)):
        for group in groups:
            rows = group.columns
            for index, device, ts, label, score, values in zip(
                rows.context, rows.device, rows.ts, rows.label, rows.score, rows.values, strict=True
            ):
                runner = runners.get(rows.contexts[index].pipeline)
                if runner is not None:
                    runner.refold(device, ts, label, score, values)
            replayed += len(rows.context)
            first = group.first_seq + len(rows.context)
    return replayed


async def _told_gaps(journal: Journal, after_batch: int) -> set[tuple[str | None, int, int, str]]:
    """Gaps that are in the store as notices, so that none is reported a second time as if it were new."""
    told = set()
    while groups := await journal.read_notices(after_batch, CHUNK_ROWS):
        for group in groups:
            after_batch = group.batch
            for notice in group.notices:
                if notice.topic == "gap":
                    body = msgspec.json.decode(notice.payload)
                    told.add((body["device"], body["from"], body["to"], body["kind"]))
    return told
