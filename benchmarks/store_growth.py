"""Does the store slow down as it fills? Insert rate with millions of stored rows, against an empty store.

Drives `edged.store` itself, without broker and model: units of 100 events with their results, one in flight, as the
daemon commits them. A row is an event with its result. Page cache warm on both sides, fsync on both sides.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import uvloop

from benchmarks.micro_store import TEMPLATES, template, writer_thread
from benchmarks.native import NotMeasured

BATCH = 100
SAMPLE_UNITS = 1500
PAIRS_PER_ROUND = 2
BYTES_PER_ROW = 600  # generous: an event with its result takes about half of that


def insert_ratios(workdir: Path, stored_rows: int, rounds: int) -> list[float]:
    """Insert rate with `stored_rows` ÷ insert rate at zero, once per pair of neighbouring runs.

    Raises:
        NotMeasured: the disk has no room for so many rows.
    """
    needed_bytes, free_bytes = stored_rows * BYTES_PER_ROW, shutil.disk_usage(workdir).free
    if free_bytes < needed_bytes:
        raise NotMeasured(f"{stored_rows:,} rows need {needed_bytes / 1e9:.1f} GB, the disk has {free_bytes / 1e9:.1f}")
    templates = [template(seed, BATCH) for seed in range(TEMPLATES)]
    full = workdir / "store-full"

    def rate(folder: Path, units: int) -> float:
        done = uvloop.run(writer_thread(folder, templates, BATCH, units))
        return units * BATCH / done.seconds

    filled = rate(full, stored_rows // BATCH)
    print(f"store: {stored_rows:,} rows inserted at {filled:,.0f}/s", flush=True)
    os.sync()  # what filling left to be written must not be charged to the first sample
    ratios = []
    for number in range(rounds * PAIRS_PER_ROUND):
        empty = workdir / f"store-empty-{number}"
        if number % 2:
            at_zero, at_full = rate(empty, SAMPLE_UNITS), rate(full, SAMPLE_UNITS)
        else:
            at_full, at_zero = rate(full, SAMPLE_UNITS), rate(empty, SAMPLE_UNITS)
        shutil.rmtree(empty)
        print(f"  at zero {at_zero:8,.0f}/s  full {at_full:8,.0f}/s  ratio {at_full / at_zero:.2f}", flush=True)
        ratios.append(at_full / at_zero)
    shutil.rmtree(full)
    return ratios
