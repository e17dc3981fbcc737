"""What keeping, ageing and giving back cost the hot path of the store, without broker, model and hub.

    python -m benchmarks.store_retention growth [--rows 10000000] [--rounds 5]
    python -m benchmarks.store_retention drain [--rows 1000000] [--rounds 5]
    python -m benchmarks.store_retention pressure [--rounds 5]

growth    insert rate with so many results stored that are not home, ÷ with none; interleaved
drain     so many results come home at once; `trim` is called as the daemon does it while messages keep coming at
          1000/s, one unit in flight: the longest that a unit waited beyond the usual, the longest that the event loop
          stood still, and what the file has given back to the disk
pressure  insert rate with a full budget, where each commit ages rows into summaries, ÷ without; the longest commit

Stalls are taken from handing a unit in until it is durable: waiting behind a step of trimming counts. A machine with
other work stalls by itself: the same load without anything to trim stands beside, as `quiet`, and the figure is the
least of the rounds. What the program does comes in each of them; all rounds are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import uvloop

from benchmarks.micro_store import BUDGET_BYTES, TEMPLATES, template
from benchmarks.sync_rig import conclude, main, quantile
from edged.engine.upkeep import TICK_S
from edged.messages import Unit
from edged.ops.clock import SystemClock
from edged.ports import Committed
from edged.store import OpenedStore, StoreSettings, open_store

GROWTH_MUST = 0.9
STALL_MUST_MS = 50.0
MESSAGES_PER_S = 1000
DRAIN_LIMIT_S = 120.0
HOME_EVERY_S = 0.5
REST_S = 5.0  # without a smaller file: it is over
DIFFERENCE_BYTES = 1_000_000
PRESSURE_BUDGET_BYTES = 64_000_000
PRIORITY = -15
BATCH = 100
FIRST_MS = 1_790_000_000_000
SPACING_MS = 1  # event time goes on as the messages come: so many minutes, so many summaries
SLICE_UNITS = 50
SLICES = 10
BYTES_PER_ROW = 300  # generous


async def opened(folder: Path, budget_bytes: int = BUDGET_BYTES) -> OpenedStore:
    """A store whose results must go home; the plant's broker has had them, and the events are answered and folded."""
    store = await open_store(
        StoreSettings(folder, budget_bytes=budget_bytes),
        clock=SystemClock(),
        on_trouble=lambda *trouble: print(trouble, flush=True),
        on_failure=lambda error: sys.exit(f"{type(error).__name__}: {error}"),
    )
    store.journal.outward_streams = frozenset(("alarm", "health", "result"))
    return store


class Source:
    """Hands in units whose numbers follow, and keeps the cursors of the plant's side where the daemon has them."""

    def __init__(self, store: OpenedStore) -> None:
        self.journal = store.journal
        self.event, self.result = store.recovered.next_event, store.recovered.next_result

    def submit(self, unit: Unit, n: int, done: Callable[[Committed], None]) -> None:
        unit.event_first, unit.result_first = self.event, self.result
        assert unit.results is not None
        unit.results.ts = [FIRST_MS + seq * SPACING_MS for seq in range(self.result, self.result + n)]
        if unit.events is not None:
            unit.events.ts = unit.results.ts
            self.event += n
        self.result += n
        self.journal.submit(unit, done)
        self.journal.delivered_upto, self.journal.answered_upto = self.result - 1, self.event - 1


async def insert(source: Source, templates: list[Unit], units: int) -> tuple[float, list[float]]:
    """Units of the usual size; see `insert_units`."""
    return await insert_units(source, templates, BATCH, units)


async def insert_units(source: Source, templates: list[Unit], n: int, units: int) -> tuple[float, list[float]]:
    """Units of `n` rows, each handed in when the one before is durable: (seconds, ms of each)."""
    finished = asyncio.Event()
    each_ms: list[float] = []
    begun = last = time.perf_counter()

    def done(_committed: Committed) -> None:
        nonlocal last
        now = time.perf_counter()
        each_ms.append((now - last) * 1e3)
        last = now
        if len(each_ms) < units:
            source.submit(templates[len(each_ms) % TEMPLATES], n, done)
        else:
            finished.set()

    source.submit(templates[0], n, done)
    await finished.wait()
    return time.perf_counter() - begun, each_ms


async def aging(source: Source, templates: list[Unit], units: int) -> tuple[float, list[float]]:
    """As `insert`, with the trimming and the snapshots that belong to it."""
    source.journal.trim()
    taken = await insert(source, templates, units)
    await source.journal.save_snapshot(source.event - 1, b"folded")
    return taken


class Pairs(NamedTuple):
    """Slices of the same work in two stores, one right after the other: a slow moment of the machine hits both."""

    ratios: list[float]
    """Rate of the first store ÷ rate of the second."""
    longest_ms: tuple[list[float], list[float]]
    """Of each store, by round."""


