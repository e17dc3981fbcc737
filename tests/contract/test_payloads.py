"""Everything that the daemon says is as docs/reference/schemas promises, and the schemas refuse what is not."""

from __future__ import annotations

import copy
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from edged.engine.herald import SCHEMAS
from edged.messages import Outbound
from tests.contract import scenes
from tests.contract.app_rig import running
from tests.contract.promises import (
    PLANT,
    REFERENCE,
    UPSTREAM,
    Json,
    channel_of,
    channels,
    message_problems,
    problems,
    records,
    schemas,
)
from tests.doubles.engine_rig import Rig

every_schema = pytest.mark.parametrize("name", sorted(schemas()))


@pytest.mark.parametrize("scene", scenes.SCENES, ids=lambda scene: scene.__name__)
async def test_whatever_the_engine_says_is_as_promised(scene: Callable[[], Awaitable[list[Outbound]]]) -> None:
    said = await scene()

    assert said
    assert [problem for item in said for problem in message_problems(item)] == []


async def test_whatever_the_whole_daemon_says_is_as_promised(tmp_path: Path) -> None:
    said = await scenes.the_whole_daemon(tmp_path)

    assert [problem for item in said for problem in message_problems(item)] == []


async def test_what_a_newcomer_must_know_is_retained_from_the_first_moment(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        retained = {item.topic.decode().removeprefix("edged/v1/lyon/gw/") for item in rig.link.published if item.retain}

    assert {"state", "mode", "meta/gateway", "meta/pipeline/anomaly"} <= retained


@pytest.mark.parametrize("homeward", [False, True])
async def test_the_status_document_is_as_promised_connected_or_not(tmp_path: Path, homeward: bool) -> None:
    async with running(tmp_path, homeward=homeward) as rig:
        await rig.events(3)
        await rig.look_at_host()
        await rig.look_at_devices()
        up = msgspec.json.encode(rig.app.report.status())
        rig.link.down()
        down = msgspec.json.encode(rig.app.report.status())

    assert [problems("status", json.loads(document)) for document in (up, down)] == [[], []]
    assert ("sync" in json.loads(up)) == homeward


async def test_the_scenes_hold_what_their_names_say() -> None:
    gaps = [json.loads(item.payload) for item in await scenes.gaps_of_every_kind() if item.topic.endswith(b"/gap")]
    letters = {item.topic.rpartition(b"/")[2] for item in await scenes.dead_letters() if b"/dlq/" in item.topic}

    assert {gap["kind"] for gap in gaps} == {"sequence", "filled", "sequence_reset", "session_lost"}
    assert letters == {b"not_json", b"empty", b"no_route", b"wrong_type", b"publish_refused"}


@every_schema
def test_a_schema_is_valid_and_lets_readers_meet_new_fields(name: str) -> None:
    schema = schemas()[name]

    Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is True
    assert schema["properties"]["v"]["const"] == schema["title"]


@every_schema
def test_every_field_is_explained(name: str) -> None:
    unexplained = [
        f"{path}.{field}" for path, table in _tables(schemas()[name]) for field, it in table.items() if not _text(it)
    ]

    assert unexplained == []


async def test_a_payload_that_lacks_a_field_or_has_a_wrong_one_is_refused(tmp_path: Path) -> None:
    examples = await _examples(tmp_path)

    assert set(examples) == {channel.schema for channel in channels()} - {""}
    for name, example in examples.items():
        assert problems(name, example | {"a_field_of_tomorrow": [1]}) == []
        for field in schemas()[name]["required"]:
            lacking = {key: value for key, value in example.items() if key != field}
            assert problems(name, lacking), f"{name} without {field}"
            assert problems(name, example | {field: {"no": "such value"}} | {"v": 1}), f"{name} with a wrong {field}"


async def test_a_result_that_contradicts_its_quality_is_refused() -> None:
    rig = Rig()
    await rig.start()
    rig.event(0)
    await rig.engine.settled()
    (good,) = rig.results()
    failed = good | {"quality": 0, "label": None, "score": None, "values": None, "quality_reasons": ["infer_failed"]}

    assert [problems("result", case) for case in (good, failed)] == [[], []]
    for wrong in (
        failed | {"score": -1.0},
        failed | {"label": "ok"},
        failed | {"values": {}},
        failed | {"quality_reasons": []},
        good | {"quality": 64},
        good | {"quality_reasons": ["retained"]},
        good | {"quality": 191},
        good | {"ts": "2026-03-01 12:00:00"},
        good | {"score": "10.0"},
    ):
        assert problems("result", wrong) != []


def test_the_gateway_announces_exactly_the_schemas_that_are_documented() -> None:
    payloads = {channel.schema for channel in channels() if channel.schema and not channel.schema.startswith("meta-")}
    documented = {schemas()[name]["title"] for name in payloads}

    assert set(SCHEMAS) == documented


def test_every_schema_belongs_to_a_topic_or_to_a_record_or_to_the_status_socket() -> None:
    on_topics = {channel.schema for server in (PLANT, UPSTREAM) for channel in channels(server)} - {""}
    assert on_topics | set(records().values()) | {"status"} == set(schemas())
    assert {path.name for path in (REFERENCE / "schemas").iterdir()} == {f"{name}.json" for name in schemas()}


async def _examples(folder: Path) -> dict[str, Json]:
    """A payload that was really published, by schema."""
    said = await scenes.the_whole_daemon(folder)
    for scene in scenes.SCENES:
        said += await scene()
    return {
        channel.schema: json.loads(item.payload)
        for item in said
        if item.payload and (channel := channel_of(item.topic.decode())).schema
    }


def _tables(schema: Json, path: str = "$") -> list[tuple[str, Json]]:
    """Every object with named fields in a schema, with where it stands."""
    found = [(path, schema["properties"])] if "properties" in schema else []
    below: dict[str, Any] = copy.copy(schema.get("properties", {}))
    below.update({f"$defs.{name}": part for name, part in schema.get("$defs", {}).items()})
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            below[name] = schema[name]
    for name, part in below.items():
        found += _tables(part, f"{path}.{name}")
    return found


def _text(part: Json) -> str:
    return str(part.get("description") or part.get("$ref") or "")
