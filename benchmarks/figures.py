"""The table: which figure must reach what, how it follows from the rounds, and whether the run passes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from benchmarks.rounds import Round, Sample

FromRound = Callable[[Round], float | None]


@dataclass(frozen=True)
class Row:
    """One line of the table. must: the gate, None where there is none; aim: what we would like."""

    key: str
    title: str
    unit: str
    better: Literal["more", "less"]
    must: float | None
    aim: float
    from_round: FromRound | None = None  # None: the value comes from elsewhere

    def reached(self, value: float, limit: float) -> bool:
        """Whether `value` is as good as `limit` or better."""
        return value >= limit if self.better == "more" else value <= limit


@dataclass(frozen=True)
class Figure:
    """A row with what was measured; value None: not measured. note: how this run differs from what the row says."""

    row: Row
    value: float | None
    rounds: tuple[float, ...] = ()
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the must is met; None: not measured, or there is no must."""
        if self.value is None or self.row.must is None:
            return None
        return self.row.reached(self.value, self.row.must)

    @property
    def reaches_aim(self) -> bool | None:
        """Whether the aim is met; None: not measured."""
        return None if self.value is None else self.row.reached(self.value, self.row.aim)

    def as_json(self) -> dict[str, object]:
        """The form of benchmarks/results/latest.json."""
        return {
            "title": self.row.title,
            "unit": self.row.unit,
            "better": self.row.better,
            "value": None if self.value is None else round(self.value, 4),
            "must": self.row.must,
            "aim": self.row.aim,
            "holds": self.holds,
            "reaches_aim": self.reaches_aim,
            "rounds": [round(value, 4) for value in self.rounds],
            "note": self.note,
        }


def quantity(contestant: str, load: str, of: Callable[[Sample], float]) -> FromRound:
    """`of` that contestant's sample under that load."""

    def from_round(samples: Round) -> float | None:
        sample = samples.get((contestant, load))
        return None if sample is None else of(sample)

    return from_round


def ratio(over: FromRound, under: FromRound) -> FromRound:
    """`over` ÷ `under`, both of the same round: what disturbs the machine disturbs both."""

    def from_round(samples: Round) -> float | None:
        numerator, denominator = over(samples), under(samples)
        return None if numerator is None or not denominator else numerator / denominator

    return from_round


def _rate(contestant: str) -> FromRound:
    return quantity(contestant, "saturated", lambda sample: sample.rate_per_s)


def _cpu(contestant: str) -> FromRound:
    return quantity(contestant, "saturated", lambda sample: sample.cpu_us)


def _p50(contestant: str) -> FromRound:
    return quantity(contestant, "steady_1000", lambda sample: sample.p50_us)


P99_MS = quantity("edged", "steady_1000", lambda sample: sample.p99_us / 1e3)
DISK = quantity("edged_linger", "steady_5000", lambda sample: sample.written_bytes)
RESIDENT = quantity("edged", "steady_1000", lambda sample: sample.resident_mb)  # after the saturation run

GROWTH_KEY, FEATURES_KEY, FSYNC_KEY = "insert_rate_full_vs_empty", "full_features", "fsync_p99_ms"

ROWS: tuple[Row, ...] = (
    Row("rate_vs_c_raw", "durable rate ÷ C raw echo", "×", "more", 0.5, 0.8, ratio(_rate("edged"), _rate("c_raw"))),
    Row(
        "rate_vs_libmosquitto", "durable rate ÷ libmosquitto C echo", "×", "more", 1.0, 1.5,
        ratio(_rate("edged"), _rate("libmosquitto")),
    ),
    Row(
        "rate_vs_node_red", "durable rate ÷ Node-RED (not durable)", "×", "more", 5, 8,
        ratio(_rate("edged"), _rate("node_red")),
    ),
    Row("cpu_us_saturated", "CPU per message at saturation", "µs", "less", 25, 15, _cpu("edged")),
    Row("p99_ms_at_1000", "p99 at 1000 msg/s, linger 0, durable", "ms", "less", 3, 2, P99_MS),
    Row("disk_bytes_at_5000", "disk bytes per message, 5000 msg/s, linger 5 ms", "B", "less", 1100, 600, DISK),
    Row("resident_mb", "resident memory, one small model", "MB", "less", 90, 75, RESIDENT),
    Row(GROWTH_KEY, "insert rate at 10 million stored rows ÷ at zero", "×", "more", 0.9, 1.0),
    Row(FEATURES_KEY, "full features included in all of the above", "yes", "more", 1, 1),
)  # fmt: skip

# Not in the gate: they explain the rows above, or are aims only.
EXTRAS: tuple[Row, ...] = (
    Row(
        "ceiling_vs_node_red", "C raw echo ÷ Node-RED: about what this broker lets anybody reach", "×", "more", None, 8,
        ratio(_rate("c_raw"), _rate("node_red")),
    ),
    Row(FSYNC_KEY, "p99 of 4 KiB and fdatasync on this disk, nothing else", "ms", "less", None, 2),
    Row("p50_vs_c_raw", "p50 at 1000 msg/s ÷ C raw echo", "×", "less", None, 5, ratio(_p50("edged"), _p50("c_raw"))),
    Row(
        "cpu_vs_node_red", "CPU per message at saturation ÷ Node-RED", "×", "less", None, 0.06,
        ratio(_cpu("edged"), _cpu("node_red")),
    ),
    Row(
        "rate_vs_naive_python", "durable rate ÷ naive Python daemon", "×", "more", None, 100,
        ratio(_rate("edged"), _rate("naive_python")),
    ),
    Row(
        "rate_linger_vs_c_raw", "durable rate with linger 5 ms ÷ C raw echo", "×", "more", None, 0.8,
        ratio(_rate("edged_linger"), _rate("c_raw")),
    ),
)  # fmt: skip


def figure(row: Row, rounds: Sequence[Round]) -> Figure:
    """The median over the rounds in which the row could be computed."""
    if row.from_round is None:
        return Figure(row, None)
    values = tuple(value for samples in rounds if (value := row.from_round(samples)) is not None)
    return Figure(row, median(values), values) if values else Figure(row, None)


def figures(rows: Sequence[Row], rounds: Sequence[Round], elsewhere: Sequence[Figure] = ()) -> list[Figure]:
    """All rows in order; `elsewhere` holds those that do not come from the rounds."""
    given = {each.row.key: each for each in elsewhere}
    return [given.get(row.key) or figure(row, rounds) for row in rows]


def given_figure(key: str, values: Sequence[float], note: str = "") -> Figure:
    """The row `key` with values that do not come from the rounds; the median counts."""
    row = next(row for row in (*ROWS, *EXTRAS) if row.key == key)
    return Figure(row, median(values) if values else None, tuple(values), note)


def undelivered(rounds: Sequence[Round], contestant_prefix: str) -> tuple[int, int]:
    """(lost, duplicated) results of the contestants whose name begins so; a fast daemon that loses is not fast."""
    samples = [
        sample for samples in rounds for (name, _), sample in samples.items() if name.startswith(contestant_prefix)
    ]
    return sum(sample.lost for sample in samples), sum(sample.duplicates for sample in samples)


def passes(table: Sequence[Figure], lost: int) -> bool:
    """The gate: something was measured, every measured must holds, and nothing was lost."""
    verdicts = [each.holds for each in table if each.holds is not None]
    return bool(verdicts) and all(verdicts) and lost == 0
