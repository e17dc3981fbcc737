"""Rows come back as they were, to the bit; whatever else comes is refused as a `ValueError`."""

from __future__ import annotations

import random
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import BugError
from edged.messages import RecordColumns, ResultColumns, TelemetryColumns
from edged.sync.columns import ENTRIES_MAX, decode_rows, encode_rows
from edged.sync.nodes import VALUES_MAX
from edged.sync.plans import PLANS, Columns
from edged.sync.protocol import BATCH_ROWS_MAX, STREAMS, Stream
from tests.unit.sync.rows import CONTEXT, any_records, any_results, any_telemetry, exactly, results, rows_of, single


def count(rows: Columns) -> int:
    return len(getattr(rows, rows.__struct_fields__[-1]))


def there_and_back(stream: Stream, rows: Columns) -> Columns:
    return decode_rows(stream, encode_rows(stream, rows), count(rows))


def body(stream: Stream = "result", n: int = 40) -> dict[str, Any]:
    """The JSON of a batch, to be spoilt."""
    read: dict[str, Any] = msgspec.json.decode(encode_rows(stream, rows_of(stream, n)))
    return read


def refused(stream: Stream, spoilt: object, n: int = 40) -> str:
    with pytest.raises(ValueError) as error:
        decode_rows(stream, msgspec.json.encode(spoilt), n)
    return str(error.value)


# --- what goes home is what was made ----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("n", [1, 2, 3, 50, 2000])
def test_rows_of_a_gateway_come_back_as_they_were(stream: Stream, n: int) -> None:
    rows = rows_of(stream, n)
    assert exactly(there_and_back(stream, rows)) == exactly(rows)


@given(any_results())
@settings(max_examples=400)
def test_any_results_come_back_in_value_and_type(rows: ResultColumns) -> None:
    assert exactly(there_and_back("result", rows)) == exactly(rows)


@given(any_telemetry())
def test_any_telemetry_comes_back_to_the_byte(rows: TelemetryColumns) -> None:
    assert exactly(there_and_back("telemetry", rows)) == exactly(rows)


@given(any_records())
def test_any_records_come_back_to_the_byte(rows: RecordColumns) -> None:
    assert exactly(there_and_back("health", rows)) == exactly(rows)


@pytest.mark.parametrize("per_call", [1, 4, 500])
@pytest.mark.parametrize("devices", [1, 17, 400])
def test_whatever_calls_and_devices_share_is_shared_without_loss(devices: int, per_call: int) -> None:
    rows = results(1_000, devices, per_call)
    assert exactly(there_and_back("result", rows)) == exactly(rows)


@pytest.mark.parametrize("stream", STREAMS)
def test_the_same_rows_give_the_same_bytes(stream: Stream) -> None:
    assert encode_rows(stream, rows_of(stream, 300)) == encode_rows(stream, rows_of(stream, 300))


def test_a_wall_clock_that_is_set_within_a_batch_stays_as_it_was() -> None:
    rows = results(600)
    rows.produced[300:] = [ms - 1_700_000_000_000 for ms in rows.produced[300:]]
    assert exactly(there_and_back("result", rows)) == exactly(rows)


def test_arrays_of_numbers_come_back_row_by_row() -> None:
    rows = results(30)
    chance = random.Random(7)
    for row in range(30):
        rows.values[row] = {
            "count": float(row % 3),
            "boxes": [single(chance.random()) for _ in range(4 * (row % 3))],
            "raw": [chance.random() for _ in range(5)],
        }
    rows.values[4] = {}
    assert exactly(there_and_back("result", rows)) == exactly(rows)


def test_payloads_that_are_not_text_come_back_to_the_byte() -> None:
    rows = rows_of("telemetry", 20)
    assert isinstance(rows, TelemetryColumns)
    rows.payload[3] = b'{"name":"\xff\xfe"}'
    assert exactly(there_and_back("telemetry", rows)) == exactly(rows)


