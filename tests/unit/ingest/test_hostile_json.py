"""Hostile payloads: refused or parsed within a bounded time, never an exception."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from edged.errors import Refused
from edged.ingest.decode_json import JsonSource
from edged.ingest.spec import SourceSpec

LONGEST_S = 1.0  # of any one payload; they take microseconds, the bound is for a busy machine

PLAIN = JsonSource(SourceSpec(fields=("v",), device="{topic[1]}"))
NAMED = JsonSource(SourceSpec(fields=("a.b",), device="{payload.id}", ts="a.ts", width=3))


def outcome(decoder: JsonSource, payload: bytes) -> list[str]:
    """The reason of each element, `parsed` for the good ones."""
    begun = time.perf_counter()
    items = decoder.parse("plant/press", payload)
    assert time.perf_counter() - begun < LONGEST_S
    assert items
    return [item.reason if isinstance(item, Refused) else "parsed" for item in items]


def corpus(shared_data: Path) -> list[tuple[str, bytes]]:
    files = sorted((shared_data / "hostile" / "json" / "test_parsing").iterdir())
    assert len(files) > 100
    return [(path.name, path.read_bytes()) for path in files]


@pytest.mark.realdata
def test_no_payload_of_the_json_test_suite_is_taken_for_an_event(shared_data: Path) -> None:
    for name, payload in corpus(shared_data):
        for decoder in (PLAIN, NAMED):
            assert "parsed" not in outcome(decoder, payload), name


@pytest.mark.realdata
def test_good_json_beside_the_fields_is_accepted_and_bad_json_refused(shared_data: Path) -> None:
    for name, content in corpus(shared_data):
        verdict = outcome(PLAIN, b'{"v":1,"other":' + content + b"}")
        in_array = outcome(PLAIN, b'[{"v":1},{"v":1,"other":' + content + b"}]")
        if name.startswith("y_"):
            assert verdict == ["parsed"], name
            assert in_array == ["parsed"] * 2, name
        elif name.startswith("n_"):
            assert "parsed" not in verdict, name
            assert in_array in (verdict, ["parsed", *verdict]), name


@pytest.mark.realdata
def test_naughty_strings_as_device_boot_or_value_are_taken_as_text_or_refused(shared_data: Path) -> None:
    strings: list[str] = json.loads((shared_data / "hostile" / "blns" / "blns.json").read_text())
    assert len(strings) > 400
    for text in strings:
        quoted = json.dumps(text).encode()
        for raw in (quoted, json.dumps(text, ensure_ascii=False).encode()):
            as_device = NAMED.parse("t", b'{"a":{"b":[1,2,3]},"id":' + raw + b"}")
            (item,) = as_device
            if isinstance(item, Refused):
                assert item.reason == "bad_device"
            else:
                assert item[0] == text
        assert outcome(PLAIN, b'{"v":1,"boot":' + quoted + b"}") in (["parsed"], ["out_of_range"])
        assert outcome(PLAIN, b'{"v":' + quoted + b"}") == ["wrong_type"]


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 1_000_000,
        b'{"v":' * 200_000,
        b'{"v":1,"x":' + b"[" * 1_000_000,
        b"[" + b"0," * 500_000 + b"0]",
        b"[" + b"{}," * 300_000 + b"{}]",
        b'{"v":[' + b"0," * 500_000 + b"0]}",
        b'{"a":{"b":[' + b"0," * 500_000 + b'0]},"id":"x"}',
        b'{"v":' + b"9" * 1_000_000 + b"}",
        b'{"v":1,"seq":' + b"9" * 1_000_000 + b"}",
        b'{"v":1,"boot":"' + b"\\u0041" * 170_000 + b'"}',
        b'{"v":1,"' + b"k" * 1_000_000 + b'":',
        b'{"v":1,' + b'"k":1,' * 170_000 + b'"v":1e400}',
        b"\xf0\x9f\x92\xa9" * 250_000,
        b" " * 1_000_000,
        b'"' + b"\\" * 1_000_000,
        bytes(1_000_000),
    ],
    ids=lambda payload: repr(payload[:24]),
)
def test_a_megabyte_of_malice_is_refused_within_a_bounded_time(payload: bytes) -> None:
    for decoder in (PLAIN, NAMED):
        assert len(outcome(decoder, payload)) == 1
        assert outcome(decoder, payload) != ["parsed"]
