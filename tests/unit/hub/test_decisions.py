"""Who speaks, what is refused, how long to wait."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.hub import decisions
from edged.hub.decisions import Named, Place, Sender
from edged.sync.envelope import decode_ack, decode_hello_ack, encode_message, read_header
from edged.sync.protocol import HEADER_MAX_BYTES, Stream
from tests.doubles.hub_rig import hello_payload, payload

GW = Sender("lyon", "gw-1")


@pytest.mark.parametrize(
    ("text", "sender"),
    [
        ("lyon/gw-1", GW),
        ("lyon", None),
        ("lyon/", None),
        ("/gw-1", None),
        ("lyon/gw-1/x", None),
        ("ly on/gw-1", None),
        ("lyon/" + "x" * 65, None),
    ],
)
def test_a_sender_is_two_plain_names(text: str, sender: Sender | None) -> None:
    assert decisions.parse_sender(text) == sender


@pytest.mark.parametrize(
    ("topic", "place"),
    [
        ("edged/v1/lyon/gw-1/sync/hello", Place(GW, hello=True)),
        ("edged/v1/lyon/gw-1/sync/alarm/batch", Place(GW, stream="alarm")),
        ("edged/v1/lyon/gw-1/sync/result/batch", Place(GW, stream="result")),
        ("edged/v1/lyon/gw-1/sync/other/batch", None),
        ("edged/v1/lyon/gw-1/sync/alarm/ack", None),
        ("edged/v1/lyon/gw-1/sync", None),
        ("edged/v1/lyon/gw-1/sync/hello/ack", None),
        ("edged/v1/lyon/gw-1/state/alarm/batch", None),
        ("edged/v1/ly on/gw-1/sync/hello", None),
        ("other/v1/lyon/gw-1/sync/hello", None),
        ("lyon/gw-1/sync/hello", None),
        ("", None),
    ],
)
def test_a_topic_says_who_sends_what(topic: str, place: Place | None) -> None:
    assert decisions.parse_topic("edged/v1", topic) == place


@given(st.text())
def test_no_topic_is_too_strange(topic: str) -> None:
    decisions.parse_topic("edged/v1", topic)


def test_the_answer_goes_below_the_senders_root() -> None:
    assert decisions.answer_topic("edged/v1", Place(GW, stream="alarm")) == "edged/v1/lyon/gw-1/sync/alarm/ack"
    assert decisions.answer_topic("edged/v1", Place(GW, hello=True)) == "edged/v1/lyon/gw-1/sync/hello/ack"


def test_workers_share_their_subscriptions_unless_told_otherwise() -> None:
    assert decisions.subscriptions("edged/v1", (), shared=True) == [
        "$share/edged-hub/edged/v1/+/+/sync/+/batch",
        "$share/edged-hub/edged/v1/+/+/sync/hello",
    ]
    assert decisions.subscriptions("r", ("a", "b"), shared=False) == [
        "r/a/+/sync/+/batch",
        "r/a/+/sync/hello",
        "r/b/+/sync/+/batch",
        "r/b/+/sync/hello",
    ]


@pytest.mark.parametrize(
    ("patterns", "sites", "answer"),
    [
        (("*/*",), (), True),
        (("lyon/*",), (), True),
        (("nice/*", "lyon/gw-?"), (), True),
        (("nice/*",), (), False),
        ((), (), False),
        (("*/*",), ("lyon",), True),
        (("*/*",), ("nice",), False),
    ],
)
def test_patterns_and_sites_say_whose_rows_are_taken(
    patterns: tuple[str, ...], sites: tuple[str, ...], answer: bool
) -> None:
    assert decisions.allowed(GW, patterns, sites) is answer


@pytest.mark.parametrize(
    ("place", "patterns", "reason"),
    [
        (Place(GW, stream="alarm"), ("*/*",), ""),
        (Place(GW), ("*/*",), ""),
        (Place(GW, stream="health"), ("*/*",), "bad_header"),
        (Place(Sender("lyon", "gw-2"), stream="alarm"), ("*/*",), "foreign_gateway"),
        (Place(GW, stream="alarm"), ("nice/*",), "foreign_gateway"),
    ],
)
def test_a_header_has_to_fit_where_it_came_from(place: Place, patterns: tuple[str, ...], reason: str) -> None:
    header, _body = read_header(payload(1, 3))
    assert decisions.refuse(header, place, patterns, ()) == reason


@given(st.floats(0, 1e9), st.floats(0, 1))
def test_the_longer_the_database_is_away_the_longer_gateways_wait(away_s: float, chance: float) -> None:
    wait_ms = decisions.away_retry_ms(away_s, chance)
    assert 750 <= wait_ms <= 60_000
    assert wait_ms <= max(1_000, away_s * 1000) * 1.25


def test_waits_for_a_database_that_is_away_grow_from_one_second_to_one_minute() -> None:
    assert [decisions.away_retry_ms(away_s, 0.5) for away_s in (0, 2, 30, 3600)] == [1_000, 2_000, 30_000, 60_000]


@given(st.integers(0, 10_000), st.floats(0, 300), st.integers(1, 64), st.floats(0, 1))
def test_a_busy_hub_says_when_there_should_be_room(waiting: int, commit_s: float, at_once: int, chance: float) -> None:
    assert 187 <= decisions.busy_retry_ms(waiting, commit_s, at_once, chance) <= 37_500


def test_a_slow_database_makes_busy_last_longer() -> None:
    assert decisions.busy_retry_ms(64, 0.01, 4, 0.5) == 250
    assert decisions.busy_retry_ms(64, 1.0, 4, 0.5) == 16_000


@pytest.mark.parametrize(("gateways", "spread_s"), [(0, 0), (1, 0), (2, 2), (50, 60), (500, 600), (100_000, 600)])
def test_fleets_are_spread_over_time(gateways: int, spread_s: int) -> None:
    assert decisions.spread_s(gateways) == spread_s


@pytest.mark.parametrize(
    ("head", "named"),
    [
        (b'{"epoch":"e","stream":"alarm","first":3,"last":5,"n":99}\n', Named("e", "alarm", 3, 5)),
        (b'{"epoch":"","first":3,"last":5}\n', Named()),
        (b'{"epoch":"a/b","first":3,"last":5}\n', Named()),
        (b'{"epoch":"e","first":9,"last":5}\n', Named("e", None, 1, 1)),
        (b'{"epoch":"e","first":-3,"last":5}\n', Named()),
        (b'{"epoch":"e"}', Named()),
        (b'{"epoch":5}\n', Named()),
        (b"\xff\xfe\n", Named()),
        (b"[" * 4000 + b"\n", Named()),
        (b'{"x":"' + b"y" * HEADER_MAX_BYTES + b'"}\n', Named()),
        (b"", Named()),
    ],
    ids=[
        "whole",
        "no epoch",
        "bad epoch",
        "backwards",
        "negative",
        "no line",
        "wrong type",
        "no text",
        "deep",
        "too long",
        "nothing",
    ],
)
def test_an_answer_names_what_can_be_read_of_a_bad_header(head: bytes, named: Named) -> None:
    assert decisions.named(head) == named


@given(
    st.binary(max_size=300)
    | st.fixed_dictionaries(
        {"epoch": st.text(), "first": st.integers(), "last": st.integers()}, optional={"stream": st.text()}
    ).map(lambda fields: json.dumps(fields).encode() + b"\n")
)
def test_no_header_is_too_strange_for_an_answer_that_can_be_read(head: bytes) -> None:
    made = decisions.answer(decisions.named(head), Place(GW), "hub", "reject", "bad_header")
    assert decode_ack(encode_message(made)) == made


@pytest.mark.parametrize("stream", ["alarm", None])
def test_every_answer_can_be_read_by_a_gateway(stream: Stream | None) -> None:
    made = decisions.answer(Named(), Place(GW, stream=stream), "hub", "retry", "x" * 500, 5)
    assert decode_ack(encode_message(made)) == made
    assert made.stream == (stream or "result")
    assert len(made.reason) == 200


@pytest.mark.parametrize(
    ("data", "instance"),
    [(hello_payload(), "i-1"), (b"\xff", "-"), (b'{"instance":5}', "-"), (b'{"instance":""}', "-")],
)
def test_every_answer_to_hello_can_be_read_by_a_gateway(data: bytes, instance: str) -> None:
    made = decisions.hello_answer(data, GW, "hub", "retry", "busy", 5)
    assert decode_hello_ack(encode_message(made)) == made
    assert made.instance == instance


def test_the_version_changes_only_when_it_was_the_reason_for_a_failure() -> None:
    assert decisions.next_protocol("auto", None, False) == "5"
    assert decisions.next_protocol("auto", "5", True) == "5"
    assert decisions.next_protocol("auto", "5", False) == "3.1.1"
    assert decisions.next_protocol("auto", "3.1.1", True) == "3.1.1"
    assert decisions.next_protocol("auto", "3.1.1", False) == "5"
    assert decisions.next_protocol("3.1.1", "3.1.1", False) == "3.1.1"
