"""What daemon and hub say to each other is as documented: on a real broker, by the real programs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edged.demo.plant import FIELDS
from edged.demo.train import MODELS
from edged.messages import RecordColumns
from edged.store.outward import OutwardStore
from edged.sync.envelope import open_body, read_header
from edged.sync.inference import Answer, Question
from edged.sync.protocol import Ack, BatchHeader, Hello, HelloAck
from tests.contract.app_rig import running
from tests.contract.promises import (
    UPSTREAM,
    Json,
    asyncapi,
    channel_of,
    channels,
    payload_problems,
    problems,
    records,
    schemas,
)
from tests.doubles.broker import Mosquitto
from tests.doubles.daemon import Daemon
from tests.doubles.peer import Peer
from tests.doubles.upstream_site import QUICK, Hub

STRUCTS: dict[str, type[msgspec.Struct]] = {
    "sync-hello": Hello,
    "sync-hello-ack": HelloAck,
    "sync-ack": Ack,
    "sync-batch-header": BatchHeader,
    "infer-question": Question,
    "infer-answer": Answer,
}
UNLIKE = {"v", "clock"}  # a constant, and words that the protocol leaves open
_PIPELINE = f"""
[[pipeline]]
name = "anomaly"
topics = ["in/+"]
device = "{{topic[1]}}"
input = {{ fields = {json.dumps(FIELDS)} }}
model = {{ path = "{MODELS}/anomaly.onnx" }}
[pipeline.output]
kind = "anomaly"
threshold = 0.5
alarm = {{ severity = "high", clear_after = 1 }}
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path, "message_size_limit 1100000") as running_broker:
        yield running_broker


@pytest.mark.parametrize("name", STRUCTS)
def test_a_schema_has_the_fields_of_the_protocol_with_their_types(name: str) -> None:
    made = msgspec.json.schema(STRUCTS[name])

    assert _shape(schemas()[name], schemas()[name]) == _shape(made, made)


async def test_daemon_and_hub_say_what_is_documented_and_nothing_else(tmp_path: Path, broker: Mosquitto) -> None:
    upstream = f'[upstream]\nurl = "mqtt://127.0.0.1:{broker.port}"\n{QUICK}\n'
    wanted = {channel.name for channel in channels(UPSTREAM) if "/sync/" in channel.address}
    hub_folder = tmp_path / "centre"
    with (
        Hub(hub_folder, f"sqlite:///{tmp_path}/hub.db", broker_port=broker.port) as hub,
        Daemon(tmp_path, broker.port, upstream, _PIPELINE) as daemon,
    ):
        async with Peer(broker.port, "edged/v1/#") as listener:
            await asyncio.to_thread(hub.start)
            await asyncio.to_thread(lambda: daemon.start().connected())
            await listener.publish("in/pump-1", [event(0), event(1, factor=50.0), event(5)])
            async with asyncio.timeout(30):
                while not _said(listener) >= wanted or not _kinds(listener) >= {"alarm", "mode", "gap", "health"}:
                    await asyncio.sleep(0.05)
            status = await asyncio.to_thread(daemon.status)
            assert await asyncio.to_thread(daemon.stop) == 0

    assert [problem for topic, payload in _sync(listener) for problem in sync_problems(topic, payload)] == []
    on_plant = [(topic, payload) for topic, payload, _ in listener.messages if "/sync/" not in topic]
    assert [problem for topic, payload in on_plant for problem in payload_problems(topic, payload)] == []
    assert all("sync" in json.loads(payload) for topic, payload in on_plant if topic.endswith("/health"))
    assert problems("status", status) == []
    assert (status["sync"]["state"], bool(status["sync"]["receiver"])) == ("open", True)
    assert not any(retained for topic, _, retained in listener.messages if "/sync/" in topic)
    for name, document in _examples(listener).items():
        for field in schemas()[name]["required"]:
            lacking = {key: value for key, value in document.items() if key != field}
            assert problems(name, lacking), f"{name} without {field}"
            assert problems(name, document | {field: {"no": "such value"}}), f"{name} with a wrong {field}"
        assert problems(name, document | {"a_field_of_tomorrow": [1]}) == []


