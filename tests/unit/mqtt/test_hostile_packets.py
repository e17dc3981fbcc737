"""The tables of mosquitto's own tests: what a bad broker sends to a client, byte by byte."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from edged.errors import ProtocolViolation
from tests.unit.mqtt.packets import codec_for, feed_all, length_of

pytestmark = pytest.mark.realdata

TOKEN = re.compile(r"'([^']*)'|(\S+)")
# What a broker may send although a client answers with a closed connection: the link ends it, not the codec.
ENDS_THE_CONNECTION = ("E0",)
# Characters that receivers may refuse but need not (MQTT 5, 1.5.4). Closing would come back for ever: the message
# stays in the session. It is handed over, and refused further in.
STRICTER = ("QoS 2", "20 long")  # we never ask for QoS 2; a CONNACK with bytes after its end is not one
TOLERATED = (
    *("U+0001", "U+001F", "U+007F", "U+009F"),
    # properties we do not use
    *(
        "payload-format-indicator=2",
        "with wildcard",
        "response-topic (UTF-8 string) empty",
        "2*subscription-identifier",
    ),
)


def build(recipe: str) -> bytes:
    """hex, rN / vN variable length, sN / mN / HN two bytes, LN four, iN one, 'text'."""
    out = b""
    for text, word in TOKEN.findall(recipe):
        if not word:
            out += text.encode()
        elif word[0] in "rv":
            out += length_of(int(word[1:]))
        elif word[0] in "smH":
            out += int(word[1:]).to_bytes(2, "big")
        elif word[0] == "L":
            out += int(word[1:]).to_bytes(4, "big")
        elif word[0] == "i":
            out += bytes((int(word[1:]),))
        else:
            out += bytes.fromhex(word)
    return out


def cases(folder: Path) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    found = []
    for file in sorted((folder / "hostile/mqtt-packets/lib").glob("*.json")):
        for group in json.loads(file.read_text()):
            found += [(file.stem, group, test) for test in group["tests"]]
    return found


def test_a_bad_broker_gets_a_violation_or_is_understood_and_nothing_else_happens(
    shared_data: Path,
) -> None:
    refused = understood = 0
    wrong = []
    for file, group, test in cases(shared_data):
        version = "5" if test.get("ver", group["ver"]) == 5 else "3.1.1"
        packets = [build(message["payload"]) for message in test["msgs"] if message["type"] == "send"]
        where = f"{file} {group['group']}: {test['name']}"
        must_close = test.get("expect_disconnect", True)
        try:
            feed_all(codec_for(version), packets)
        except ProtocolViolation:
            refused += 1
            assert must_close or any(name in where for name in STRICTER), f"{where} was refused"
            continue
        understood += 1
        handshake = {"connect": True, "connack": True, **group, **test}
        out_of_place = not handshake["connect"] or not handshake["connack"] or file == "CONNACK"
        tolerated = any(name in where for name in TOLERATED)
        ended = any(packet[:1].hex().upper() in ENDS_THE_CONNECTION for packet in packets)
        if must_close and not (out_of_place or tolerated or ended):
            wrong.append(where)
    assert wrong == []  # neither refused nor tolerated for a reason
    assert refused > 100
    assert understood > 20