# --- it is small ------------------------------------------------------------------------------------------------


def test_what_all_rows_share_takes_no_room() -> None:
    rows = results(2_000, devices=1, per_call=2_000)
    rows.score, rows.values, rows.label = [0.5] * 2_000, [None] * 2_000, ["ok"] * 2_000
    rows.quality, rows.reasons = [192] * 2_000, [()] * 2_000
    assert len(encode_rows("result", rows)) < 1_000


def test_floats_of_a_model_take_six_characters_at_most() -> None:
    rows = results(2_000, devices=1, per_call=2_000)
    chance = random.Random(3)
    rows.score = [single(chance.gauss(0, 1)) for _ in range(2_000)]
    plain = msgspec.json.decode(encode_rows("result", rows))["columns"]["score"]
    assert len(msgspec.json.encode(plain)) < 6.1 * 2_000


# --- our own mistakes -------------------------------------------------------------------------------------------


def test_rows_of_another_stream_are_a_bug() -> None:
    with pytest.raises(BugError, match="stream alarm: got ResultColumns"):
        encode_rows("alarm", results(3))


def test_columns_of_different_lengths_are_a_bug() -> None:
    rows = results(3)
    rows.ts.append(1)
    with pytest.raises(BugError, match="'ts': 4"):
        encode_rows("result", rows)


def test_a_batch_without_rows_is_a_bug() -> None:
    with pytest.raises(BugError):
        encode_rows("result", results(0))


def test_an_integer_of_more_than_64_bits_is_a_bug() -> None:
    rows = results(3)
    rows.ts[1] = 2**63
    with pytest.raises(BugError, match="64 bits"):
        encode_rows("result", rows)


def test_an_integer_among_floats_is_a_bug() -> None:
    rows = results(3)
    rows.score[1] = 1
    with pytest.raises(BugError, match="floats holds"):
        encode_rows("result", rows)


# --- too much for one batch -------------------------------------------------------------------------------------


def test_more_numbers_than_a_batch_may_hold_are_refused_by_the_sender() -> None:
    rows = results(300)
    rows.values = [{"tensor": [0.5] * 4_096}] * 300
    assert VALUES_MAX < 300 * 4_096
    with pytest.raises(ValueError, match="numbers in `values`"):
        encode_rows("result", rows)


def test_more_entries_than_a_batch_may_hold_are_refused_by_the_sender() -> None:
    rows = rows_of("telemetry", 2)
    assert isinstance(rows, TelemetryColumns)
    rows.payload[0] = b"[" + b"1," * (ENTRIES_MAX + 1) + b"1]"
    with pytest.raises(ValueError, match="commas"):
        encode_rows("telemetry", rows)


# --- what comes from outside ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [-1, 0, BATCH_ROWS_MAX + 1])
def test_a_number_of_rows_that_no_batch_has_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match="1 to 20000 rows"):
        decode_rows("result", encode_rows("result", results(1)), n)


@pytest.mark.parametrize("n", [1, 39, 41, 20_000])
@pytest.mark.parametrize("stream", STREAMS)
def test_another_number_of_rows_than_the_header_says_is_refused(stream: Stream, n: int) -> None:
    with pytest.raises(ValueError):
        decode_rows(stream, encode_rows(stream, rows_of(stream, 40)), n)


@pytest.mark.parametrize("stream", STREAMS)
def test_a_body_of_another_stream_is_refused(stream: Stream) -> None:
    other: Stream = "telemetry" if stream == "result" else "result"
    with pytest.raises(ValueError, match="is missing"):
        decode_rows(stream, encode_rows(other, rows_of(other, 40)), 40)


@pytest.mark.parametrize("name", sorted(PLANS["result"].columns))
def test_a_missing_column_is_refused_by_name(name: str) -> None:
    spoilt = body()
    del spoilt["columns"][name]
    assert refused("result", spoilt) == f"column {name} is missing"


