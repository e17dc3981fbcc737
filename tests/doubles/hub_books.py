"""What is in the hub's database against what the gateway made: rows, tombstones, nothing missing, nothing double."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import datetime
from typing import Any, NamedTuple

Json = dict[str, Any]
Key = tuple[str, int]
"""Epoch and number."""

SHOWN = 10


class HubBooks:
    """Asks the database itself, not the hub. url: as in the hub's configuration; of one gateway."""

    def __init__(self, url: str, site: str = "plant", gateway: str = "gw") -> None:
        self._url = url
        self.path = url.removeprefix("sqlite:///")  # of a SQLite database
        self._whose = f"site = '{site}' AND gateway = '{gateway}'"

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        if self._url.startswith("sqlite://"):
            with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=20)) as connection:
                return connection.execute(query).fetchall()
        return asyncio.run(_ask_postgres(self._url, query))

    def results(self) -> list[tuple[Any, ...]]:
        """(epoch, seq, device, label, score, quality, input seq, values)."""
        columns = "epoch, seq, device, label, score, quality, input_seq, values"
        if self._url.startswith("sqlite://"):
            columns = columns.replace("values", '"values"')
        return self.ask(f"SELECT {columns} FROM results WHERE {self._whose} ORDER BY epoch, seq")

    def count(self) -> int:
        """Results that are home."""
        return int(self.ask(f"SELECT count(*) FROM results WHERE {self._whose}")[0][0])

    @staticmethod
    def time_s(value: Any) -> float:
        """A column of the views that holds a time, as Unix seconds."""
        if isinstance(value, datetime):
            return value.timestamp()
        return value / 1000 if isinstance(value, int) else datetime.fromisoformat(value).timestamp()

    def tombstones(self, stream: str = "result") -> list[tuple[str, int, int, str]]:
        """(epoch, first, last, reason)."""
        query = f"SELECT epoch, seq, last_seq, reason FROM tombstones WHERE {self._whose} AND stream = '{stream}'"
        return [tuple(row) for row in self.ask(f"{query} ORDER BY epoch, seq")]

    def ledger(self) -> dict[tuple[str, str], Json]:
        """(epoch, stream) → base, made, rows, tombstoned, quarantined, missing."""
        columns = ("base", "made", "rows", "tombstoned", "quarantined", "missing")
        found = self.ask(f"SELECT epoch, stream, {', '.join(columns)} FROM ledger WHERE {self._whose}")
        return {(epoch, stream): dict(zip(columns, map(int, rest), strict=True)) for epoch, stream, *rest in found}

    def records(self, kind: str) -> list[Json]:
        """Payloads of the records of this kind, in the order of their numbers."""
        query = f"SELECT payload FROM records WHERE {self._whose} AND kind = '{kind}' ORDER BY epoch, stream, seq"
        return [json.loads(row[0]) for row in self.ask(query)]


async def _ask_postgres(url: str, query: str) -> list[tuple[Any, ...]]:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


class Account(NamedTuple):
    """problems: in words, empty when rows home ÷ (rows made + tombstoned) is 1 exactly and nothing is there twice."""

    made: int
    rows: int
    tombstoned: int
    problems: list[str]


def account(hub: HubBooks, extents: dict[str, tuple[int, int]], published: Iterable[Json]) -> Account:
    """Compare results. extents: epoch → first and last number that the gateway made. published: what SCADA got."""
    rows = hub.results()
    times = Counter((str(row[0]), int(row[1])) for row in rows)
    tombstones = Counter(
        (epoch, seq) for epoch, first, last, _ in hub.tombstones() for seq in range(first, last + 1)
    )  # fmt: skip
    made = {(epoch, seq) for epoch, (first, last) in extents.items() for seq in range(first, last + 1)}
    problems = [
        *(f"{key} is home {n} times" for key, n in times.items() if n > 1),
        *(f"{key} has {n} tombstones" for key, n in tombstones.items() if n > 1),
        *(f"{key} is home and has a tombstone" for key in times.keys() & tombstones.keys()),
        *(f"{key} is neither home nor given up" for key in sorted(made - times.keys() - tombstones.keys())),
        *(f"{key} was never made" for key in sorted((times.keys() | tombstones.keys()) - made)),
        *_changed(rows, published),
    ]
    shown = [*problems[:SHOWN], *([f"... {len(problems)} in all"] if len(problems) > SHOWN else [])]
    return Account(len(made), len(times), len(tombstones), shown)


def _changed(rows: Iterable[tuple[Any, ...]], published: Iterable[Json]) -> Iterator[str]:
    """Rows that say something else than what was published under the same number."""
    said = {(result["epoch"], result["seq"]): result for result in published}
    for epoch, seq, device, label, score, quality, input_seq, values in rows:
        result = said.get((epoch, seq))
        if result is None:
            continue
        home = (device, label, score, quality, input_seq, json.loads(values) if isinstance(values, str) else values)
        there = tuple(result[name] for name in ("device", "label", "score", "quality"))
        if home != (*there, result["input"]["seq"], result["values"]):
            yield f"{(epoch, seq)} says {home} at the hub, {result} was published"
