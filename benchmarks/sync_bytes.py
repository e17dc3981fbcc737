"""Bytes and CPU µs per result on the way home, for real results: SKAB through broker and daemon.

    python -m benchmarks.sync_bytes [--json]

Two replays: as fast as the broker takes it, and one event after the other, so that each result has times of its own.
Thread CPU time, the best of several rounds: what the code costs, not what else the machine was doing.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from edged.messages import ResultColumns
from edged.sync.columns import decode_rows, encode_rows
from edged.sync.envelope import open_body, read_header, seal
from edged.sync.piece import Piece
from tests.realdata.stored import pieces, skab_results

SHARED_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
REPLAYS: dict[str, dict[str, Any]] = {"fast": {}, "400 a second": {"events": 6_000, "per_s": 400.0}}
SIZES = (200, 2_000, 5_000)
ROUNDS = 5


def cost_us(act: Callable[[], object], rows: int) -> float:
    """Best CPU time of one row over the rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.thread_time_ns()
        act()
        best = min(best, time.thread_time_ns() - begun)
    return best / rows / 1000


def measure(rows: ResultColumns, size: int) -> dict[str, float]:
    """Figures per row over all full batches of `size` rows."""
    batches = [piece for piece in pieces(rows, size) if piece.last - piece.first + 1 == size]
    count = size * len(batches)
    plain = [encode_rows("result", _rows(piece)) for piece in batches]
    sealed = [_sealed(piece) for piece in batches]
    as_json = [msgspec.json.encode(piece.rows) for piece in batches]
    head = sum(len(payload) - len(read_header(payload)[1]) for payload in sealed)
    return {
        "rows": count,
        "plain_bytes": sum(map(len, plain)) / count,
        "zstd1_bytes": (head + sum(len(zstandard.compress(text, 1)) for text in plain)) / count,
        "zstd3_bytes": sum(map(len, sealed)) / count,
        "gzip_bytes": sum(len(seal(piece, site="s", gateway="g", encoding="gzip")[1]) for piece in batches) / count,
        "json_zstd3_bytes": sum(len(zstandard.compress(text, 3)) for text in as_json) / count,
        "encode_us": cost_us(lambda: [encode_rows("result", _rows(piece)) for piece in batches], count),
        "decode_us": cost_us(lambda: [decode_rows("result", text, size) for text in plain], count),
        "seal_us": cost_us(lambda: [_sealed(piece) for piece in batches], count),
        "open_us": cost_us(lambda: [open_body(*read_header(payload)) for payload in sealed], count),
    }


def _rows(piece: Piece) -> ResultColumns:
    assert isinstance(piece.rows, ResultColumns)
    return piece.rows


def _sealed(piece: Piece) -> bytes:
    return seal(piece, site="s", gateway="g")[1]


def main(arguments: list[str]) -> None:
    if not SHARED_DATA.is_dir():
        sys.exit(f"real data sets are absent: expected {SHARED_DATA.name} beside the repository")
    figures: dict[str, dict[int, dict[str, float]]] = {}
    for name, how in REPLAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            rows = skab_results(SHARED_DATA, Path(folder), **how)
        figures[name] = {size: measure(rows, size) for size in SIZES}
    if "--json" in arguments:
        print(json.dumps(figures))
        return
    for name, by_size in figures.items():
        for size, row in by_size.items():
            shown = "  ".join(f"{key} {value:.2f}" for key, value in row.items())
            print(f"{name:13} {size:5} a batch: {shown}")


if __name__ == "__main__":
    main(sys.argv[1:])