def test_a_column_that_a_newer_gateway_adds_is_left_aside() -> None:
    more = body()
    more["columns"]["weather"] = ["const", "fair"]
    assert exactly(decode_rows("result", msgspec.json.encode(more), 40)) == exactly(results(40))


@pytest.mark.parametrize("name", sorted(PLANS["result"].columns))
def test_a_column_of_another_type_is_refused_by_name(name: str) -> None:
    types = PLANS["result"].columns[name].types
    for value, kind in ((["const", "text"], str), (["const", 1], int), (["const", None], type(None))):
        if kind not in types:
            spoilt = body()
            spoilt["columns"][name] = value
            assert refused("result", spoilt)


@pytest.mark.parametrize("place", [2, -1, 2**62])
def test_a_context_that_is_not_there_is_refused(place: int) -> None:
    spoilt = body()
    spoilt["columns"]["context"] = ["const", place]
    assert "a context is named" in refused("result", spoilt)


def test_an_integer_that_grows_beyond_64_bits_is_refused() -> None:
    spoilt = body()
    spoilt["columns"]["ts"] = ["deltas", 2**63 - 1, ["const", 1]]
    assert "64 bits" in refused("result", spoilt)


BAD_NODES: dict[str, Any] = {
    "an unknown encoding": ["magic", 1],
    "no encoding": [],
    "not even a list": 7,
    "too few fields": ["deltas", 1],
    "a float in place of a node": 1.5,
    "plain, too short": ["plain", [1, 2]],
    "plain floats": ["plain", [1.5] * 40],
    "digits, too short": ["digits", 0, 1, "A" * 39],
    "digits of no alphabet": ["digits", 0, 1, "A" * 39 + "\u00e4"],
    "digits that are padding": ["digits", 0, 1, "A" * 39 + "="],
    "digits that are blanks": ["digits", 0, 1, "A" * 39 + "\n"],
    "digits too wide": ["digits", 0, 9, "A" * 360],
    "digits of no width": ["digits", 0, 0, ""],
    "a start of more than 64 bits": ["digits", 2**64, 1, "A" * 40],
    "runs that are too long": ["runs", 1, ["const", 1], ["const", 41]],
    "runs that are too short": ["runs", 2, ["const", 1], ["const", 19]],
    "runs of negative length": ["runs", 2, ["const", 1], ["plain", [-1, 41]]],
    "runs of text length": ["runs", 2, ["const", 1], ["plain", ["20", "20"]]],
    "more runs than can be": ["runs", 2**31, ["const", 1], ["const", 0]],
    "a negative count": ["runs", -1, ["const", 1], ["const", 0]],
    "words that are not there": ["words", [1], ["const", 1]],
    "words counted from the end": ["words", [1], ["const", -1]],
    "words of nothing": ["words", [], ["const", 0]],
    "deltas of text": ["deltas", 0, ["const", "1"]],
    "times of text": ["times", 1000, ["const", "1"]],
    "times of times": ["times", 2**62, ["times", 2**62, ["const", 1]]],
    "a factor of more than 64 bits": ["times", 2**64, ["const", 1]],
    "zigzag of null": ["zigzag", ["const", None]],
    "recent before the first": ["recent", 0, ["const", 1], ["const", 1]],
    "recent of fewer fresh ones": ["recent", 39, ["const", 0], ["const", 1]],
    "recent of too far back": ["recent", 0, ["const", 2**40], ["const", 1]],
    "some of fewer": ["some", 3, ["const", 1], ["const", 1]],
    "a mask of twos": ["some", 80, ["const", 2], ["const", 1]],
    "by call of too few": ["by_call", ["plain", [1]]],
    "rows within groups": ["of_group", ["by_group", ["const", 1]]],
    "calls within groups": ["of_group", ["by_call", ["const", 1]]],
    "groups within groups": ["of_group", ["of_group", ["const", 1]]],
    "deltas of groups within groups": ["of_group", ["group_deltas", ["const", 1], ["const", 1]]],
    "beside what is not there": ["beside", ["nothing"], 1, 0, 1, ["const", 0]],
    "beside text": ["beside", ["device"], 1, 0, 1, ["const", 0]],
    "beside what counts calls": ["beside", ["mono_ns"], 1, 0, 1, ["const", 0]],
    "divided by nothing": ["beside", ["event_seq"], 1, 0, 0, ["const", 0]],
    "chained to nothing": ["chain", "nothing", 0, ["const", 0]],
    "floats in a column of integers": ["float32", ["const", 0]],
    "text in a column of integers": ["const", "a"],
    "bytes in a column of integers": ["utf8", ["const", "a"]],
    "objects in a column of integers": ["dicts", [-1], [], ["const", 0], []],
    "tuples in a column of integers": ["tuples", [0], [], ["const", 0]],
}


