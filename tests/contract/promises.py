"""What docs/reference promises: JSON Schemas and the AsyncAPI document, ready to hold messages against."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from edged.messages import Outbound

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"
Json = dict[str, Any]


@cache
def schemas() -> dict[str, Json]:
    """Every payload schema by the name of its file."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((REFERENCE / "schemas").glob("*.json"))}


@cache
def validator(name: str) -> Draft202012Validator:
    known: Registry[Json] = Registry().with_resources(
        (f"{other}.json", Resource.from_contents(schema)) for other, schema in schemas().items()
    )
    return Draft202012Validator(schemas()[name], registry=known)


def problems(name: str, document: object) -> list[str]:
    """What in `document` breaks the schema `name`, in words."""
    return [f"{error.json_path}: {error.message}" for error in validator(name).iter_errors(document)]


@cache
def asyncapi() -> Json:
    document: Json = json.loads((REFERENCE / "asyncapi.json").read_text("utf-8"))
    return document


def resolve(reference: str) -> Json:
    """The object that `#/a/b` means in the AsyncAPI document."""
    found: Any = asyncapi()
    for key in reference.removeprefix("#/").split("/"):
        found = found[key]
    assert isinstance(found, dict)
    return found


class Manner(NamedTuple):
    """One way in which messages of a channel are sent. `expiry`: seconds, 0 for none, or a schema of the seconds."""

    qos: int
    retain: bool
    expiry: int | Json

    def fits(self, item: Outbound) -> bool:
        if isinstance(self.expiry, int):
            expires = item.expiry_s == self.expiry
        else:  # none is sent until the period is known
            expires = item.expiry_s == 0 or Draft202012Validator(self.expiry).is_valid(item.expiry_s)
        return expires and (self.qos, self.retain) == (0 if item.qos0 else 1, item.retain)


class Channel(NamedTuple):
    """A topic that is published to. schema: name of its payload's (of a batch: of its first line), "" for no JSON."""

    name: str
    address: str
    schema: str
    manners: tuple[Manner, ...]


PLANT, UPSTREAM = "plant", "upstream"


@cache
def channels(server: str = PLANT) -> tuple[Channel, ...]:
    """Every channel of a broker that somebody sends to: on the plant's the daemon, on the hub's both sides."""
    manners: dict[str, list[Manner]] = {}
    for operation in asyncapi()["operations"].values():
        name = operation["channel"]["$ref"].rpartition("/")[2]
        if asyncapi()["channels"][name]["servers"] != [{"$ref": f"#/servers/{server}"}]:
            continue
        mqtt = operation["bindings"]["mqtt"]
        if operation["action"] == "send":
            manner = Manner(mqtt["qos"], mqtt["retain"], mqtt.get("messageExpiryInterval", 0))
            manners.setdefault(name, []).append(manner)
        elif server == UPSTREAM:
            manners.setdefault(name, [])
    return tuple(_channel(name, tuple(found)) for name, found in manners.items())


def _channel(name: str, manners: tuple[Manner, ...]) -> Channel:
    channel = asyncapi()["channels"][name]
    (message,) = channel["messages"].values()
    return Channel(name, channel["address"], payload_schema(resolve(message["$ref"])), manners)


def payload_schema(message: Json) -> str:
    """Name of the schema that a message is held against."""
    return Path(message["payload"].get("$ref") or message.get("x-header-line", {}).get("$ref", "")).stem


@cache
def records() -> dict[str, str]:
    """Schema of the payload of each kind of record in the streams alarm and health."""
    kinds = asyncapi()["components"]["messages"]["sync-batch"]["x-records"]
    return {kind: Path(reference["$ref"]).stem for kind, reference in kinds.items()}


def channel_of(topic: str, server: str = PLANT) -> Channel:
    """The one channel that `topic` belongs to."""
    found = [channel for channel in channels(server) if _pattern(channel.address).fullmatch(topic)]
    assert len(found) == 1, f"{topic} belongs to {[channel.name for channel in found] or 'no channel'}"
    return found[0]


def payload_problems(topic: str, payload: bytes) -> list[str]:
    """What is wrong with a payload on a topic; an empty one takes an alarm off the broker."""
    channel = channel_of(topic)
    if not payload:
        return [] if channel.name == "alarm" else [f"{topic}: empty"]
    if not channel.schema:
        return []
    return [f"{topic}{problem}" for problem in problems(channel.schema, json.loads(payload))]


def message_problems(item: Outbound) -> list[str]:
    """What in topic, payload, QoS, retain and expiry of a message is not as promised."""
    topic = item.topic.decode()
    channel = channel_of(topic)
    found = payload_problems(topic, item.payload)
    if not any(manner.fits(item) for manner in channel.manners):
        found.append(f"{topic}: retain {item.retain}, expiry {item.expiry_s} s, QoS 0 {item.qos0}: {channel.manners}")
    return found


@cache
def _pattern(address: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", _level, address))


def _level(parameter: re.Match[str]) -> str:
    """What may stand in the place of a parameter: one level, or one of the values that are listed."""
    values = asyncapi()["components"]["parameters"][parameter[1]].get("enum")
    return f"(?:{'|'.join(values)})" if values else "[^/]+"