async def compare(one: Source, folder: Path, rounds: int) -> Pairs:
    """`one` against an empty and roomy store, new in each round."""
    templates = [template(seed, BATCH) for seed in range(TEMPLATES)]
    ratios: list[float] = []
    longest: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        store = await opened(folder / f"empty-{number}")
        pair = one, Source(store)
        for each in longest:
            each.append(0.0)
        for which in range(2 * SLICES):  # the first of a round warms the caches up
            took = [0.0, 0.0]
            for index in (0, 1) if which % 2 else (1, 0):
                took[index], each_ms = await aging(pair[index], templates, SLICE_UNITS)
                longest[index][-1] = max(longest[index][-1], *each_ms)
            if which:
                ratios.append(took[1] / took[0])
        await store.journal.close()
        shutil.rmtree(folder / f"empty-{number}")
    return Pairs(ratios, longest)


def spread(ratios: list[float]) -> dict[str, object]:
    """How sure a median is."""
    low, _, high = statistics.quantiles(ratios, n=4)
    return {"pairs": len(ratios), "quartiles": [round(low, 3), round(high, 3)]}


# --- growth ---


async def grown(folder: Path, rows: int, rounds: int) -> Pairs:
    store = await opened(folder / "full")
    source = Source(store)
    begun = time.perf_counter()
    await insert(source, [template(seed, BATCH) for seed in range(TEMPLATES)], rows // BATCH)
    await store.journal.save_snapshot(source.event - 1, b"folded")
    print(f"{rows:,} rows inserted at {rows / (time.perf_counter() - begun):,.0f}/s", flush=True)
    os.sync()  # what filling left to be written must not be charged to the first slice
    pairs = await compare(source, folder, rounds)
    await store.journal.close()
    return pairs


def growth(workdir: Path, rows: int, rounds: int) -> int:
    needed_bytes, free_bytes = rows * BYTES_PER_ROW, shutil.disk_usage(workdir).free
    if free_bytes < needed_bytes:
        raise SystemExit(f"{rows:,} rows need {needed_bytes / 1e9:.1f} GB, the disk has {free_bytes / 1e9:.1f}")
    pairs = uvloop.run(grown(workdir, rows, rounds))
    return conclude(
        "insert rate with unsent rows ÷ with none", statistics.median(pairs.ratios), GROWTH_MUST, "", at_least=True,
        rows=rows, **spread(pairs.ratios),
    )  # fmt: skip


# --- drain ---


@dataclass
class Waits:
    """Milliseconds from handing a unit in until it was durable, and from a turn of the loop to the next beyond plan."""

    units_ms: list[float] = field(default_factory=list)
    loop_ms: list[float] = field(default_factory=list)

    def usual_ms(self) -> float:
        return statistics.median(self.units_ms)


class Hotpath:
    """Messages come at a steady rate; what has come while a unit was on its way is the next one, as in the daemon."""

    def __init__(self, source: Source) -> None:
        self.waits = Waits()
        self.stopping = False
        self._source = source
        self._templates: dict[int, Unit] = {}
        self._flying = False
        self._waiting = 0

    async def run(self) -> None:
        """Until `stopping` is set and nothing is on its way."""
        trim_due = due = time.perf_counter()
        while self._flying or not self.stopping:
            due += 1 / MESSAGES_PER_S
            pause_s = due - time.perf_counter()
            asked = time.perf_counter() + max(0.0, pause_s)
            await asyncio.sleep(max(0.0, pause_s))
            now = time.perf_counter()
            self.waits.loop_ms.append((now - asked) * 1e3)
            self._waiting += 1
            self._pump()
            if now >= trim_due:
                trim_due = now + TICK_S
                self._source.journal.trim()

    def _pump(self) -> None:
        if self._flying or not self._waiting or self.stopping:
            return
        n, self._waiting = self._waiting, 0
        self._flying = True
        begun = time.perf_counter()

        def done(_committed: Committed) -> None:
            self.waits.units_ms.append((time.perf_counter() - begun) * 1e3)
            self._flying = False
            self._pump()

        if n not in self._templates:
            self._templates[n] = template(n, n)
        self._source.submit(self._templates[n], n, done)


def on_disk(folder: Path) -> int:
    """Bytes that database and WAL take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.glob("store.db*"))


async def drained(folder: Path, rows: int) -> dict[str, float]:
    """One round: fill, then everything comes home, then as long again with nothing left to give back."""
    store = await opened(folder)
    source = Source(store)

    async def home() -> None:
        """Everything that was made is folded and home: the live rows of a link that is back as well."""
        last = source.result - 1
        await store.journal.save_snapshot(source.event - 1, b"folded")
        store.journal.set_synced("result", ((1, last),))

    await insert(source, [template(seed, BATCH) for seed in range(TEMPLATES)], rows // BATCH)
    before = on_disk(folder)
    path = Hotpath(source)
    feeding = asyncio.create_task(path.run())
    begun = shrunk = time.perf_counter()
    smallest = before
    while (now := time.perf_counter()) < min(shrunk + REST_S, begun + DRAIN_LIMIT_S):
        await home()
        await asyncio.sleep(HOME_EVERY_S)
        if (size := on_disk(folder)) < smallest - DIFFERENCE_BYTES:
            smallest, shrunk = size, time.perf_counter()
    draining, path.waits = path.waits, Waits()
    took_s = now - begun
    while time.perf_counter() < now + took_s:
        await home()
        await asyncio.sleep(HOME_EVERY_S)
    path.stopping = True
    await feeding
    quiet, after = path.waits, on_disk(folder)
    await store.journal.close()
    return {
        "stall_ms": max(draining.units_ms) - quiet.usual_ms(),
        "loop_ms": max(draining.loop_ms),
        "p999_ms": quantile(draining.units_ms, 0.999),
        "quiet_stall_ms": max(quiet.units_ms) - quiet.usual_ms(),
        "quiet_loop_ms": max(quiet.loop_ms),
        "quiet_p999_ms": quantile(quiet.units_ms, 0.999),
        "usual_ms": quiet.usual_ms(),
        "before_mb": before / 1e6,
        "after_mb": after / 1e6,
        "seconds": shrunk - begun,
    }


def drain(workdir: Path, rows: int, rounds: int) -> int:
    found = []
    for number in range(rounds):
        folder = workdir / f"drain-{number}"
        found.append(uvloop.run(drained(folder, rows)))
        shutil.rmtree(folder)
        print("  " + "  ".join(f"{name} {value:,.1f}" for name, value in found[-1].items()), flush=True)
    stalls = sorted(max(one["stall_ms"], one["loop_ms"]) for one in found)
    quiet = sorted(max(one["quiet_stall_ms"], one["quiet_loop_ms"]) for one in found)
    middle = {name: round(statistics.median(one[name] for one in found), 2) for name in found[0]}
    return conclude(
        "longest stall while a drained file is given back", stalls[0], STALL_MUST_MS, "ms", at_least=False,
        rows=rows, stalls_ms=[round(one, 1) for one in stalls], quiet_stalls_ms=[round(one, 1) for one in quiet],
        **middle,
    )  # fmt: skip


# --- pressure ---


async def pressed(folder: Path, rounds: int) -> tuple[Pairs, dict[str, float]]:
    store = await opened(folder / "full", PRESSURE_BUDGET_BYTES)
    source = Source(store)
    templates = [template(seed, BATCH) for seed in range(TEMPLATES)]
    while not (await store.journal.statistics()).evicted_unsent_results:
        await aging(source, templates, SLICE_UNITS)
    before = (await store.journal.statistics()).evicted_unsent_results
    pairs = await compare(source, folder, rounds)
    after = await store.journal.statistics()
    facts = {
        "rows_aged": after.evicted_unsent_results - before,
        "summary_rows": after.summary_rows,
        "summary_mb": round(after.summary_bytes / 1e6, 2),
        "on_disk_mb": round(on_disk(folder / "full") / 1e6, 1),
        "budget_mb": PRESSURE_BUDGET_BYTES / 1e6,
    }
    await store.journal.close()
    return pairs, facts


def pressure(workdir: Path, _rows: int, rounds: int) -> int:
    pairs, facts = uvloop.run(pressed(workdir, rounds))
    full_ms, roomy_ms = map(min, pairs.longest_ms)
    return conclude(
        "longest commit while rows age into summaries", full_ms, STALL_MUST_MS, "ms", at_least=False,
        rate_ratio=round(statistics.median(pairs.ratios), 3), roomy_longest_ms=round(roomy_ms, 1),
        longest_ms=[round(one, 1) for one in pairs.longest_ms[0]],
        **spread(pairs.ratios), **facts,
    )  # fmt: skip


FIGURES = {"growth": (growth, 10_000_000), "drain": (drain, 1_000_000), "pressure": (pressure, 0)}


def measure_one() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=FIGURES)
    parser.add_argument("--rows", type=int, help="results that are not home")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, help="a folder on the disk to measure; by default the temporary one")
    options = parser.parse_args()
    with contextlib.suppress(PermissionError):  # what else runs on this machine would not run on a gateway
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    figure, rows = FIGURES[options.figure]
    with tempfile.TemporaryDirectory(prefix="edged-retention-", dir=options.dir) as folder:
        return figure(Path(folder), options.rows or rows, options.rounds)


if __name__ == "__main__":
    main(measure_one)