@pytest.mark.parametrize("node", BAD_NODES.values(), ids=BAD_NODES)
def test_integers_that_are_written_wrongly_are_refused(node: object) -> None:
    spoilt = body()
    spoilt["columns"]["ts"] = node
    assert refused("result", spoilt)


@pytest.mark.parametrize(
    "node",
    [
        ["float32", ["const", 2**32]],
        ["float32", ["const", -1]],
        ["float64", ["const", 0], ["const", 2**32]],
        ["float64", ["const", -1], ["const", 0]],
        ["decimal", 2, ["deltas", 2**63 - 1, ["const", 2**62]]],
        ["decimal", 10, ["const", 1]],
        ["decimal", 0, ["const", "1"]],
        ["const", 1],
    ],
)
def test_scores_that_are_written_wrongly_are_refused(node: object) -> None:
    spoilt = body()
    spoilt["columns"]["score"] = node
    assert refused("result", spoilt)


ONE_FLOAT = ["decimal", 0, ["const", 1]]


@pytest.mark.parametrize(
    "node",
    [
        ["dicts", [1], ["a"], ["const", 0], []],
        ["dicts", [2], ["a"], ["const", 0], [ONE_FLOAT]],
        ["dicts", [1], [], ["const", 0], [ONE_FLOAT]],
        ["dicts", [1, -1], ["a"], ["const", 2], [ONE_FLOAT]],
        ["dicts", [1], ["a"], ["const", 0], [["const", 1]]],
        ["dicts", [1], ["a"], ["const", 0], [["const", None]]],
        ["dicts", [1], ["a"], ["const", 0], [["dicts", [-1], [], ["const", 0], []]]],
        ["dicts", [1], ["a"], ["const", 0], [["lists", 3, ["const", 1], ONE_FLOAT]]],
        ["dicts", [1], ["a"], ["const", 0], [["lists", 40, ["const", 1], ["const", 1]]]],
        ["dicts", [1], ["a"], ["const", 0], [["lists", 40, ["const", 1], ["lists", 40, ["const", 1], ONE_FLOAT]]]],
        ["dicts", [1], ["a"], ["const", 0], [["lists", VALUES_MAX, ["const", 25_000], ONE_FLOAT]]],
        ["dicts", [25_001], [""] * 25_001, ["const", 0], [ONE_FLOAT] * 25_001],
        ["lists", 40, ["const", 1], ONE_FLOAT],
    ],
)
def test_objects_that_are_written_wrongly_are_refused(node: object) -> None:
    spoilt = body()
    spoilt["columns"]["values"] = node
    assert refused("result", spoilt)


@pytest.mark.parametrize(
    "node",
    [
        ["utf8", ["const", 1]],
        ["utf8", ["const", None]],
        ["base64", ["const", "YWJj=ZGVm"]],
        ["base64", ["const", "\u00e4"]],
        ["base64", ["const", "Y"]],
        ["const", "text"],
    ],
)
def test_payloads_that_are_written_wrongly_are_refused(node: object) -> None:
    spoilt = body("alarm")
    spoilt["columns"]["payload"] = node
    assert refused("alarm", spoilt)


