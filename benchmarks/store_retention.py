"""What keeping, ageing and giving back cost the hot path of the store, without broker, model and hub.

    python -m benchmarks.store_retention growth [--rows 10000000] [--rounds 3]
    python -m benchmarks.store_retention drain [--rows 1000000] [--rounds 3]
    python -m benchmarks.store_retention pressure [--rounds 3]

growth    insert rate with so many results stored that are not home, ÷ with none; interleaved
drain     so many results come home at once; `trim` is called as the daemon does it while messages keep coming at 1000/s,
          one unit in flight: the longest that a unit waited beyond the usual, the longest that the event loop stood
          still, and what the file has given back to the disk
pressure  insert rate with a full budget, where each commit ages rows into summaries, ÷ without; the longest commit

Stalls are taken from handing a unit in until it is durable: waiting behind a step of trimming counts. The disk of a
shared machine stalls by itself: the same load without anything to trim stands beside, as `quiet`.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from benchmarks import store_growth
from benchmarks.micro_store import BUDGET_BYTES, TEMPLATES, Round, measure, template
from benchmarks.sync_rig import conclude, main, quantile
from edged.engine.upkeep import TICK_S
from edged.messages import Unit
from edged.ops.clock import SystemClock
from edged.ports import Committed
from edged.store import OpenedStore, StoreSettings, open_store

GROWTH_MUST = 0.9
STALL_MUST_MS = 50.0
MESSAGES_PER_S = 1000
QUIET_S = 10.0
DRAIN_LIMIT_S = 300.0
PRESSURE_BUDGET_BYTES = 64_000_000
PRESSURE_UNITS = 600
FILL_BATCH = 100


async def opened(folder: Path, budget_bytes: int = BUDGET_BYTES) -> OpenedStore:
    """A store whose results must go home; the plant's broker has had them, and the events are answered and folded."""
    store = await open_store(
        StoreSettings(folder, budget_bytes=budget_bytes),
        clock=SystemClock(),
        on_trouble=lambda *trouble: print(trouble, flush=True),
        on_failure=lambda error: print(error, flush=True),
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
        self.event, self.result = self.event + n, self.result + n
        self.journal.submit(unit, done)
        self.journal.delivered_upto, self.journal.answered_upto = self.result - 1, self.event - 1


async def unsent(folder: Path, templates: list[Unit], n: int, units: int, budget_bytes: int = BUDGET_BYTES) -> Round:
    """Unit after unit, each when the one before is durable; nothing of it goes home."""
    store = await opened(folder, budget_bytes)
    source = Source(store)
    due = time.monotonic()

    def submit(index: int, done: Callable[[Committed], None]) -> None:
        nonlocal due
        if (now := time.monotonic()) >= due:
            due = now + TICK_S
            store.journal.trim()
        source.submit(templates[index % TEMPLATES], n, done)

    return await measure(units, submit, store.journal.close)


# --- growth ---


def growth(workdir: Path, rows: int, rounds: int) -> int:
    ratios = store_growth.insert_ratios(workdir, rows, rounds, unsent)
    return conclude(
        "insert rate with unsent rows ÷ with none", statistics.median(ratios), GROWTH_MUST, "", at_least=True,
        rows=rows, ratios=[round(ratio, 3) for ratio in ratios],
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
        self._source = source
        self._templates: dict[int, Unit] = {}
        self._flying = False
        self._waiting = 0

    async def run(self) -> None:
        """Until it is cancelled."""
        trim_due = due = time.perf_counter()
        while True:
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
        if self._flying or not self._waiting:
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
    """One round: fill, run quietly, then everything is home."""
    store = await opened(folder)
    source = Source(store)
    fill = [template(seed, FILL_BATCH) for seed in range(TEMPLATES)]

    def submit(index: int, done: Callable[[Committed], None]) -> None:
        source.submit(fill[index % TEMPLATES], FILL_BATCH, done)

    async def stay() -> None:
        await store.journal.save_snapshot(source.event - 1, b"folded")

    await measure(rows // FILL_BATCH, submit, stay)
    path = Hotpath(source)
    feeding = asyncio.create_task(path.run())
    await asyncio.sleep(QUIET_S)
    quiet, path.waits = path.waits, Waits()
    before, last = on_disk(folder), source.result - 1
    await store.journal.save_snapshot(source.event - 1, b"folded")
    store.journal.set_synced("result", ((1, last),))
    begun = time.perf_counter()
    at_rest = 0
    while at_rest < 20 and time.perf_counter() - begun < DRAIN_LIMIT_S:  # five seconds without a page less
        size = on_disk(folder)
        await asyncio.sleep(TICK_S)
        at_rest = at_rest + 1 if on_disk(folder) >= size and on_disk(folder) < before // 2 else 0
    took_s = time.perf_counter() - begun - 20 * TICK_S
    feeding.cancel()
    await asyncio.gather(feeding, return_exceptions=True)
    waits, after = path.waits, on_disk(folder)
    await store.journal.close()
    return {
        "stall_ms": max(waits.units_ms) - quiet.usual_ms(),
        "loop_ms": max(waits.loop_ms),
        "p999_ms": quantile(waits.units_ms, 0.999),
        "quiet_stall_ms": max(quiet.units_ms) - quiet.usual_ms(),
        "quiet_loop_ms": max(quiet.loop_ms),
        "usual_ms": quiet.usual_ms(),
        "before_mb": before / 1e6,
        "after_mb": after / 1e6,
        "seconds": took_s,
    }


def drain(workdir: Path, rows: int, rounds: int) -> int:
    found = []
    for number in range(rounds):
        folder = workdir / f"drain-{number}"
        found.append(uvloop.run(drained(folder, rows)))
        shutil.rmtree(folder)
        print("  " + "  ".join(f"{name} {value:,.1f}" for name, value in found[-1].items()), flush=True)
    worst = {name: max(one[name] for one in found) for name in found[0]}
    return conclude(
        "longest stall while a drained file is given back", max(worst["stall_ms"], worst["loop_ms"]), STALL_MUST_MS,
        "ms", at_least=False, rows=rows, rounds=rounds, **{name: round(value, 2) for name, value in worst.items()},
    )  # fmt: skip


# --- pressure ---


def pressure(workdir: Path, _rows: int, rounds: int) -> int:
    templates = [template(seed, FILL_BATCH) for seed in range(TEMPLATES)]
    full, roomy = workdir / "full", workdir / "roomy"

    def run(folder: Path, units: int, budget_bytes: int) -> Round:
        return uvloop.run(unsent(folder, templates, FILL_BATCH, units, budget_bytes))

    run(full, PRESSURE_BUDGET_BYTES // (FILL_BATCH * 150), PRESSURE_BUDGET_BYTES)
    ratios: list[float] = []
    longest: dict[str, list[float]] = {"full": [], "roomy": []}
    for number in range(2 * rounds):
        stores = [("full", full, PRESSURE_BUDGET_BYTES), ("roomy", roomy, BUDGET_BYTES)]
        done = {name: run(folder, PRESSURE_UNITS, size) for name, folder, size in stores[:: 1 - 2 * (number % 2)]}
        ratios.append(done["roomy"].seconds / done["full"].seconds)
        for name, one in done.items():
            longest[name].append(max(one.commit_us) / 1000)
            print(f"  {name} {PRESSURE_UNITS * FILL_BATCH / one.seconds:,.0f}/s, longest {longest[name][-1]:.1f} ms")
    return conclude(
        "longest commit while rows age into summaries", max(longest["full"]), STALL_MUST_MS, "ms", at_least=False,
        rate_ratio=round(statistics.median(ratios), 3), ratios=[round(ratio, 3) for ratio in ratios],
        roomy_longest_ms=round(max(longest["roomy"]), 1), on_disk_mb=round(on_disk(full) / 1e6, 1),
        budget_mb=PRESSURE_BUDGET_BYTES / 1e6,
    )  # fmt: skip


FIGURES = {"growth": (growth, 10_000_000), "drain": (drain, 1_000_000), "pressure": (pressure, 0)}


def measure_one() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=FIGURES)
    parser.add_argument("--rows", type=int, help="results that are not home")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, help="a folder on the disk to measure; by default the temporary one")
    options = parser.parse_args()
    figure, rows = FIGURES[options.figure]
    with tempfile.TemporaryDirectory(prefix="edged-retention-", dir=options.dir) as folder:
        return figure(Path(folder), options.rows or rows, options.rounds)


if __name__ == "__main__":
    main(measure_one)
