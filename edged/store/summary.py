"""What is kept of rows that are given up: count, least, greatest, mean and worst quality per minute or hour. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from edged.messages import QUALITY_GOOD, QUALITY_STALE, EventColumns, ResultColumns
from edged.sync.protocol import SummaryRow

MINUTE_S = 60
HOUR_S = 3600
LABELS_MAX = 64  # different labels told apart per interval; the rest is counted as OTHER
VALUES_MAX = 64  # different values per interval; the rest is left out
OTHER = "*"
NUMBER_MAX = 1e200  # what is beyond, infinite or no number is left out: sums of it would be no JSON
STALE_RANK = 32  # a stale answer is worse than an uncertain one and better than none

Number = tuple[int, float, float, float]
"""Count, least, greatest, mean."""


def worse(one: int, other: int) -> int:
    """The worse of two quality codes."""
    return one if _rank(one) <= _rank(other) else other


def _rank(quality: int) -> int:
    return STALE_RANK if quality == QUALITY_STALE else quality


class _Span:
    """Count, least, greatest and sum of finite numbers."""

    __slots__ = ("count", "greatest", "least", "total")

    def __init__(self) -> None:
        self.count = 0
        self.least = math.inf
        self.greatest = -math.inf
        self.total = 0.0

    def add(self, count: int, least: float, greatest: float, mean: float) -> None:
        self.count += count
        self.least = min(self.least, least)
        self.greatest = max(self.greatest, greatest)
        self.total += mean * count

    def number(self) -> Number | None:
        if not self.count:
            return None
        return self.count, self.least, self.greatest, self.total / self.count


class _Tally:
    """One interval of one pipeline (or source) and device."""

    __slots__ = ("labels", "n", "score", "values", "worst")

    def __init__(self) -> None:
        self.n = 0
        self.worst = QUALITY_GOOD
        self.score = _Span()
        self.values: dict[str, _Span] = {}
        self.labels: dict[str, int] = {}

    def value(self, name: str, number: Number) -> None:
        span = self.values.get(name)
        if span is None:
            if len(self.values) >= VALUES_MAX:
                return
            span = self.values[name] = _Span()
        span.add(*number)

    def label(self, label: str, count: int) -> None:
        if label not in self.labels and len(self.labels) >= LABELS_MAX:
            label = OTHER
        self.labels[label] = self.labels.get(label, 0) + count


class Summary:
    """Gathers rows by name, device and interval. interval_s: MINUTE_S or HOUR_S."""

    def __init__(self, interval_s: int = MINUTE_S) -> None:
        self.interval_s = interval_s
        self._tallies: dict[tuple[str, str, int], _Tally] = {}

    def __len__(self) -> int:
        return len(self._tallies)

    def add_results(self, columns: ResultColumns, begin: int, end: int) -> None:
        """The results `begin` to `end` (exclusive)."""
        for i in range(begin, end):
            tally = self._tally(columns.contexts[columns.context[i]].pipeline, columns.device[i], columns.ts[i])
            tally.n += 1
            tally.worst = worse(tally.worst, columns.quality[i])
            score, label, values = columns.score[i], columns.label[i], columns.values[i]
            if score is not None and -NUMBER_MAX <= score <= NUMBER_MAX:
                tally.score.add(1, score, score, score)
            if label is not None:
                tally.label(label, 1)
            if values is not None:
                _add_values(tally, values)

    def add_events(self, columns: EventColumns, begin: int, end: int) -> None:
        """The events `begin` to `end` (exclusive); the numbers of their payloads by field."""
        for i in range(begin, end):
            tally = self._tally(columns.source[i], columns.device[i], columns.ts[i])
            tally.n += 1
            try:
                fields = msgspec.json.decode(columns.payload[i])
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # of other formats only the count is known
            if isinstance(fields, dict):
                _add_values(tally, fields)

    def add_rows(self, rows: Iterable[SummaryRow]) -> None:
        """Rows of another summary with the same intervals, or shorter ones."""
        for row in rows:
            tally = self._tally(row.name, row.device, row.start_ms)
            tally.n += row.n
            tally.worst = worse(tally.worst, row.worst)
            if row.score is not None:
                tally.score.add(*row.score)
            for name, number in row.values.items():
                tally.value(name, number)
            for label, count in row.labels.items():
                tally.label(label, count)

    def rows(self) -> list[SummaryRow]:
        """By time, name and device."""
        found = []
        for (start_ms, name, device), tally in sorted(
            ((start_ms, name, device), tally) for (name, device, start_ms), tally in self._tallies.items()
        ):
            spans = ((value, span.number()) for value, span in tally.values.items())
            values = {value: number for value, number in spans if number is not None}
            score = tally.score.number()
            found.append(SummaryRow(name, device, start_ms, tally.n, tally.worst, score, values, tally.labels))
        return found

    def _tally(self, name: str, device: str, ts: int) -> _Tally:
        key = (name, device, ts - ts % (self.interval_s * 1000))
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = _Tally()
        return tally


def _add_values(tally: _Tally, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and -NUMBER_MAX <= value <= NUMBER_MAX:
            tally.value(name, (1, float(value), float(value), float(value)))
