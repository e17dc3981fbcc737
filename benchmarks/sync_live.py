"""Does a draining backlog disturb live results? p99 from event to result at the plant, draining ÷ idle.

    python -m benchmarks.sync_live [--rounds 4] [--seconds 10] [--rows 1500000]

500 events a second, in pairs of neighbouring runs: one without backlog, one while it drains over an unlimited line.
Hub, database and upstream broker run with the lowest priority, because they would be on another machine; the medians
of both kinds are compared.
"""

from __future__ import annotations

import argparse
import statistics

from benchmarks.sync_rig import backlog, conclude, gateway, home, main, plant_latency, yield_to_others
from tests.doubles.waiting import until

MUST = 1.5


def measure() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rows", type=int, default=2_000_000, help="backlog of each round")
    parser.add_argument("--kbit-s", type=int, default=1500, help="rate limit of the line home")
    options = parser.parse_args()
    idle, draining, rates = [], [], []
    # The centre's disk is not the gateway's: PostgreSQL must not make our commits wait for its own.
    upstream = f"rate_limit_kbit_s = {options.kbit_s}\nreconnect_spread_s = 0"
    with gateway(upstream=upstream, settings={"fsync": "off", "synchronous_commit": "off"}) as site:
        until(lambda: "upstream_away" not in site.daemon.codes(), "the gateway is welcomed")
        yield_to_others(site)
        plant_latency(site, 3)
        for number in range(options.rounds):
            quiet = plant_latency(site, options.seconds)
            with backlog(site, options.rows):
                before = home(site)
            until(lambda: home(site) > before + 1000, site.explain("the backlog drains"), 60)  # noqa: B023
            yield_to_others(site)
            first = home(site)
            busy = plant_latency(site, options.seconds)
            rates.append((home(site) - first) / (options.seconds + 1))
            assert home(site) - before < options.rows, "the backlog was home before the end: take a larger one (--rows)"
            idle.append(quiet["p99_us"] / 1000)
            draining.append(busy["p99_us"] / 1000)
            print(f"round {number + 1}: p99 {idle[-1]:.2f} ms idle, {draining[-1]:.2f} ms while draining;", end=" ")
            print(f"p50 {quiet['p50_us'] / 1000:.2f} and {busy['p50_us'] / 1000:.2f} ms;", end=" ")
            print(f"{rates[-1]:,.0f} rows/s drained, {quiet['lost'] + busy['lost']:.0f} results lost", flush=True)
            until(site.is_home, site.explain("everything is home"), 300, every_s=0.5)
    ratio = statistics.median(draining) / statistics.median(idle)
    return conclude(
        "live result p99, draining ÷ idle", ratio, MUST, "", at_least=False,
        idle_ms=round(statistics.median(idle), 3), draining_ms=round(statistics.median(draining), 3),
        drained_rows_s=round(statistics.median(rates)),
    )  # fmt: skip


if __name__ == "__main__":
    main(measure)
