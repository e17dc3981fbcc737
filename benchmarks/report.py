"""The run as text for people and as JSON for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from statistics import median

from benchmarks.contestants.contestant import Contestant
from benchmarks.figures import Figure, Row
from benchmarks.rounds import Outcome, Round, Sample

VERDICTS = {True: "holds", False: "MISSED", None: "–"}
Cells = tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """Everything that a run found out. rows: the table with its gate; extras: what explains it."""

    started: datetime
    plan: str
    machine: dict[str, object]
    contestants: Sequence[Contestant]
    outcome: Outcome
    rows: Sequence[Figure]
    extras: Sequence[Figure]
    lost: int
    duplicates: int
    facts: Sequence[str]  # that bear on missed figures
    profile: Mapping[str, float]  # function → CPU µs per message; empty when no figure asks for it

    def as_json(self) -> dict[str, object]:
        """The form of benchmarks/results/latest.json."""
        return {
            "date": self.started.isoformat(timespec="seconds"),
            "plan": self.plan,
            "machine": self.machine,
            "figures": {each.row.key: each.as_json() for each in self.rows},
            "extras": {each.row.key: each.as_json() for each in self.extras},
            "features": self.outcome.features,
            "delivery": {"lost": self.lost, "duplicates": self.duplicates},
            "facts": list(self.facts),
            "profile_cpu_us": dict(self.profile),
            "not_measured": [{"what": what, "why": why} for what, why in self.outcome.not_measured],
            "rounds": [_round_as_json(samples) for samples in self.outcome.rounds],
        }

    def as_text(self) -> str:
        """The tables that are printed at the end."""
        parts = [_contestants(self.contestants, self.outcome.rounds), _figures(self.rows), _figures(self.extras)]
        if self.lost:
            parts.append(f"LOST: {self.lost} results of the daemon did not come back")
        parts += [f"not measured: {what}: {why}" for what, why in self.outcome.not_measured]
        parts += self.facts
        if self.profile:
            lines = [f"{cpu_us:7.2f} µs  {place}" for place, cpu_us in self.profile.items()]
            parts.append("\n".join(["the daemon's CPU time per message at saturation, by function:", *lines]))
        return "\n\n".join(parts)

    def caption(self) -> str:
        """Where and when, in one line."""
        where = self.machine
        return f"{where['cpu']}, {where['cores']} cores, {where['kernel']}, {self.started:%Y-%m-%d}, {self.plan} run"


def number(value: float | None, unit: str = "") -> str:
    """Three significant digits, whole from 100 on; "yes" or "no" for the unit "yes"; a dash when not measured."""
    if value is None:
        return "–"
    if unit == "yes":
        return "yes" if value else "no"
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def limit_text(row: Row, limit: float | None) -> str:
    """The limit with its direction."""
    if limit is None or row.unit == "yes":
        return number(limit, row.unit)
    return f"{'≥' if row.better == 'more' else '≤'} {number(limit, row.unit)}"


def _figures(rows: Sequence[Figure]) -> str:
    lines: list[Cells] = [("figure", "value", "must", "aim", "", "rounds")]
    lines.extend(
        (
            each.row.title,
            number(each.value, each.row.unit),
            limit_text(each.row, each.row.must),
            limit_text(each.row, each.row.aim),
            VERDICTS[each.holds] + (", aim reached" if each.reaches_aim else ""),
            " ".join([*(number(value) for value in each.rounds), each.note]).strip(),
        )
        for each in rows
    )
    return _aligned(lines)


def _contestants(contestants: Sequence[Contestant], rounds: Sequence[Round]) -> str:
    """Every contestant under every load: medians over the rounds."""
    head = ("contestant", "load", "msg/s", "p50 ms", "p99 ms", "CPU µs", "broker µs", "disk B", "RSS MB")
    lines: list[Cells] = [(*head, "lost", "duplicates")]
    for contestant in contestants:
        for load in contestant.loads:
            key = (contestant.name, load.key)
            if samples := [samples[key] for samples in rounds if key in samples]:
                lines.append((contestant.title, load.key, *_medians(samples)))
    return _aligned(lines)


def _medians(samples: Sequence[Sample]) -> Cells:
    return (
        number(median(sample.rate_per_s for sample in samples)),
        number(median(sample.p50_us for sample in samples) / 1e3),
        number(median(sample.p99_us for sample in samples) / 1e3),
        number(median(sample.cpu_us for sample in samples)),
        number(median(sample.broker_cpu_us for sample in samples)),
        number(median(sample.written_bytes for sample in samples)),
        number(median(sample.resident_mb for sample in samples)),
        str(sum(sample.lost for sample in samples)),
        str(sum(sample.duplicates for sample in samples)),
    )


def _aligned(lines: Sequence[Cells]) -> str:
    """First and last column to the left, all others to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    inner = range(1, len(widths) - 1)
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(line[column].rjust(widths[column]) for column in inner), line[-1]]
        ).rstrip()
        for line in lines
    )


def _round_as_json(samples: Round) -> dict[str, dict[str, object]]:
    """Contestant → load → numbers."""
    by_contestant: dict[str, dict[str, object]] = {}
    for (contestant, load), sample in samples.items():
        numbers = asdict(sample).items()
        rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in numbers}
        by_contestant.setdefault(contestant, {})[load] = rounded
    return by_contestant
