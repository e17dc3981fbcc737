"""Settings that cannot work are refused with everything that is wrong; secrets are read when they are needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edged.errors import LinkError
from edged.mqtt.settings import LinkSettings, read_secret

GOOD = LinkSettings("broker", "gw-01", filters=("plant/+/pump/+",), username="u", password=b"secret")


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(LinkError) as caught:
        LinkSettings(
            "broker",
            "",
            port=0,
            username="a\0b",
            filters=("a/#/b", "good/#"),
            will_topic="w/+",
            will_payload=b"x" * 65_536,
            canary_topic="#",
            keep_alive_s=0,
            receive_maximum=65_536,
            max_packet_bytes=10,
        )
    message = str(caught.value)
    for part in (
        "broker:0",
        "'a/#/b' has #",
        "will_topic 'w/+'",
        "canary_topic '#'",
        "client_id '' is empty",
        "username 'a\\x00b' contains U+0000",
        "will_payload has 65536 bytes",
        "port is 0, allowed are 1 to 65535",
        "keep_alive_s is 0",
        "receive_maximum is 65536, allowed are 1 to 65535",
        "max_packet_bytes is 10, allowed are 1024 to",
    ):
        assert part in message
    assert "good/#" not in message


def test_a_password_needs_a_user_name() -> None:
    with pytest.raises(LinkError, match="user name"):
        replace(GOOD, username=None)


def test_a_password_never_shows_in_logs() -> None:
    assert "secret" not in repr(GOOD)


def test_a_secret_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"first\r\n")
    assert read_secret(file) == b"first"
    file.write_bytes(b" second \n")
    assert read_secret(file) == b" second "
    values = iter([b"third", b"fourth"])
    assert [read_secret(lambda: next(values)) for _ in range(2)] == [b"third", b"fourth"]
    assert read_secret(b"itself\n") == b"itself\n"
    assert read_secret(None) is None


def test_a_secret_that_cannot_be_read_names_the_file_and_may_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="No such file") as caught:
        read_secret(tmp_path / "missing")
    assert "missing" in str(caught.value)
    assert caught.value.retryable


def test_a_secret_longer_than_mqtt_can_say_is_refused() -> None:
    with pytest.raises(LinkError, match="65536 bytes"):
        read_secret(lambda: b"x" * 65_536)
