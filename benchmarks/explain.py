"""Why a figure was missed, as far as the run itself can tell. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from benchmarks.figures import FSYNC_KEY, Figure
from benchmarks.rounds import Round

MICROSECONDS_PER_S = 1e6


def needs_profile(rows: Sequence[Figure]) -> bool:
    """Whether a figure was missed that the daemon's CPU time explains."""
    return any(each.holds is False and each.row.key.startswith(("rate_", "cpu_")) for each in rows)


def explain(rows: Sequence[Figure], extras: Sequence[Figure], rounds: Sequence[Round], cores: int) -> list[str]:
    """One sentence per fact that bears on a missed figure; none when everything holds."""
    missed = {each.row.key for each in rows if each.holds is False}
    facts: list[str] = []
    if any(key.startswith("rate_") for key in missed):
        facts += _broker_ceiling(rounds)
    if "p99_ms_at_1000" in missed:
        facts += [
            f"p99: the disk alone takes {each.value:.2g} ms (p99) to make 4 KiB durable, and every turn waits for that"
            for each in extras
            if each.row.key == FSYNC_KEY and each.value is not None
        ]
    if missed:
        facts += _busy_machine(rounds, cores)
    return facts


def _broker_ceiling(rounds: Sequence[Round]) -> list[str]:
    """The broker is one thread: its time per message bounds every contestant."""
    pairs = [
        (samples["edged", "saturated"].broker_cpu_us, samples["node_red", "saturated"].rate_per_s)
        for samples in rounds
        if ("edged", "saturated") in samples and ("node_red", "saturated") in samples
    ]
    if not pairs:
        return []
    broker_us, node_red = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
    ceiling = MICROSECONDS_PER_S / broker_us
    limit = f"{ceiling:,.0f} msg/s, {ceiling / node_red:.1f} × Node-RED"
    return [f"rates: the broker is one thread and spends {broker_us:.0f} µs per message: nobody passes {limit} here"]


def _busy_machine(rounds: Sequence[Round], cores: int) -> list[str]:
    loads = [sample.load_average for samples in rounds for sample in samples.values()]
    if not loads or max(loads) <= cores:
        return []
    return [f"the machine: load average {min(loads):.1f} to {max(loads):.1f} on {cores} cores: others were at work too"]
