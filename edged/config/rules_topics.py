"""Topic filters and device templates. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from edged.config.problems import Finding
from edged.config.rules_pipeline import is_path

# What gateways publish: edged/v1/{site}/{gateway}/{one of these}. Reading it back would be a loop.
ROOT_LEVELS = ("edged", "v1", None, None)
PUBLISHED = frozenset({"result", "last", "alarm", "state", "device", "mode", "health", "gap", "dlq", "meta"})
PUBLISHED |= {"cmd", "rsp", "sync", "desired", "reported", "event"}
MAX_FILTER_BYTES = 65_535  # the length of an MQTT string has 16 bits

_REFERENCE = re.compile(r"\{([^{}]*)\}")
_TOPIC = re.compile(r"topic\[(-?\d{1,4})\]")
_TEMPLATE_ALLOWED = "text with {topic[N]} (level N from 0, or from the end as -1) and {payload.path}"


def check_topics(topics: Sequence[str]) -> Iterator[Finding]:
    """Every filter is one that MQTT allows, and none reads what we write."""
    for index, topic in enumerate(topics):
        where = ("topics", index)
        if fault := filter_fault(topic):
            yield Finding(where, fault, topic, allowed="an MQTT topic filter such as plant/+/pump/#")
        elif topic in topics[:index]:
            yield Finding(where, "stands there twice", topic, cure="remove one")
        elif meets_root(topic):
            cure = 'name your own topics, for example "plant/#"'
            message = "would read back what the gateway publishes"
            yield Finding(where, message, topic, allowed="nothing that edged/v1/+/+/# matches", cure=cure)


def filter_fault(topic: str) -> str:
    """Why MQTT refuses the filter; "" when it does not."""
    if not topic:
        return "is empty"
    if "\0" in topic or len(topic.encode()) > MAX_FILTER_BYTES:
        return "is too long or contains a zero character"
    levels = topic.split("/")
    if levels[0] == "$share":
        return "is a shared subscription, which would split one device's events over several gateways"
    for index, level in enumerate(levels):
        if "#" in level and (level != "#" or index != len(levels) - 1):
            return "has a # that is not alone at the end"
        if "+" in level and level != "+":
            return "has a + that shares its level with text"
    return ""


def meets_root(topic: str) -> bool:
    """True when the filter matches some topic that a gateway publishes."""
    levels = topic.split("/")
    for level, ours in zip(levels, ROOT_LEVELS, strict=False):
        if level == "#":
            return True
        if ours is not None and level not in {"+", ours}:
            return False
    return len(levels) > len(ROOT_LEVELS) and levels[len(ROOT_LEVELS)] in PUBLISHED | {"+", "#"}


def check_device(template: str, topics: Sequence[str]) -> Iterator[Finding]:
    """The template is well formed and refers only to levels that every topic of every filter has."""
    where = ("device",)
    if not template or re.search(r"[{}+#/\x00]", _REFERENCE.sub("", template)):
        cure = "the name becomes one topic level: no / + # and no stray brace"
        yield Finding(where, "is not a device template", template, allowed=_TEMPLATE_ALLOWED, cure=cure)
        return
    for reference in _REFERENCE.findall(template):
        if match := _TOPIC.fullmatch(reference):
            yield from _check_level(template, int(match[1]), topics)
        elif not (reference.startswith("payload.") and is_path(reference)):
            yield Finding(
                where, f"refers to {{{reference}}}, which does not exist", template, allowed=_TEMPLATE_ALLOWED
            )


def _check_level(template: str, level: int, topics: Sequence[str]) -> Iterator[Finding]:
    for topic in topics:
        levels = topic.split("/")
        sure = len(levels) - (levels[-1] == "#")  # `a/#` matches `a`: the level of # may be absent
        if not -sure <= level < sure:
            yield Finding(
                ("device",),
                f"refers to level {level}, which topics of {topic} need not have",
                template,
                allowed=f"{{topic[0]}} to {{topic[{sure - 1}]}}" if sure else "no {topic[N]} with this filter",
                cure="name a level before the #, or use {payload.path}",
            )
            return
