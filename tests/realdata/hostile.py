"""Hostile input as messages, each with what must come of it. The rules are written anew here, not taken from edged."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

MAX_DEVICE_BYTES = 128
MAX_BOOT_CHARS = 64

Fate = Literal["answered", "refused", "either"]


class Attack(NamedTuple):
    """One message. `{x}` in the payload is where its number goes, which comes back in the answer if there is one."""

    name: str
    topic: str
    payload: bytes
    fate: Fate

    def numbered(self, number: int) -> tuple[str, bytes]:
        return self.topic, self.payload.replace(b"{x}", b"%d" % number)


def read_strings(shared_data: Path) -> list[str]:
    """The naughty strings, each once."""
    return list(dict.fromkeys(json.loads((shared_data / "hostile" / "blns" / "blns.json").read_text())))


def attacks(shared_data: Path) -> list[Attack]:
    """The whole hostile set."""
    strings = read_strings(shared_data)
    files = sorted((shared_data / "hostile" / "json" / "test_parsing").iterdir())
    return [*_files(files), *_strings(strings)]


def _files(files: list[Path]) -> Iterator[Attack]:
    """JSON that is no event of ours, and the same beside the field of an event."""
    fates: dict[str, Fate] = {"y": "answered", "n": "refused", "i": "either"}
    for path in files:
        content = path.read_bytes()
        yield Attack(path.name, "plain/json", content, "refused")
        yield Attack(f"{path.name} inside", "plain/json", b'{"x":{x},"other":' + content + b"}", fates[path.name[0]])


def _strings(strings: list[str]) -> Iterator[Attack]:
    """Every string wherever a text can stand in an event or in its topic."""
    for text in strings:
        quoted = json.dumps(text, ensure_ascii=False).encode()
        yield Attack(f"raw {text!r}", "plain/text", text.encode(), "refused")
        yield Attack(f"value {text!r}", "plain/text", b'{"x":' + quoted + b"}", "refused")
        yield Attack(f"beside {text!r}", "plain/text", b'{"x":{x},"other":' + quoted + b"}", "answered")
        yield Attack(f"key {text!r}", "plain/text", b'{"x":{x},' + quoted + b":0}", "answered")
        yield Attack(f"ts {text!r}", "plain/text", b'{"x":{x},"ts":' + quoted + b"}", "refused")
        yield Attack(f"seq {text!r}", "plain/text", b'{"x":{x},"seq":' + quoted + b"}", "refused")
        boot: Fate = "answered" if len(text) <= MAX_BOOT_CHARS else "refused"
        yield Attack(f"boot {text!r}", "plain/boots", b'{"x":{x},"seq":1,"boot":' + quoted + b"}", boot)
        device: Fate = "answered" if is_device(text) else "refused"
        yield Attack(f"device {text!r}", "named", b'{"x":{x},"device":' + quoted + b"}", device)
        if is_topic(text):
            level: Fate = "answered" if is_device(text.split("/", 1)[0]) else "refused"
            yield Attack(f"topic {text!r}", f"plain/{text}", b'{"x":{x}}', level)


def is_device(text: str) -> bool:
    """Whether it can stand as one level of a topic that brokers carry."""
    return 0 < len(text.encode()) <= MAX_DEVICE_BYTES and "/" not in text and is_topic(text)


def is_topic(text: str) -> bool:
    """Whether it can be published to: no wildcards, no control characters, no non-characters (MQTT 5, 1.5.4)."""
    return not re.search("[+#]", text) and not any(
        unicodedata.category(char) in {"Cc", "Cs"} or ord(char) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(char) <= 0xFDEF
        for char in text
    )


def is_field(text: str) -> bool:
    """Whether it can be configured as a name of a top-level field."""
    return text == text.strip() and 0 < len(text) <= 128 and not re.search(r'[.\x00-\x1f"\\]', text)


def is_label(text: str) -> bool:
    return 0 < len(text) <= 128
