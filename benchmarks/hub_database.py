"""What a batch costs the hub: decoding it, and committing it to PostgreSQL or SQLite, with one worker and with four.

    python -m benchmarks.hub_database [--rows 400000] [--batch 4000] [--workers 1 4] [--dir DIR] [--json]

PostgreSQL is a cluster of its own with fsync on and shares the processor with the workers; each worker process
decodes and commits the batches of a gateway of its own. Medians of three rounds, each in a new database.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import uvloop

from edged.hub.database.opening import migrate, open_database
from edged.hub.ports import Batch
from edged.messages import ResultColumns, ResultContext
from edged.sync.envelope import open_body, read_header, seal
from edged.sync.piece import Piece
from tests.doubles.postgres import Postgres

BOOT = "2f1f2a8e-6a2a-4b39-8f0a-000000000001"
CONTEXT = ResultContext("pump", "bearing", "3", "ab" * 32, "onnxruntime:cpu", "normal", False, "synced", BOOT)
ROUNDS = 3


class Figures(NamedTuple):
    """Of one worker, or of all of them together."""

    rows_s: float
    decode_us_row: float
    commit_us_row: float


def sealed(gateway: str, first: int, n: int) -> bytes:
    """A batch as it travels: 50 devices, ten results a call, labels and scores that vary."""
    chance = random.Random(first)
    seqs = range(first, first + n)
    labels = [chance.choices(("ok", "cavitation", "bearing"), (90, 6, 4))[0] for _ in seqs]
    scores = [round(chance.random(), 6) for _ in seqs]
    rows = ResultColumns(
        contexts=[CONTEXT],
        context=[0] * n,
        device=[f"hall-{seq % 50}" for seq in seqs],
        topic=[f"plant/hall/pump/{seq % 50}" for seq in seqs],
        event_seq=list(seqs),
        in_seq=[seq // 50 for seq in seqs],
        ts=[1_790_000_000_000 + seq * 7 for seq in seqs],
        produced=[1_790_000_000_003 + seq // 10 * 70 for seq in seqs],
        mono_ns=[seq // 10 * 70_000_000 + 12_345 for seq in seqs],
        label=list(labels),
        score=list(scores),
        values=[{"ok": score, "cavitation": round(1 - score, 6)} for score in scores],
        queue_us=[120 + seq // 10 % 40 for seq in seqs],
        infer_us=[400 + seq // 10 % 30 for seq in seqs],
        quality=[192] * n,
        reasons=[()] * n,
    )
    piece = Piece("result", "epoch-1", 1, first, first + n - 1, BOOT, "synced", rows, None)
    return seal(piece, site="lyon", gateway=gateway)[1]


def work(url: str, payloads: list[bytes]) -> tuple[float, float, float, float]:
    """Decode and commit all of them: begin, end, seconds decoding, seconds committing."""
    return uvloop.run(_work(url, payloads))


async def _work(url: str, payloads: list[bytes]) -> tuple[float, float, float, float]:
    database = await open_database(url)
    decode_s = commit_s = 0.0
    begin = time.perf_counter()
    for payload in payloads:
        start = time.perf_counter()
        header, body = read_header(payload)
        rows, lost = open_body(header, body)
        decoded = time.perf_counter()
        ack = await database.commit(Batch(header, rows, lost))
        assert ack.status == "ok", ack
        decode_s += decoded - start
        commit_s += time.perf_counter() - decoded
    end = time.perf_counter()
    await database.close()
    return begin, end, decode_s, commit_s


def measure(urls: list[str], workers: int, rows: int, batch: int) -> Figures:
    """Medians over one round in each of these empty databases."""
    rounds = [_round(url, workers, rows, batch) for url in urls]
    return Figures(*(round(statistics.median(column), 2) for column in zip(*rounds, strict=True)))


def _round(url: str, workers: int, rows: int, batch: int) -> Figures:
    asyncio.run(migrate(url))
    share = rows // workers
    loads = [[sealed(f"gw-{worker}", first, batch) for first in range(1, share, batch)] for worker in range(workers)]
    total = sum(map(len, loads)) * batch
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(work, [url] * workers, [[]] * workers))  # processes are up, programs are loaded
        done = list(pool.map(work, [url] * workers, loads))
    begins, ends, decodes, commits = zip(*done, strict=True)
    wall_s = max(ends) - min(begins)
    return Figures(total / wall_s, sum(decodes) / total * 1e6, sum(commits) / total * 1e6)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=400_000)
    arguments.add_argument("--batch", type=int, default=4_000)
    arguments.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    arguments.add_argument("--dir", type=Path, help="where the SQLite file lies")
    arguments.add_argument("--json", action="store_true")
    chosen = arguments.parse_args()
    found: dict[str, Figures] = {}
    cluster = Postgres().start()
    try:
        for workers in chosen.workers:
            urls = [cluster.url(cluster.database()) for _ in range(ROUNDS)]
            found[f"postgres, {workers} worker(s)"] = measure(urls, workers, chosen.rows, chosen.batch)
    finally:
        cluster.remove()
    with tempfile.TemporaryDirectory(dir=chosen.dir) as folder:
        for workers in chosen.workers:
            urls = [f"sqlite:///{folder}/{workers}-{round_}.db" for round_ in range(ROUNDS)]
            found[f"sqlite, {workers} worker(s)"] = measure(urls, workers, chosen.rows, chosen.batch)
    if chosen.json:
        json.dump({name: figures._asdict() for name, figures in found.items()}, sys.stdout, indent=1)
        return
    print(f"{'':24}{'rows/s':>10}{'decode µs/row':>16}{'commit µs/row':>16}")
    for name, figures in found.items():
        print(f"{name:24}{figures.rows_s:10.0f}{figures.decode_us_row:16.2f}{figures.commit_us_row:16.2f}")


if __name__ == "__main__":
    main()
