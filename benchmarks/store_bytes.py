"""What a row takes on the disk, whole, without its raw event, and as a summary: the figures of docs/reference/store.md.

    python -m benchmarks.store_bytes [--rows 20000]

An event of about 220 bytes JSON with its result, as in `micro_store`; in units of 1, 10 and 100, because a unit has
books of its own (about 400 bytes JSON) and rows of one unit are compressed together.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import uvloop

from benchmarks.micro_store import TEMPLATES, template
from benchmarks.store_retention import Source, insert_units, opened
from edged.messages import ResultColumns, Unit
from edged.store.segment import Packer
from edged.store.summary import HOUR_S, MINUTE_S, Summary

UNITS = (1, 10, 100)
SECONDS_PER_DAY = 86_400


async def taken(folder: Path, n: int, rows: int, *, with_events: bool) -> float:
    """Bytes of the file for each row."""
    store = await opened(folder)
    source = Source(store)
    templates = [template(seed, n) for seed in range(TEMPLATES)]
    if not with_events:
        for unit in templates:
            unit.events = None
    await insert_units(source, templates, n, rows // n)
    statistics = await store.journal.statistics()
    await store.journal.close()
    return (statistics.file_bytes - statistics.free_bytes) / rows


def summary_bytes(interval_s: int) -> float:
    """Packed bytes of one row of a summary: one device and one interval, whatever the number of results."""
    summary = Summary(interval_s)
    for seed in range(200):
        results = _results(template(seed, 100))
        results.ts = [ts + seed * interval_s * 1000 for ts in results.ts]
        summary.add_results(results, 0, 100)
    rows = summary.rows()
    return len(Packer().pack(rows[:4000])) / len(rows[:4000])


def _results(unit: Unit) -> ResultColumns:
    assert unit.results is not None
    return unit.results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    rows = parser.parse_args().rows
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="edged-bytes-") as folder:
        for n in UNITS:
            for name, with_events in (("whole", True), ("stripped", False)):
                where = Path(folder) / f"{name}-{n}"
                found[f"{name}_{n}"] = uvloop.run(taken(where, n, rows, with_events=with_events))
    found["minute"], found["hour"] = summary_bytes(MINUTE_S), summary_bytes(HOUR_S)
    for name, size in found.items():
        print(f"{name:14} {size:8,.1f} bytes")
    print(json.dumps({name: round(size, 1) for name, size in found.items()}))


if __name__ == "__main__":
    main()
