"""What a durable message costs: everything in the writer thread, or only COMMIT; in empty and in full stores.

    python -m benchmarks.micro_store [--json] [--quick] [--rows 1000000] [--dir DIR]

A message is one event of about 220 bytes JSON with its result; one unit is in flight at a time, as in the daemon. Modes
are interleaved, the medians of the rounds are printed. Disk bytes are `write_bytes` of /proc/self/io with every
checkpoint: what the process made the page cache write, without the file system's own journal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import apsw
import uvloop

from edged.messages import EventColumns, ResultColumns, ResultContext, Unit
from edged.ops.clock import SystemClock
from edged.ports import Committed
from edged.store import StoreSettings, open_store
from edged.store.commit import Numbers, RowCommitter
from edged.store.database import close_clean
from edged.store.place import free_bytes
from edged.store.startup import start

BUDGET_BYTES = 40_000_000_000
BOOT = "2f1f2a8e-6a2a-4b39-8f0a-000000000001"
CONTEXT = ResultContext("pump", "bearing", "3", "ab" * 32, "onnxruntime:cpu", "normal", False, "synced", BOOT)
UNITS = {1: 3000, 25: 2000, 100: 800, 1000: 150}
TEMPLATES = 8


@dataclass
class Round:
    """One run of one mode."""

    seconds: float
    cpu_s: float
    loop_cpu_s: float
    disk_bytes: int
    commit_us: list[int]


# --- the load ---


def payload(seq: int, chance: random.Random) -> bytes:
    event = {
        "ts": 1_790_000_000_000 + seq * 7, "seq": seq, "boot": "b1",
        "accel_rms": round(chance.gauss(2, 0.3), 4), "current_a": round(chance.gauss(12, 1), 3),
        "temp_c": round(chance.gauss(60, 2), 2), "vib": [round(chance.gauss(0, 1), 3) for _ in range(8)],
        "status": "run",
    }  # fmt: skip
    return json.dumps(event).encode()


def template(seed: int, n: int) -> Unit:
    chance = random.Random(seed)
    seqs = range(seed * n, seed * n + n)
    device = [f"lyon-{seq % 50}" for seq in seqs]
    topic = [f"plant/lyon/pump/{seq % 50}" for seq in seqs]
    ts = [1_790_000_000_000 + seq * 7 for seq in seqs]
    scores = [round(chance.random(), 6) for _ in seqs]
    events = EventColumns(
        ["pump"] * n, device, topic, ts, list(seqs), ["b1"] * n, [0] * n, [payload(seq, chance) for seq in seqs]
    )
    results = ResultColumns(
        [CONTEXT], [0] * n, device, topic, list(seqs), list(seqs), ts, [t + 3 for t in ts],
        [seq * 1_000_003 for seq in seqs], ["ok"] * n, list(scores),
        [{"ok": score, "cavitation": round(chance.random(), 6), "bearing": round(1 - score, 6)} for score in scores],
        [chance.randrange(200, 3000) for _ in seqs], [chance.randrange(30, 90) for _ in seqs], [192] * n, [()] * n,
    )  # fmt: skip
    meta = {"ledger": {f"term_{i}": seed * 7919 + i for i in range(12)}, "sent": seed, "done": {"pump": seed}}
    meta_json = json.dumps(meta).encode()
    return Unit(1, 1, events, results, [], meta_json, ts[0], 12_345_678_901, BOOT, "synced")


# --- the modes ---


async def writer_thread(folder: Path, templates: list[Unit], n: int, units: int) -> Round:
    """The product: encoding, statements and COMMIT in the writer thread."""
    store = await open_store(
        StoreSettings(folder, budget_bytes=BUDGET_BYTES),
        clock=SystemClock(),
        on_trouble=lambda *trouble: print(trouble, file=sys.stderr),
        on_failure=lambda error: sys.exit(str(error)),
    )
    event, result = store.recovered.next_event, store.recovered.next_result

    def submit(index: int, done: Callable[[Committed], None]) -> None:
        unit = templates[index % TEMPLATES]
        unit.event_first, unit.result_first = event + index * n, result + index * n
        store.journal.submit(unit, done)

    return await measure(units, submit, store.journal.close)


async def commit_only(folder: Path, templates: list[Unit], n: int, units: int) -> Round:
    """Encoding and statements on the loop, only COMMIT in a thread."""
    clock = SystemClock()
    started = await asyncio.to_thread(start, StoreSettings(folder, budget_bytes=BUDGET_BYTES), clock, free_bytes)
    connection, limits = started.connection, started.limits
    committer = RowCommitter(started.path, limits, clock, int, free_bytes)
    loop = asyncio.get_running_loop()
    queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
    wal_pages = 0
    batch, event, result = started.recovered.next_batch, started.recovered.next_event, started.recovered.next_result

    def note_wal(_connection: apsw.Connection, _name: str, pages: int) -> int:
        nonlocal wal_pages
        wal_pages = pages
        return apsw.SQLITE_OK

    def run() -> None:
        while (answer := queue.get()) is not None:
            connection.execute("COMMIT")
            loop.call_soon_threadsafe(answer)
            if wal_pages >= limits.wal_pages:
                connection.wal_checkpoint()

    def submit(index: int, done: Callable[[Committed], None]) -> None:
        begun_ns = clock.mono_ns()
        unit = templates[index % TEMPLATES]
        numbers = Numbers(batch + index, event + index * n, n, result + index * n, n, 0)
        segment = committer.encode(unit)
        connection.execute("BEGIN IMMEDIATE")
        committed = committer.apply(numbers, unit, connection, segment)
        queue.put(lambda: done(committed._replace(commit_us=(clock.mono_ns() - begun_ns) // 1000)))

    async def close() -> None:
        queue.put(None)
        await asyncio.to_thread(thread.join)
        await asyncio.to_thread(close_clean, connection)
        started.lock.release()

    connection.set_wal_hook(note_wal)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return await measure(units, submit, close)


async def measure(units: int, submit: Callable[[int, Callable[[Committed], None]], None], close: Any) -> Round:
    """Submit unit after unit, each when the one before is durable; disk bytes include bringing everything home."""
    finished = asyncio.Event()
    commit_us: list[int] = []

    def done(committed: Committed) -> None:
        commit_us.append(committed.commit_us)
        if len(commit_us) < units:
            submit(len(commit_us), done)
        else:
            finished.set()

    disk, cpu, loop_cpu, begun = written_bytes(), time.process_time(), time.thread_time(), time.perf_counter()
    submit(0, done)
    await finished.wait()
    seconds = time.perf_counter() - begun
    cpu_s, loop_cpu_s = time.process_time() - cpu, time.thread_time() - loop_cpu
    await close()
    return Round(seconds, cpu_s, loop_cpu_s, written_bytes() - disk, commit_us)


MODES = {"writer thread": writer_thread, "COMMIT only": commit_only}


def written_bytes() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["write_bytes"])


# --- the tables ---


def figures(rounds: list[Round], messages: int) -> dict[str, float]:
    """Medians over the rounds, per message."""

    def median(value: Callable[[Round], float]) -> float:
        return statistics.median(map(value, rounds))

    def percentile(round_: Round, share: float) -> float:
        return sorted(round_.commit_us)[int(len(round_.commit_us) * share)] / 1000

    return {
        "messages_per_s": round(median(lambda r: messages / r.seconds)),
        "cpu_us": round(median(lambda r: r.cpu_s / messages * 1e6), 2),
        "loop_cpu_us": round(median(lambda r: r.loop_cpu_s / messages * 1e6), 2),
        "commit_p50_ms": round(median(lambda r: percentile(r, 0.5)), 2),
        "commit_p99_ms": round(median(lambda r: percentile(r, 0.99)), 2),
        "disk_bytes": round(median(lambda r: r.disk_bytes / messages)),
    }


def compare_modes(base: Path, rounds: int, scale: float) -> list[dict[str, Any]]:
    rows = []
    for n, full in UNITS.items():
        units = max(20, int(full * scale))
        templates = [template(seed, n) for seed in range(TEMPLATES)]
        taken: dict[str, list[Round]] = {mode: [] for mode in MODES}
        for _ in range(rounds):
            for mode, run in MODES.items():
                folder = Path(tempfile.mkdtemp(dir=base))
                taken[mode].append(uvloop.run(run(folder, templates, n, units)))
                shutil.rmtree(folder)
        rows += [{"batch": n, "mode": mode, **figures(taken[mode], units * n)} for mode in MODES]
    return rows


def prefill(folder: Path, rows: int) -> None:
    """`rows` small journal rows, one event and one result each, written without waiting for the disk."""
    started = start(StoreSettings(folder, budget_bytes=BUDGET_BYTES), SystemClock(), free_bytes)
    connection = started.connection
    committer = RowCommitter(started.path, started.limits, SystemClock(), int, free_bytes)
    blob = committer.pack(b"x" * 60)
    connection.pragma("synchronous", "OFF")
    for first in range(1, rows + 1, 100_000):
        with connection:
            connection.executemany(
                "INSERT INTO journal VALUES (?1,?1,1,?1,1,0,1790000000000,1,'boot','synced',?2,NULL,?2,?2)",
                ((seq, blob) for seq in range(first, min(first + 100_000, rows + 1))),
            )
        connection.wal_checkpoint()
    connection.pragma("synchronous", "FULL")
    close_clean(connection)
    started.lock.release()


def compare_fill(base: Path, stored: int, rounds: int, scale: float) -> list[dict[str, Any]]:
    """Insert rate with `stored` rows in the store and with none, interleaved."""
    full = base / "full"
    prefill(full, stored)
    rows = []
    for n in (1, 25):
        units = max(20, int(UNITS[n] * scale))
        templates = [template(seed, n) for seed in range(TEMPLATES)]
        taken: dict[int, list[Round]] = {0: [], stored: []}
        for _ in range(rounds):
            empty = Path(tempfile.mkdtemp(dir=base))
            taken[0].append(uvloop.run(writer_thread(empty, templates, n, units)))
            taken[stored].append(uvloop.run(writer_thread(full, templates, n, units)))
            shutil.rmtree(empty)
        both = {rows_before: figures(done, units * n) for rows_before, done in taken.items()}
        ratio = statistics.median(
            none.seconds / many.seconds for none, many in zip(taken[0], taken[stored], strict=True)
        )
        rows += [{"batch": n, "stored_rows": count, **values} for count, values in both.items()]
        rows[-1]["ratio"] = round(ratio, 3)
    shutil.rmtree(full)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    lines += ["| " + " | ".join(str(row.get(name, "")) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rows", type=int, default=1_000_000, help="stored rows to compare with an empty store")
    parser.add_argument("--dir", type=Path, help="a folder on the disk to measure; by default the temporary one")
    chosen = parser.parse_args()
    rounds, scale = (1, 0.2) if chosen.quick else (5, 1.0)
    base = Path(tempfile.mkdtemp(prefix="edged-micro-store-", dir=chosen.dir))
    try:
        modes = compare_modes(base, rounds, scale)
        fill = compare_fill(base, chosen.rows, rounds, scale) if chosen.rows else []
    finally:
        shutil.rmtree(base)
    if chosen.json:
        print(json.dumps({"sqlite": apsw.sqlite_lib_version(), "modes": modes, "fill": fill}))
    else:
        print(f"SQLite {apsw.sqlite_lib_version()}; per message: one event with its result\n")
        print(table(modes))
        if fill:
            print(f"\nwriter thread, {chosen.rows} rows stored before, or none\n\n{table(fill)}")


if __name__ == "__main__":
    main()
