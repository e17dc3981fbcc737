"""Messages come out as they went in; anything else is refused."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import pytest

from edged.errors import InferenceError, ModelError
from edged.infer.hosting import wire
from edged.infer.loading import GoldenFile, ModelFile
from edged.infer.runtime import Device, LoadOptions, Probe
from edged.messages import ModelInfo, TensorSpec

TWIN = ModelFile(Path("/m/b.tflite"), "b" * 64, 5, "tflite", "id", "1")
FILE = ModelFile(
    Path("/m/a.onnx"), "a" * 64, 7, "onnx", "id", "1", GoldenFile(Path("/m/g.npz"), "c" * 64, 1e-4, 1e-5), (TWIN,)
)
INFO = ModelInfo("m", "1", "0" * 64, "r:d", (TensorSpec("x", "float32", (-1, 4)),), (TensorSpec("y", "int8", ()),))


@pytest.mark.parametrize(
    "request_",
    [
        wire.Infer(3, 0.5, (wire.Place("x", "float32", (2, 4), 64),)),
        wire.Load(1, "coral", "usb:0", FILE, LoadOptions(2, Path("/cache"))),
        wire.Load(1, "coral", "usb:0", FILE._replace(path=Path("/m/\udcff")), LoadOptions()),
        wire.Unload(1),
        wire.Ping(),
        wire.Look("coral", "usb:0"),
        wire.Prepare("tensorrt", "0", FILE, LoadOptions()),
    ],
    ids=lambda request: type(request).__name__,
)
def test_requests_travel(request_: wire.Request) -> None:
    packet = memoryview(wire.pack(9, request_))
    assert (wire.number_of(packet), wire.request_of(packet)) == (9, request_)


@pytest.mark.parametrize(
    "reply",
    [
        wire.Answer((wire.Place("y", "float32", (2,), 0),)),
        wire.Loaded(INFO, exclusive=True),
        wire.Done(),
        wire.Seen(Probe(True, (Device("usb:0", "coral", "Coral"),), {"libedgetpu": "16"}, "", "")),
        wire.Failed("device_lost", "gone", "plug it in", True),
        wire.Hello(1),
    ],
    ids=lambda reply: type(reply).__name__,
)
def test_answers_travel(reply: wire.Reply) -> None:
    assert wire.reply_of(memoryview(wire.pack(4, reply)), 4) == reply


def test_a_probe_without_versions_travels() -> None:
    reply = wire.Seen(Probe(False, versions=MappingProxyType({}), code="device_unavailable", reason="absent"))
    got = wire.reply_of(memoryview(wire.pack(4, reply)), 4)
    assert isinstance(got, wire.Seen)
    assert got.probe == reply.probe._replace(versions={})


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x01\x00\x00\x00",
        b"\x02\x00\x00\x00" + wire.pack(1, wire.Done())[4:],
        b"\x01\x00\x00\x00\xc1\xc1",
        b"\x01\x00\x00\x00\x92\x01\x91\x94\xa1y\xa1f\x91\xff\x00",  # a shape of -1
        bytes(wire.MAX_PACKET_BYTES),
    ],
    ids=["empty", "nothing in it", "another's number", "no msgpack", "negative shape", "too long"],
)
def test_what_is_no_answer_to_this_request_is_refused(packet: bytes) -> None:
    with pytest.raises(wire.BadPacket):
        wire.reply_of(memoryview(packet), 1)


def test_a_message_that_is_too_long_is_not_packed() -> None:
    with pytest.raises(wire.BadPacket, match="expected less than"):
        wire.pack(1, wire.Failed("x", "x" * wire.MAX_PACKET_BYTES))


def test_what_has_no_form_does_not_travel() -> None:
    with pytest.raises(NotImplementedError, match="object"):
        wire.pack(1, wire.Loaded(object(), False))  # type: ignore[arg-type]


def test_errors_are_cut_to_what_fits() -> None:
    failed = wire.failed(ModelError("io", "x" * 100_000, hint="y" * 100_000, retryable=True))
    assert (len(failed.message), len(failed.hint), failed.retryable) == (1000, 1000, True)
    assert wire.failed(InferenceError("infer_failed", "no")) == wire.Failed("infer_failed", "no")


@pytest.mark.parametrize(("code", "taken"), [("device_lost", "device_lost"), ("", "else"), ("No code!", "else")])
def test_only_a_code_is_taken_as_a_code(code: str, taken: str) -> None:
    assert wire.code_of(wire.Failed(code, ""), "else") == taken


def test_a_probe_of_many_pages_is_shortened() -> None:
    probe = Probe(True, (Device("a", "b", "c"),) * 100, {str(n): "v" * 1000 for n in range(100)}, "", "r" * 100_000)
    short = wire.summary(probe)
    assert (len(short.devices), len(short.versions), len(short.reason)) == (32, 50, 1000)
    assert len(wire.pack(1, wire.Seen(short))) < wire.MAX_PACKET_BYTES
