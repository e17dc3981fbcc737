"""How quickly a backlog comes home: loopback, real daemon, mosquitto, hub on PostgreSQL, fsync everywhere.

    python -m benchmarks.sync_drain [--rows 500000] [--workers 1 4] [--rounds 3]

Rows per second from the moment the link is whole again until the last row is committed, greeting and slow start
included; medians of the rounds. Gateway, brokers, hub and database share one machine.
"""

from __future__ import annotations

import argparse
import statistics
import time

from benchmarks.sync_rig import backlog, conclude, gateway, home, main
from tests.doubles.upstream_site import QUICK
from tests.doubles.waiting import until

MUST_ROWS_S = 20_000


def drain(rows: int, workers: int) -> float:
    """Rows per second with so many workers."""
    upstream = QUICK.replace("rate_limit_kbit_s = 1000000", "rate_limit_kbit_s = 10000000")
    with gateway(workers=workers, upstream=upstream) as site:
        until(lambda: "upstream_away" not in site.daemon.codes(), "the gateway is welcomed")
        with backlog(site, rows):
            before = home(site)
        begun = time.monotonic()
        until(lambda: home(site) - before >= rows, site.explain("the backlog is home"), 60 + rows / 2000, every_s=0.05)
        rate = rows / (time.monotonic() - begun)
        ledger = site.books.ledger()
        assert all(books["missing"] == 0 for books in ledger.values()), ledger
    print(f"{workers} worker{'s' if workers > 1 else ''}: {rate:,.0f} rows/s", flush=True)
    return rate


def measure() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rates: dict[int, list[float]] = {workers: [] for workers in options.workers}
    for _ in range(options.rounds):
        for workers, measured in rates.items():
            measured.append(drain(options.rows, workers))
    medians = {workers: statistics.median(measured) for workers, measured in rates.items()}
    first = options.workers[0]
    ratios = {f"{n} workers ÷ {first}": round(rate / medians[first], 2) for n, rate in medians.items() if n != first}
    return conclude(
        "backlog drain", max(medians.values()), MUST_ROWS_S, "rows/s", at_least=True,
        rows_s={workers: round(rate) for workers, rate in medians.items()}, **ratios,
    )  # fmt: skip


if __name__ == "__main__":
    main(measure)
