"""The AsyncAPI document is sound, and its topics are the ones that the code publishes: none missing, none invented."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edged.config import Config
from edged.messages import Outbound
from edged.mqtt.configured import link_settings
from tests.contract import scenes
from tests.contract.app_rig import configuration
from tests.contract.promises import PLANT, REFERENCE, UPSTREAM, asyncapi, channel_of, channels, problems, resolve

ROOT = "edged/v1/{site}/{gateway}"


async def test_every_documented_way_of_sending_is_used_and_every_topic_used_is_documented(tmp_path: Path) -> None:
    said = await scenes.the_whole_daemon(tmp_path)
    for scene in scenes.SCENES:
        said += await scene()
    used = {(channel.name, manner) for item in said for channel, manner in _manners(item)}
    documented = {(channel.name, str(manner)) for channel in channels() for manner in channel.manners}

    assert documented - used == {(name, how) for name, how in documented if name == "canary"}  # the link's own


def test_the_topics_that_the_link_itself_uses_are_documented(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    will = b'{"v":"edged.state/1"}'
    settings = link_settings(config, will)

    assert (channel_of(settings.will_topic).name, channel_of(settings.canary_topic).name) == ("state", "canary")
    assert settings.will_payload == will


def test_the_session_is_as_documented(tmp_path: Path) -> None:
    defaults: Config = configuration(tmp_path)
    said = asyncapi()["servers"]["plant"]["bindings"]["mqtt"]

    assert (said["keepAlive"], said["sessionExpiryInterval"], said["cleanSession"]) == (
        defaults.broker.keep_alive_s,
        defaults.broker.session_expiry_s,
        False,
    )
    assert said["lastWill"]["topic"] == f"{ROOT}/state"


def test_the_document_is_version_3_and_every_reference_leads_somewhere() -> None:
    document = asyncapi()
    assert document["asyncapi"] == "3.0.0"
    assert document["info"]["title"] == "edged"
    for reference in _references(document):
        if reference.startswith("#/"):
            assert resolve(reference)
        else:
            assert (REFERENCE / reference).is_file()


def test_every_operation_says_who_sends_what_and_how() -> None:
    for name, operation in asyncapi()["operations"].items():
        assert set(operation) == {"action", "channel", "summary", "bindings"}, name
        assert operation["action"] in {"send", "receive"}, name
        binding = operation["bindings"]["mqtt"]
        assert binding["qos"] in {0, 1}, name
        assert ("retain" in binding) == (operation["action"] == "send"), name


def test_every_channel_has_operations_explained_parameters_and_one_message() -> None:
    document = asyncapi()
    used = {operation["channel"]["$ref"].rpartition("/")[2] for operation in document["operations"].values()}
    assert used == set(document["channels"])
    for name, channel in document["channels"].items():
        address = channel["address"]
        if address is None:
            continue
        assert address.startswith(f"{ROOT}/"), name
        parameters = channel["parameters"]
        assert set(parameters) == set(re.findall(r"\{(\w+)\}", address)), name
        assert all(resolve(each["$ref"])["description"] for each in parameters.values()), name
        assert len(channel["messages"]) == 1, name


def test_no_topic_belongs_to_two_channels() -> None:
    for server in (PLANT, UPSTREAM):
        for channel in channels(server):
            topic = re.sub(r"\{\w+\}", "x", channel.address.replace("{stream}", "health"))
            assert channel_of(topic, server) == channel


def test_a_document_of_another_kind_is_noticed() -> None:
    assert problems("gap", {"v": "edged.dlq/1"}) != []


def _manners(item: Outbound) -> Iterator[tuple[Any, str]]:
    channel = channel_of(item.topic.decode())
    for manner in channel.manners:
        if manner.fits(item):
            yield channel, str(manner)


def _references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)
