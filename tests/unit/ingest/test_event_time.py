"""Times as sensors write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edged.errors import Refused
from edged.ingest.decode_json import JsonSource
from edged.ingest.event_time import LAST_MS
from edged.ingest.spec import SourceSpec, TsUnit

MS = 1_772_366_400_123


def read(ts: Any, unit: TsUnit | None = None) -> int | str | None:
    decoder = JsonSource(SourceSpec(fields=("v",), device="d", ts_unit=unit))
    (item,) = decoder.parse("t", json.dumps({"v": 1, "ts": ts}).encode())
    return item.reason if isinstance(item, Refused) else item[1]


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-01T12:00:00.123Z",
        "2026-03-01t12:00:00.123z",
        "2026-03-01T12:00:00.123999Z",
        "2026-03-01T13:00:00.123+01:00",
        "2026-03-01T12:00:00.123",
        "2026-03-01 12:00:00.123",
    ],
)
@pytest.mark.parametrize("unit", [None, "iso", "ms"])
def test_text_is_rfc_3339_and_utc_where_it_names_no_offset(text: str, unit: TsUnit | None) -> None:
    assert read(text, unit) == MS


@pytest.mark.parametrize(
    ("number", "unit", "expected"),
    [
        (MS, None, MS),
        (MS + 0.9, None, MS),
        (MS, "ms", MS),
        (1_772_366_400, "s", MS - 123),
        (1_772_366_400.123, "s", MS),
        (MS * 1000 + 999, "us", MS),
        (MS * 1_000_000 + 999_999, "ns", MS),
        (0, None, 0),
        (LAST_MS, None, LAST_MS),
        (LAST_MS + 1, None, "bad_ts"),
        (-1, None, "bad_ts"),
        (1e300, "s", "bad_ts"),
        (10**30, "ns", "bad_ts"),
        (MS, "s", "bad_ts"),
        (MS, "iso", "bad_ts"),
        (True, None, "bad_ts"),
    ],
)
def test_numbers_count_in_the_declared_unit_and_stay_within_two_centuries(
    number: float, unit: TsUnit | None, expected: int | str
) -> None:
    assert read(number, unit) == expected


@pytest.mark.parametrize(
    "text", ["", "now", "2026-03-01", "2026-02-30T00:00:00Z", "1969-12-31T23:59:59.999Z", "2200-01-01T00:00:01Z"]
)
def test_what_is_no_time_or_not_of_these_centuries_is_refused(text: str) -> None:
    assert read(text) == "bad_ts"


def test_the_earliest_time_there_is_does_not_overflow() -> None:
    assert read("0001-01-01T00:00:00+14:00") == "bad_ts"
