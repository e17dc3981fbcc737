"""What is kept of rows that are given up says the same, whether it was gathered at once, in parts or by the hour."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.messages import EventColumns, ResultColumns
from edged.store.summary import HOUR_S, LABELS_MAX, NUMBER_MAX, OTHER, VALUES_MAX, Summary, worse
from edged.sync.protocol import SummaryRow
from tests.unit.store.samples import CONTEXT, events, results

MINUTE_MS = 60_000


def answers(
    scores: list[float | None],
    *,
    ts: list[int] | None = None,
    labels: list[str | None] | None = None,
    values: list[dict[str, float | list[float]] | None] | None = None,
    quality: list[int] | None = None,
) -> ResultColumns:
    """Results of one device."""
    n = len(scores)
    columns = results(1, n)
    columns.contexts = [CONTEXT]
    columns.device = ["p1"] * n
    columns.ts = ts or [0] * n
    columns.score = scores
    columns.label = labels or [None] * n
    columns.values = values or [None] * n
    columns.quality = quality or [192] * n
    return columns


def gathered(columns: ResultColumns, interval_s: int = 60) -> list[SummaryRow]:
    summary = Summary(interval_s)
    summary.add_results(columns, 0, len(columns.context))
    return summary.rows()


def test_results_of_one_minute_become_one_row() -> None:
    columns = answers(
        [0.5, 1.5, None],
        ts=[60_000, 119_999, 119_999],
        labels=["ok", "ok", None],
        values=[{"wear": 1.0, "spectrum": [1.0, 2.0]}, {"wear": 3.0}, None],
        quality=[192, 64, 0],
    )
    assert gathered(columns) == [
        SummaryRow("pump", "p1", 60_000, 3, 0, (2, 0.5, 1.5, 1.0), {"wear": (2, 1.0, 3.0, 2.0)}, {"ok": 2})
    ]


def test_only_the_asked_part_is_counted() -> None:
    summary = Summary()
    summary.add_results(answers([1.0, 2.0, 3.0, 4.0]), 1, 3)
    assert [(row.n, row.score) for row in summary.rows()] == [(2, (2, 2.0, 3.0, 2.5))]


def test_an_interval_without_any_score_has_none() -> None:
    assert [(row.n, row.score, row.values, row.labels) for row in gathered(answers([None]))] == [(1, None, {}, {})]


@pytest.mark.parametrize(
    ("one", "other", "worst"), [(192, 64, 64), (64, 500, 500), (500, 0, 0), (192, 192, 192), (500, 192, 500)]
)
def test_a_stale_answer_is_worse_than_an_uncertain_one_and_better_than_none(one: int, other: int, worst: int) -> None:
    assert worse(one, other) == worse(other, one) == worst


@pytest.mark.parametrize("wild", [math.inf, -math.inf, math.nan, NUMBER_MAX * 10])
def test_what_would_be_no_json_is_counted_and_left_out(wild: float) -> None:
    rows = gathered(answers([wild, 1.0], values=[{"x": wild}, {"x": 2.0}]))
    assert [(row.n, row.score, row.values) for row in rows] == [(2, (1, 1.0, 1.0, 1.0), {"x": (1, 2.0, 2.0, 2.0)})]
    assert msgspec.json.decode(msgspec.json.encode(rows), type=list[SummaryRow]) == rows


def test_the_numbers_of_events_are_kept_by_field_and_source() -> None:
    columns = events(1, 4)
    columns.device = ["p1"] * 4
    columns.payload = [b'{"a":1,"b":true,"c":"x","d":[1]}', b'{"a":3.5}', b"not json", b"[1,2]"]
    summary = Summary()
    summary.add_events(columns, 0, 4)
    assert [(row.name, row.n, row.worst, row.values) for row in summary.rows()] == [
        ("pump", 4, 192, {"a": (2, 1.0, 3.5, 2.25)})
    ]


def test_a_number_of_hundreds_of_digits_is_left_out() -> None:
    columns: EventColumns = events(1, 1)
    columns.payload = [b'{"a":1%s}' % (b"0" * 400)]
    summary = Summary()
    summary.add_events(columns, 0, 1)
    assert summary.rows()[0].values == {}


def test_labels_and_values_are_bounded() -> None:
    n = LABELS_MAX + 10
    rows = gathered(
        answers(
            [None] * n,
            labels=[f"label-{i}" for i in range(n)],
            values=[{f"value-{i}": 1.0} for i in range(n)],
        )
    )
    assert len(rows[0].labels) == LABELS_MAX + 1
    assert rows[0].labels[OTHER] == 10
    assert len(rows[0].values) == VALUES_MAX


rows_of_results = st.lists(
    st.tuples(
        st.integers(0, 3 * HOUR_S * 1000),
        st.one_of(st.none(), st.floats(-1e6, 1e6)),
        st.sampled_from([None, "ok", "wear"]),
        st.sampled_from([192, 64, 500, 0]),
    ),
    min_size=1,
    max_size=40,
)


@given(rows_of_results, st.integers(0, 40))
def test_two_halves_by_the_minute_give_the_same_hours_as_the_whole(
    rows: list[tuple[int, float | None, str | None, int]], cut: int
) -> None:
    ts, scores, labels, quality = (list(column) for column in zip(*rows, strict=True))
    columns = answers(scores, ts=ts, labels=labels, quality=quality)
    whole = gathered(columns, HOUR_S)
    hours = Summary(HOUR_S)
    for begin, end in ((0, min(cut, len(rows))), (min(cut, len(rows)), len(rows))):
        minutes = Summary()
        minutes.add_results(columns, begin, end)
        hours.add_rows(minutes.rows())
    merged = hours.rows()
    assert [(r.start_ms, r.n, r.worst, r.labels) for r in merged] == [
        (r.start_ms, r.n, r.worst, r.labels) for r in whole
    ]
    for one, other in zip(merged, whole, strict=True):
        assert (one.score is None) == (other.score is None)
        if one.score is not None and other.score is not None:
            assert one.score[:3] == other.score[:3]
            assert one.score[3] == pytest.approx(other.score[3], rel=1e-9, abs=1e-6)