def test_tuples_that_do_not_add_up_are_refused() -> None:
    spoilt = body()
    spoilt["columns"]["reasons"] = ["tuples", [2], ["one"], ["const", 0]]
    assert "1 texts for tuples" in refused("result", spoilt)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("groups", 0),
        ("groups", 41),
        ("calls", 41),
        ("groups", 2**31),
        ("groups", -1),
        ("group", ["const", 7]),
        ("group", ["by_group", ["const", 0]]),
        ("calls", 0),
        ("calls", 2**31),
        ("call_rows", ["const", 2**40]),
        ("call_rows", ["const", -1]),
        ("call_rows", ["by_call", ["const", 1]]),
        ("columns", []),
        ("contexts", [[1, 2, 3]]),
        ("contexts", []),
    ],
)
def test_a_frame_that_does_not_fit_is_refused(field: str, value: object) -> None:
    assert refused("result", {**body(), field: value})


def test_groups_that_no_row_belongs_to_are_no_rows() -> None:
    rows = results(40, devices=7)
    more = {**body(), "groups": 8}
    more["columns"]["device"][1].append("ghost")
    more["columns"]["topic"][1][1].append("nowhere")
    more["columns"]["event_seq"] = ["plain", rows.event_seq]
    more["columns"]["ts"] = ["plain", rows.ts]
    more["columns"]["in_seq"] = ["plain", rows.in_seq]
    assert exactly(decode_rows("result", msgspec.json.encode(more), 40)) == exactly(rows)


def test_few_bytes_that_expand_without_end_are_refused() -> None:
    node: Any = ["const", 1]
    for _ in range(300):
        node = ["runs", 20_000, node, ["const", 1]]
    spoilt = body()
    spoilt["columns"]["ts"] = node
    with pytest.raises(ValueError):
        decode_rows("result", msgspec.json.encode(spoilt), 20_000)


def test_objects_of_many_cheap_columns_are_refused_before_they_are_made() -> None:
    spoilt = {
        **body(n=1),
        "groups": 1,
        "group": ["const", 0],
        "calls": 1,
        "call_rows": ["const", 20_000],
    }
    spoilt["columns"]["values"] = ["dicts", [100], ["k"] * 100, ["const", 0], [ONE_FLOAT] * 100]
    assert "numbers in `values`" in refused("result", spoilt, 20_000)


@pytest.mark.parametrize("depth", [50, 400, 900, 5_000, 100_000])
def test_nodes_inside_of_nodes_end_somewhere(depth: int) -> None:
    deep = '["zigzag",' * depth + '["const",1]' + "]" * depth
    whole = msgspec.json.encode({**body(n=1), "columns": {}}).decode()
    whole = whole.replace('"columns":{}', f'"columns":{{"device":{deep}}}')
    assert deep in whole
    with pytest.raises(ValueError):
        decode_rows("result", whole.encode(), 1)


def test_more_entries_than_any_batch_has_are_refused_unread() -> None:
    with pytest.raises(ValueError, match="commas"):
        decode_rows("result", b"[" + b"1," * (ENTRIES_MAX + 1) + b"1]", 1)


@pytest.mark.parametrize("text", [b"", b"\xff", b"{", b"null", b"[]", b"{}", b'"\\ud800"', b'{"a":' * 5_000])
def test_what_is_no_body_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        decode_rows("result", text, 1)


# --- hostile bytes ----------------------------------------------------------------------------------------------

SAMPLES: dict[Stream, list[bytes]] = {
    stream: [encode_rows(stream, rows_of(stream, n)) for n in (1, 40)] for stream in STREAMS
}


