"""JSON payloads become events or reasons, element by element."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edged.errors import ConfigError, Refused
from edged.ingest.decode_json import JsonSource, Parsed
from edged.ingest.spec import SourceSpec

TOPIC = "plant/lyon/pump/7"
SPEC = SourceSpec(fields=("accel_rms", "current_a"), device="{topic[1]}-{topic[3]}")
GOOD = {"ts": "2026-03-01T12:00:00.123Z", "seq": 5, "boot": "b1", "accel_rms": 1.5, "current_a": 3}
TS_MS = 1_772_366_400_123


def source(**changes: Any) -> JsonSource:
    values: dict[str, Any] = {"fields": SPEC.fields, "device": SPEC.device}
    return JsonSource(SourceSpec(**(values | changes)))


def parse(decoder: JsonSource, event: object, topic: str = TOPIC) -> list[Parsed | Refused]:
    return decoder.parse(topic, event if isinstance(event, bytes) else json.dumps(event).encode())


def accepted(decoder: JsonSource, event: object, topic: str = TOPIC) -> Parsed:
    (item,) = parse(decoder, event, topic)
    assert not isinstance(item, Refused), item
    return item


def reason(decoder: JsonSource, event: object, topic: str = TOPIC) -> str:
    (item,) = parse(decoder, event, topic)
    assert isinstance(item, Refused), item
    return item.reason


def test_an_event_becomes_device_time_number_boot_row_and_its_own_bytes() -> None:
    raw = json.dumps(GOOD).encode()
    assert source().parse(TOPIC, raw) == [("lyon-7", TS_MS, 5, "b1", (1.5, 3.0), raw)]


def test_ts_seq_and_boot_may_be_absent_or_null() -> None:
    assert accepted(source(), {"accel_rms": 1, "current_a": 2})[1:4] == (None, None, None)
    nulls = {"accel_rms": 1, "current_a": 2, "ts": None, "seq": None, "boot": None}
    assert accepted(source(), nulls)[1:4] == (None, None, None)


def test_one_field_makes_a_row_of_one() -> None:
    assert accepted(source(fields=("v",)), {"v": 2.5})[4] == (2.5,)


def test_paths_reach_into_nested_objects() -> None:
    nested = source(
        fields=("motor.accel.rms", "motor.current_a"),
        ts="meta.ts",
        seq="meta.seq",
        boot="meta.boot",
        device="{payload.meta.unit}",
        ts_unit="s",
    )
    event = {
        "motor": {"accel": {"rms": 1}, "current_a": 2},
        "meta": {"ts": 1.5, "seq": 9, "boot": 4, "unit": "p-1"},
    }
    assert accepted(nested, event)[:5] == ("p-1", 1500, 9, "4", (1.0, 2.0))


def test_an_absent_object_around_optional_values_is_as_good_as_absent_values() -> None:
    assert accepted(source(ts="meta.ts"), {"accel_rms": 1, "current_a": 2})[1] is None


def test_with_ts_source_arrival_the_clock_of_the_sensor_is_not_even_read() -> None:
    assert accepted(source(ts_source="arrival"), GOOD | {"ts": {"not": "a time"}})[1] is None


def test_an_empty_path_switches_seq_off() -> None:
    assert accepted(source(seq=""), GOOD | {"seq": "not a number"})[2] is None


def test_the_same_field_may_feed_two_columns() -> None:
    assert accepted(source(fields=("v", "v")), {"v": 2})[4] == (2.0, 2.0)


# --- several events per message -----------------------------------------------------------------------------------


def test_an_array_gives_its_events_in_order_each_with_its_own_bytes() -> None:
    items = parse(source(), [GOOD | {"seq": 1}, GOOD | {"seq": 2}])
    assert [item[2] for item in items if not isinstance(item, Refused)] == [1, 2]
    assert [json.loads(item[5])["seq"] for item in items if not isinstance(item, Refused)] == [1, 2]


def test_a_bad_element_refuses_only_itself() -> None:
    first, second, third = parse(source(), [GOOD, {"accel_rms": "?"}, GOOD])
    assert not isinstance(first, Refused)
    assert isinstance(second, Refused)
    assert second.reason == "wrong_type"
    assert not isinstance(third, Refused)


def test_white_space_before_an_array_does_not_matter() -> None:
    assert len(parse(source(), b" \r\n\t" + json.dumps([GOOD, GOOD]).encode())) == 2


def test_more_events_than_allowed_are_refused_as_one() -> None:
    assert reason(source(max_events=2), [GOOD, GOOD, GOOD]) == "too_many_events"
    assert len(parse(source(max_events=2), [GOOD, GOOD])) == 2


def test_arrays_within_an_array_are_no_events() -> None:
    assert reason(source(), [[GOOD]]) == "wrong_type"


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"[]", "empty"),
        (b"[ ]", "empty"),
        (b"{", "not_json"),
        (b"[{]", "not_json"),
        (b"[" + b"[" * 100_000, "too_deep"),
        (b'{"accel_rms":1,"current_a":1,"x":' + b"[" * 100_000, "too_deep"),
        (b'{"accel_rms":1,"current_a":1} x', "not_json"),
        (b'{"accel_rms":NaN,"current_a":1}', "not_json"),
        (b'{"accel_rms":1,"current_a":Infinity}', "not_json"),
        (b'{"accel_rms":1,"current_a":-Infinity}', "not_json"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b'{"accel_rms":1,"current_a":1,"note":"\xff"}', "not_utf8"),
        (b"null", "wrong_type"),
        (b'"text"', "wrong_type"),
        (b"{}", "missing_field"),
        (b'{"accel_rms":1}', "missing_field"),
        (b'{"accel_rms":1,"current_a":null}', "wrong_type"),
        (b'{"accel_rms":1,"current_a":true}', "wrong_type"),
        (b'{"accel_rms":1,"current_a":"1"}', "wrong_type"),
        (b'{"accel_rms":1,"current_a":[1]}', "wrong_type"),
        (b'{"accel_rms":1,"current_a":1e999}', "out_of_range"),
        (b'{"accel_rms":1,"current_a":-1e999}', "out_of_range"),
        (b'{"accel_rms":1,"current_a":1e39}', "out_of_range"),
        (b'{"accel_rms":1,"current_a":' + b"9" * 5000 + b"}", "out_of_range"),
        (b'{"accel_rms":1,"current_a":1,"seq":-1}', "out_of_range"),
        (b'{"accel_rms":1,"current_a":1,"seq":9223372036854775808}', "out_of_range"),
        (b'{"accel_rms":1,"current_a":1,"seq":' + b"9" * 5000 + b"}", "out_of_range"),
        (b'{"accel_rms":1,"current_a":1,"seq":1.5}', "wrong_type"),
        (b'{"accel_rms":1,"current_a":1,"seq":"7"}', "wrong_type"),
        (b'{"accel_rms":1,"current_a":1,"boot":"' + b"b" * 65 + b'"}', "out_of_range"),
        (b'{"accel_rms":1,"current_a":1,"boot":[]}', "wrong_type"),
        (b'{"accel_rms":1,"current_a":1,"ts":"yesterday"}', "bad_ts"),
        (b'{"accel_rms":1,"current_a":1,"ts":{}}', "bad_ts"),
        (b'{"accel_rms":1,"current_a":1,"ts":-1}', "bad_ts"),
        (b'{"accel_rms":1,"current_a":1,"ts":1e30}', "bad_ts"),
    ],
)
def test_every_refusal_has_its_reason(payload: bytes, expected: str) -> None:
    assert reason(source(), payload) == expected


def test_a_payload_above_the_limit_is_refused_unread() -> None:
    assert reason(source(max_payload_bytes=10), b"x" * 11) == "too_large"


def test_details_are_short_whatever_was_sent() -> None:
    hostile = b'{"accel_rms":1,"current_a":1,"' + b"\xff" * 10_000 + b'":1}'
    for payload in (hostile, b'{"accel_rms":1' + b"," * 10_000):
        (item,) = source().parse(TOPIC, payload)
        assert isinstance(item, Refused)
        assert len(item.detail) <= 200


@pytest.mark.parametrize(("value", "expected"), [(-0.1, "out_of_range"), (0, None), (20, None), (20.1, "out_of_range")])
def test_limits_of_a_field_are_inclusive(value: float, expected: str | None) -> None:
    limited = source(constraints={"accel_rms": (0.0, 20.0)})
    (item,) = parse(limited, GOOD | {"accel_rms": value})
    assert (item.reason if isinstance(item, Refused) else None) == expected


def test_a_field_may_be_limited_on_one_side_only() -> None:
    assert accepted(source(constraints={"accel_rms": (None, 5.0)}), GOOD | {"accel_rms": -1e9})
    assert accepted(source(constraints={"accel_rms": (0.0, None)}), GOOD | {"accel_rms": 1e9})


# --- waveforms -----------------------------------------------------------------------------------------------------


def test_waveforms_stand_one_after_the_other_as_the_fields_are_declared() -> None:
    waves = source(fields=("y", "x"), width=6)
    assert accepted(waves, {"x": [1, 2, 3], "y": [4, 5, 6]})[4] == (4.0, 5.0, 6.0, 1.0, 2.0, 3.0)


def test_a_number_may_stand_beside_a_waveform() -> None:
    assert accepted(source(fields=("load", "wave"), width=4), {"load": 9, "wave": [1, 2, 3]})[4] == (9, 1, 2, 3)


@pytest.mark.parametrize(
    "event",
    [
        {"x": [1, 2], "y": [1, 2, 3]},
        {"x": [1, 2], "y": [1, 2, 3, 4]},
        {"x": [1] * 7, "y": [1]},
        {"x": [], "y": []},
        {"x": 1, "y": 2},
    ],
)
def test_a_waveform_of_another_length_is_refused(event: object) -> None:
    assert reason(source(fields=("x", "y"), width=6), event) == "wrong_length"


def test_with_any_width_numbers_or_waveforms_of_every_equal_length_are_taken() -> None:
    whatever = source(fields=("x", "y"), width=0)
    assert accepted(whatever, {"x": 1, "y": 2})[4] == (1, 2)
    assert accepted(whatever, {"x": [1], "y": [2]})[4] == (1, 2)
    assert accepted(whatever, {"x": [1, 2, 3], "y": [4, 5, 6]})[4] == (1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize("event", [{"x": [1, 2], "y": [1]}, {"x": [1, 2], "y": 1}, {"x": [], "y": []}])
def test_with_any_width_the_samples_of_each_field_can_be_told_apart(event: object) -> None:
    assert reason(source(fields=("x", "y"), width=0), event) == "wrong_length"


def test_a_waveform_is_checked_number_by_number() -> None:
    waves = source(fields=("x",), width=3, constraints={"x": (-1.0, 1.0)})
    assert reason(waves, {"x": [0, 0, 2]}) == "out_of_range"
    assert reason(waves, {"x": [0, 0, None]}) == "wrong_type"
    assert reason(waves, {"x": "wave"}) == "wrong_type"


# --- devices -------------------------------------------------------------------------------------------------------


def test_a_device_from_the_payload_may_be_a_number() -> None:
    assert accepted(source(device="unit-{payload.id}"), GOOD | {"id": 7})[0] == "unit-7"


@pytest.mark.parametrize("name", ["", "a/b", "a+b", "a#", "a\x00", "a\n", "\x9f", "\ufffe", "ä" * 65])
def test_a_device_that_cannot_be_a_topic_level_is_refused(name: str) -> None:
    assert reason(source(device="{payload.id}"), GOOD | {"id": name}) == "bad_device"


def test_a_device_of_the_wrong_type_or_length_is_refused_as_a_device() -> None:
    assert reason(source(device="{payload.id}"), GOOD | {"id": "x" * 129}) == "bad_device"
    assert reason(source(device="{payload.id}"), GOOD | {"id": []}) == "bad_device"
    assert reason(source(device="{payload.id}"), GOOD) == "missing_field"


def test_a_topic_without_the_level_is_refused() -> None:
    assert reason(source(), GOOD, topic="plant/lyon") == "bad_device"


# --- contradictions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"fields": ()}, "needs fields"),
        ({"width": 1}, "width 1"),
        ({"constraints": {"nope": (0, 1)}}, "nope"),
        ({"fields": ("a", "a.b")}, "parent"),
        ({"fields": ("a..b",)}, "empty level"),
        ({"fields": ("a.",)}, "empty level"),
        ({"fields": (".a",)}, "empty level"),
        ({"fields": ('a"b',)}, "field names"),
        ({"fields": ("ts", "v")}, "'ts' is a field"),
        ({"seq": "boot"}, "'boot' is declared"),
        ({"ts_unit": "h"}, "ts_unit"),
        ({"device": "{topic[x]}"}, "device"),
        ({"device": "{"}, "device"),
    ],
)
def test_a_contradiction_in_the_spec_is_found_at_once(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        source(**changes)


def test_one_waveform_of_the_expected_width_is_the_row() -> None:
    source = JsonSource(SourceSpec(fields=("wave",), width=3))
    (parsed,) = source.parse("in/a", b'{"wave":[1,2.5,3]}')
    assert not isinstance(parsed, Refused)
    assert parsed[4] == (1.0, 2.5, 3.0)
    (short,) = source.parse("in/a", b'{"wave":[1,2.5]}')
    assert isinstance(short, Refused)
    assert short.reason == "wrong_length"