async def test_a_clock_that_became_right_and_a_damaged_store_are_recorded_as_documented(tmp_path: Path) -> None:
    async with running(tmp_path, homeward=True) as rig:
        await rig.events(30)
        await rig.tick(1)
    await asyncio.to_thread(_damage, tmp_path / "state" / "store.db")
    async with running(tmp_path, homeward=True) as rig:
        await rig.tick(1)
        found = await asyncio.to_thread(_stored_records, tmp_path / "state")

    assert {"clock", "damage", "health"} <= {kind for kind, _ in found}
    assert [problem for kind, document in found for problem in problems(records()[kind], document)] == []
    for name in ("clock", "damage"):
        document = next(document for kind, document in found if kind == name)
        for field in schemas()[name]["required"]:
            assert problems(name, {key: value for key, value in document.items() if key != field}), field


def test_every_kind_of_record_is_documented() -> None:
    assert set(records()) == {"alarm", "mode", "gap", "clock", "damage", "health"}


def test_over_https_the_paths_stand_in_the_document() -> None:
    said = asyncapi()["servers"]["upstream"]["description"]

    assert all(path in said for path in ("/v1/sync/hello", "/v1/sync/batch"))


def event(seq: int, *, factor: float = 1.0) -> bytes:
    healthy = (1.2, 27.9, 66.1, 84.8, 5.06, 0.52, 0.52)
    body = {name: value * factor for name, value in zip(FIELDS, healthy, strict=True)}
    return json.dumps(body | {"seq": seq, "ts": 1_760_000_000_000 + 1000 * seq}).encode()


def sync_problems(topic: str, payload: bytes) -> list[str]:
    """What is wrong with a message between gateway and hub, the payloads of its records included."""
    found = problems(channel_of(topic, UPSTREAM).schema, _document(topic, payload))
    return found + [
        problem
        for kind, document in _records(topic, payload)
        for problem in (problems(records()[kind], document) if kind in records() else [f"a record {kind}"])
    ]


def _document(topic: str, payload: bytes) -> Json:
    """The JSON of a message; of a batch its first line."""
    document: Json = json.loads(payload.partition(b"\n")[0] if topic.endswith("/batch") else payload)
    return document


def _records(topic: str, payload: bytes) -> list[tuple[str, Json]]:
    """Kind and payload of the records in a batch."""
    if not topic.endswith("/batch"):
        return []
    header, body = read_header(payload)
    rows, _ = open_body(header, body)
    if not isinstance(rows, RecordColumns):
        return []
    return [(kind, json.loads(text)) for kind, text in zip(rows.kind, rows.payload, strict=True)]


def _sync(listener: Peer) -> list[tuple[str, bytes]]:
    return [(topic, payload) for topic, payload, _ in list(listener.messages) if "/sync/" in topic]


def _said(listener: Peer) -> set[str]:
    return {channel_of(topic, UPSTREAM).name for topic, _ in _sync(listener)}


def _kinds(listener: Peer) -> set[str]:
    return {kind for topic, payload in _sync(listener) for kind, _ in _records(topic, payload)}


def _examples(listener: Peer) -> dict[str, Json]:
    """A message that was really sent, by schema."""
    return {channel_of(topic, UPSTREAM).schema: _document(topic, payload) for topic, payload in _sync(listener)}


def _stored_records(state_dir: Path) -> list[tuple[str, Json]]:
    """What waits to go home in the stream health, tombstones passed over."""
    found: list[tuple[str, Json]] = []
    with closing(OutwardStore(state_dir)) as outward:
        seq = 1
        while (piece := outward.piece("health", seq, 100)) is not None:
            if isinstance(piece.rows, RecordColumns):
                found += zip(piece.rows.kind, map(json.loads, piece.rows.payload), strict=True)
            seq = piece.last + 1
    return found


def _damage(path: Path) -> None:
    """Overwrite the header: no database any more, but its pages are whole."""
    with path.open("r+b") as file:
        file.write(b"\0" * 100)


def _shape(part: Any, root: Json) -> Any:
    """Fields, which of them are required, and their types: what both ways of writing a schema must agree on."""
    if "$ref" in part:
        return _shape(root["$defs"][part["$ref"].rpartition("/")[2]], root)
    if "enum" in part:
        return sorted(part["enum"])
    if part.get("type") == "array":
        return [_shape(each, root) for each in part.get("prefixItems", [part["items"]])]
    if part.get("type") == "object":
        fields = {name: None if name in UNLIKE else _shape(it, root) for name, it in part["properties"].items()}
        return fields, sorted(part["required"])
    return part["type"]