def decoded_or_refused(stream: Stream, text: bytes, n: int) -> None:
    """Nothing but rows of this stream, of the right number and types, or a `ValueError`."""
    try:
        rows = decode_rows(stream, text, n)
    except ValueError:
        return
    plan = PLANS[stream]
    assert isinstance(rows, plan.type)
    for name, (_, types) in plan.columns.items():
        values = getattr(rows, name)
        assert len(values) == n
        assert types.issuperset(map(type, values))
    assert decode_rows(stream, encode_rows(stream, rows), n) is not None  # whatever is let in could go out again


@given(st.sampled_from(STREAMS), st.binary(max_size=300), st.integers(1, 50))
def test_random_bytes_are_refused(stream: Stream, text: bytes, n: int) -> None:
    decoded_or_refused(stream, text, n)


@given(st.sampled_from(STREAMS), st.integers(0, 1), st.integers(0, 10**6), st.binary(min_size=1, max_size=3))
@settings(max_examples=400)
def test_changed_bytes_become_rows_or_a_refusal(stream: Stream, which: int, place: int, change: bytes) -> None:
    text = SAMPLES[stream][which]
    at = place % len(text)
    decoded_or_refused(stream, text[:at] + change + text[at + len(change) :], (1, 40)[which])


LEAVES: st.SearchStrategy[Any] = st.sampled_from(
    [0, 1, -1, 2, 39, 40, 41, 2**31, 2**62, -(2**63), 2**64, 1.5, "", "A", "AAAA", None, [], {}]
)
NODES = st.recursive(
    st.builds(lambda value: ["const", value], LEAVES),
    lambda node: st.one_of(
        st.tuples(st.just("runs"), LEAVES, node, node),
        st.tuples(st.just("deltas"), LEAVES, node),
        st.tuples(st.just("zigzag"), node),
        st.tuples(st.just("times"), LEAVES, node),
        st.tuples(st.just("words"), st.lists(LEAVES, max_size=3), node),
        st.tuples(st.just("tuples"), st.lists(LEAVES, max_size=3), st.lists(LEAVES, max_size=3), node),
        st.tuples(st.just("recent"), LEAVES, node, node),
        st.tuples(st.just("some"), LEAVES, node, node),
        st.tuples(st.sampled_from(["float32", "by_call", "by_group", "of_group", "utf8", "base64"]), node),
        st.tuples(st.sampled_from(["float64", "group_deltas"]), node, node),
        st.tuples(st.just("decimal"), LEAVES, node),
        st.tuples(st.just("beside"), st.lists(LEAVES | st.just("ts"), max_size=3), LEAVES, LEAVES, LEAVES, node),
        st.tuples(st.just("chain"), LEAVES | st.just("infer_us"), LEAVES, node),
        st.tuples(st.just("dicts"), st.lists(LEAVES), st.lists(LEAVES), node, st.lists(node, max_size=3)),
        st.tuples(st.just("lists"), LEAVES, node, node),
    ),
    max_leaves=8,
)


@given(st.sampled_from(STREAMS), st.data())
@settings(max_examples=600)
def test_exchanged_nodes_become_rows_or_a_refusal(stream: Stream, data: st.DataObject) -> None:
    spoilt = body(stream)
    name = data.draw(st.sampled_from([*sorted(spoilt["columns"]), "group", "call_rows"]))
    node = data.draw(NODES | st.sampled_from(sorted(spoilt["columns"])).map(spoilt["columns"].__getitem__))
    (spoilt if name in spoilt else spoilt["columns"])[name] = node
    decoded_or_refused(stream, msgspec.json.encode(spoilt), 40)


def test_a_context_is_what_results_share() -> None:
    assert decode_rows("result", encode_rows("result", results(1)), 1).contexts[0] == CONTEXT  # type: ignore[union-attr]


def test_single_precision_is_kept_to_the_bit() -> None:
    rows = results(4)
    odd = [struct.unpack("<f", struct.pack("<I", bits))[0] for bits in (0x7F800000, 0xFF800000, 0x00000001, 0x80000000)]
    rows.score = list(odd)
    assert exactly(there_and_back("result", rows)) == exactly(rows)
