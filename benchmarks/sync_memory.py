"""What ten million unsent rows cost in memory: daemon and uplink child together, with them − without.

    python -m benchmarks.sync_memory [--rows 10000000]

Proportional set size (PSS) of both processes: first idle, with everything home and the caches warm, then at its highest
while the backlog stands and while it drains.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path

from benchmarks.processes import family
from benchmarks.sync_rig import backlog, conclude, fill, gateway, home, main
from tests.doubles.upstream_site import UpstreamSite
from tests.doubles.waiting import until

MUST_MB = 20.0
WARM_ROWS = 3_000_000  # pools and caches that any load fills, with or without a backlog, are full by then
DRAINED_ROWS = 1_500_000
SETTLE_S = 5.0


def pss_mb(pid: int) -> dict[int, float]:
    """Proportional set size of a process and its descendants, in MB."""
    found = {}
    for member in family(pid):
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it has ended
        found[member] = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6
    return found


def shares(found: dict[int, float]) -> str:
    """Daemon and child, as they add up."""
    return "(" + " + ".join(f"{value:.1f}" for value in found.values()) + ")"


class Watch:
    """Highest sum seen while the block runs."""

    def __init__(self, site: UpstreamSite) -> None:
        self._site = site
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.highest_mb = 0.0

    def _look(self) -> None:
        while not self._over.wait(0.25):
            self.highest_mb = max(self.highest_mb, sum(pss_mb(self._site.daemon.pid).values()))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def measure() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    options = parser.parse_args()
    with gateway() as site:
        until(lambda: "upstream_away" not in site.daemon.codes(), "the gateway is welcomed")
        with Watch(site) as loaded:
            fill(site, WARM_ROWS)  # the same load with the link whole: what it takes has nothing to do with a backlog
            until(site.is_home, site.explain("everything is home"), 120, every_s=0.5)
        time.sleep(SETTLE_S)
        idle = pss_mb(site.daemon.pid)
        with Watch(site) as standing, backlog(site, options.rows):
            time.sleep(SETTLE_S)
            still = pss_mb(site.daemon.pid)
            before = home(site)
        with Watch(site) as draining:
            wanted = before + min(options.rows, DRAINED_ROWS)
            until(
                lambda: home(site) >= wanted,
                site.explain("it drains"),
                300,
                every_s=0.5,
            )
    rest_mb, still_mb = sum(idle.values()), sum(still.values())
    print(f"idle {rest_mb:.1f} MB {shares(idle)}, under the same load without backlog {loaded.highest_mb:.1f} MB")
    print(f"with the backlog: filling {standing.highest_mb:.1f}, standing {still_mb:.1f} {shares(still)},", end=" ")
    print(f"draining at most {draining.highest_mb:.1f} MB")
    more_mb = max(still_mb, draining.highest_mb) - rest_mb
    return conclude(
        "daemon memory with a backlog − idle", more_mb, MUST_MB, "MB", at_least=False,
        idle_mb=round(rest_mb, 1), standing_mb=round(still_mb, 1), draining_mb=round(draining.highest_mb, 1),
        filling_mb=round(standing.highest_mb, 1), loaded_mb=round(loaded.highest_mb, 1),
    )  # fmt: skip


if __name__ == "__main__":
    main(measure)
