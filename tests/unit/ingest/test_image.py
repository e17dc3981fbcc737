"""Frames from outside: what passes for a picture, what is refused unread, and what the store keeps of it."""

from __future__ import annotations

import io
import json
import struct
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edged.errors import Refused
from edged.ingest.image import ImageSource, ImageSpec, RawSize
from edged.ingest.image_header import Header, read_header

TOPIC = "cam/gate/1700000000000/17/b1"


def picture(kind: str = "JPEG", size: tuple[int, int] = (30, 20), **more: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 10, 10)).save(buffer, kind, **more)
    return buffer.getvalue()


def refusal(source: ImageSource, payload: bytes, topic: str = TOPIC) -> str:
    (parsed,) = source.parse(topic, payload)
    assert isinstance(parsed, Refused)
    return parsed.reason


@pytest.mark.parametrize("more", [{}, {"progressive": True}, {"exif": b"Exif\0\0" + b"\xff\xd9" * 40}])
def test_the_size_of_a_jpeg_is_read_from_its_header_whatever_stands_before_it(more: dict[str, Any]) -> None:
    assert read_header(picture(**more)) == Header("jpeg", 30, 20)


def test_fill_bytes_and_markers_without_a_length_are_stepped_over() -> None:
    plain = picture()
    assert read_header(plain[:2] + b"\xff\xff\xff\x01\xff" + plain[2:]) == Header("jpeg", 30, 20)


def test_the_size_of_a_png_is_read_from_its_header() -> None:
    assert read_header(picture("PNG")) == Header("png", 30, 20)


@pytest.mark.parametrize(
    "payload",
    [
        b"GIF89a",
        b"\xff\xd8",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xda\0\4\0\0",
        b"\xff\xd8\xff\xc0\0\x0b\x08",
        b"\xff\xd8" + b"\xff\xe0\0\2" * 600,
        b"\xff\xd8\xff\xc0" + struct.pack(">HBHH", 11, 8, 0, 8) + bytes(9) + b"\xff\xd9",
        picture("PNG")[:20],
        picture("PNG")[:-6],
        picture()[:-10],
        b"\x89PNG\r\n\x1a\n" + bytes(40),
        picture("PNG")[:24] + b"\x10\x00" + picture("PNG")[26:],
    ],
    ids=lambda payload: payload[:8].hex(),
)
def test_what_is_no_whole_picture_is_refused(payload: bytes) -> None:
    assert refusal(ImageSource(ImageSpec()), payload) == "bad_image"


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xc0"]))
def test_no_bytes_do_more_than_be_refused(tail: bytes, head: bytes) -> None:
    (parsed,) = ImageSource(ImageSpec()).parse(TOPIC, head + tail)
    assert isinstance(parsed, Refused | tuple)


def test_a_picture_that_is_too_large_is_refused_by_bytes_and_by_pixels() -> None:
    bomb = bytearray(picture("PNG"))
    bomb[16:24] = struct.pack(">II", 60_000, 60_000)
    assert refusal(ImageSource(ImageSpec()), bytes(bomb)) == "too_large"
    assert refusal(ImageSource(ImageSpec(max_payload_bytes=10)), picture()) == "too_large"
    assert refusal(ImageSource(ImageSpec()), b"") == "empty"


def test_raw_pixels_are_taken_when_there_are_as_many_as_declared() -> None:
    source = ImageSource(ImageSpec(raw=RawSize(4, 2, 3)))
    ((_, _, _, _, row, event),) = _events(source, bytes(24))
    assert row == bytes(24)
    assert json.loads(event)["frame"] | {"sha256": ""} == {
        "format": "raw", "width": 4, "height": 2, "size_bytes": 24, "sha256": "",
    }  # fmt: skip
    assert refusal(source, bytes(23)) == "wrong_length"


def _events(source: ImageSource, payload: bytes) -> list[tuple[Any, ...]]:
    return [parsed for parsed in source.parse(TOPIC, payload) if not isinstance(parsed, Refused)]


def test_time_number_and_boot_of_a_frame_stand_in_its_topic() -> None:
    source = ImageSource(ImageSpec(ts_level=2, seq_level=-2, boot_level=4))
    ((device, ts, seq, boot, _, _),) = _events(source, picture())
    assert (device, ts, seq, boot) == ("gate", 1_700_000_000_000, 17, "b1")


def test_a_time_in_a_topic_may_be_text_and_absent_levels_mean_none() -> None:
    (parsed,) = ImageSource(ImageSpec(ts_level=2)).parse("cam/gate/2023-11-14T22:13:20Z", picture())
    assert not isinstance(parsed, Refused)
    assert parsed[1:4] == (1_700_000_000_000, None, None)


@pytest.mark.parametrize(
    ("spec", "topic", "reason"),
    [
        (ImageSpec(ts_level=2), "cam/gate/noon", "bad_ts"),
        (ImageSpec(ts_level=2), "cam/gate/99999999999999999999", "bad_ts"),
        (ImageSpec(ts_level=2, ts_unit="iso"), "cam/gate/1700000000000000", "bad_ts"),
        (ImageSpec(ts_level=5), "cam/gate", "bad_ts"),
        (ImageSpec(seq_level=2), "cam/gate/-1", "out_of_range"),
        (ImageSpec(seq_level=2), "cam/gate/9999999999999999999", "out_of_range"),
        (ImageSpec(seq_level=2), "cam/gate/²", "out_of_range"),
        (ImageSpec(boot_level=2), "cam/gate/", "out_of_range"),
        (ImageSpec(device="{topic[7]}"), "cam/gate", "bad_device"),
    ],
)
def test_a_topic_that_does_not_hold_what_it_should_refuses_the_frame(spec: ImageSpec, topic: str, reason: str) -> None:
    assert refusal(ImageSource(spec), picture(), topic) == reason


@pytest.mark.parametrize("keep", [True, False])
def test_the_store_has_the_pixels_only_where_every_frame_counts(keep: bool) -> None:
    source = ImageSource(ImageSpec(keep=keep))
    ((*_, event),) = _events(source, picture())
    assert isinstance(event, bytes)
    assert source.reread(TOPIC, event) == (picture() if keep else None)


@pytest.mark.parametrize(
    "make", [lambda data: b"{}", lambda data: b'{"frame": 1}', lambda data: data.replace(b"/9j/", b"????")]
)
def test_what_is_no_event_of_this_source_has_no_frame(make: Callable[[bytes], bytes]) -> None:
    source = ImageSource(ImageSpec(keep=True))
    ((*_, event),) = _events(source, picture())
    assert isinstance(event, bytes)
    assert b64encode(picture())[:4] == b"/9j/"
    assert source.reread(TOPIC, make(event)) is None
