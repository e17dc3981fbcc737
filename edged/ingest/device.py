"""Device names from a template over topic and payload, safe to stand as one level of our own topics."""

from __future__ import annotations

import re

from edged.errors import ConfigError, Refused

MAX_DEVICE_BYTES = 128
_CACHE_LIMIT = 20_000  # remembered devices; twice the default device limit, so that honest plants never refill it

_PLACEHOLDER = re.compile(r"\{(?:topic\[(-?\d{1,4})\]|payload\.([^{}]+))\}")
# `+ # /` would change the topic; brokers close the connection on control and non-characters (MQTT 5, 1.5.4).
_FORBIDDEN = re.compile(
    "[+#/\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
    + "]"
)


class DeviceTemplate:
    """A parsed template such as `{topic[1]}-{payload.unit.id}`; text between the placeholders is kept.

    Raises:
        ConfigError: a brace that belongs to no known placeholder.
    """

    def __init__(self, template: str) -> None:
        self.payload_paths: tuple[str, ...] = ()
        self._parts: list[str | int | None] = []  # text, a topic level, or None for the next payload value
        self._known: dict[str | tuple[str, tuple[str | int, ...]], str] = {}
        end = 0
        for found in _PLACEHOLDER.finditer(template):
            self._parts.append(_plain_text(template, template[end : found.start()]))
            level, path = found.groups()
            self._parts.append(None if level is None else int(level))
            self.payload_paths += (path,) if path is not None else ()
            end = found.end()
        self._parts.append(_plain_text(template, template[end:]))

    def name(self, topic: str, values: tuple[str | int, ...] = ()) -> str:
        """The device of one event; `values` stood at `payload_paths`, in that order.

        Raises:
            Refused: `bad_device`.
        """
        key = (topic, values) if values else topic
        device = self._known.get(key)
        if device is None:
            device = checked_device(self._fill(topic, values))
            if len(self._known) >= _CACHE_LIMIT:
                self._known.clear()
            self._known[key] = device
        return device

    def _fill(self, topic: str, values: tuple[str | int, ...]) -> str:
        levels = topic.split("/")
        remaining = iter(values)
        text = []
        for part in self._parts:
            if part is None:
                text.append(str(next(remaining)))
            elif isinstance(part, str):
                text.append(part)
            elif -len(levels) <= part < len(levels):
                text.append(levels[part])
            else:
                raise Refused(
                    "bad_device", f"level {part} of the topic is needed, it has levels 0 to {len(levels) - 1}"
                )
        return "".join(text)


def _plain_text(template: str, text: str) -> str:
    if "{" in text or "}" in text:
        raise ConfigError(
            f"device = {template!r}: cannot read {text!r}",
            hint="use {topic[N]} with N counted from 0 (or -1 from the end), or {payload.dotted.path}",
        )
    return text


def checked_device(name: str) -> str:
    """Return `name` if it can stand as one topic level, else raise `Refused("bad_device")`."""
    if not name:
        raise Refused("bad_device", "the device name is empty")
    size_bytes = len(name.encode(errors="surrogatepass"))
    if size_bytes > MAX_DEVICE_BYTES:
        raise Refused("bad_device", f"the device name has {size_bytes} bytes, at most {MAX_DEVICE_BYTES} are allowed")
    if bad := _FORBIDDEN.search(name):
        raise Refused("bad_device", f"the device name {name!r} contains {bad.group()!r}, which no topic level may")
    return name
