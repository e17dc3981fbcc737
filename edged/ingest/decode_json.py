"""JSON payloads → events. Every payload becomes values or a reason; nothing raises.

The shape a source declares is compiled into a msgspec struct once, so that decoding, types and limits are one call
into C per event; everything else in the payload is checked for syntax and skipped without being built.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from operator import attrgetter
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from edged.errors import ConfigError, Refused
from edged.ingest.device import MAX_DEVICE_BYTES, DeviceTemplate
from edged.ingest.event_time import ts_reader, ts_type
from edged.ingest.shape import ABSENT, Leaf, compile_shape
from edged.ingest.spec import SourceSpec

# (device, ts in Unix ms, seq, boot, row of `width` floats, the JSON of exactly this event)
Parsed = tuple[str, int | None, int | None, str | None, tuple[float, ...], bytes]

LARGEST_VALUE = 3.4028234663852886e38  # beyond it a float32 model would see infinity
LARGEST_SEQ = 2**63 - 1
LONGEST_BOOT = 64
_LONGEST_DETAIL = 200
_BLANK = b" \t\r\n"

_INTEGER = Annotated[int, Meta(ge=-(2**63), le=LARGEST_SEQ)]
_SEQ = Annotated[int, Meta(ge=0, le=LARGEST_SEQ)] | None
_BOOT = Annotated[str, Meta(max_length=LONGEST_BOOT)] | _INTEGER | None
_DEVICE = Annotated[str, Meta(max_length=MAX_DEVICE_BYTES)] | _INTEGER

# How a message of msgspec begins → our reason; a test holds the table against the installed version.
_REASONS = {
    "Object missing required field": "missing_field",
    "Expected `array` of length": "wrong_length",
    "Expected `str` of length": "out_of_range",
    "Expected `int` ": "out_of_range",  # followed by the limit; a wrong type reads "Expected `int`, got"
    "Expected `float` ": "out_of_range",
    "Number out of range": "out_of_range",
    "Integer value out of range": "out_of_range",
    "Invalid RFC3339": "bad_ts",
}


class JsonSource:
    """Decoder of one source.

    Raises:
        ConfigError: the spec contradicts itself.
    """

    def __init__(self, spec: SourceSpec) -> None:
        self._max_payload_bytes = spec.max_payload_bytes
        self._template = DeviceTemplate(spec.device)
        self._width = len(spec.fields) if spec.width is None else spec.width
        self._waveforms = self._width != len(spec.fields)
        ts = spec.ts if spec.ts_source == "payload" else ""
        struct, attributes = compile_shape(_leaves(spec, ts, self._template.payload_paths, self._width))
        attributes[""] = ABSENT
        paths = (ts, spec.seq, spec.boot, *self._template.payload_paths, *spec.fields)
        self._decode: Callable[[bytes], object] = msgspec.json.Decoder(struct).decode
        self._values: Callable[[object], tuple[Any, ...]] = attrgetter(*(attributes[path] for path in paths))
        self._row = 3 + len(self._template.payload_paths)  # where the row begins in what `_values` returns
        self._ts_ms = ts_reader(spec.ts_unit)
        self._reason_at = {f"- at `$.{path}`": "bad_device" for path in self._template.payload_paths}
        self._reason_at[f"- at `$.{ts}`"] = "bad_ts"
        self._split = msgspec.json.Decoder(Annotated[list[msgspec.Raw], Meta(max_length=spec.max_events)]).decode

    def parse(self, topic: str, payload: bytes) -> list[Parsed | Refused]:
        """The events of one message, in order; a refused element stands in its place as a `Refused` value.

        Reasons: `empty`, `too_large`, `not_utf8`, `not_json`, `too_deep`, `too_many_events`, `wrong_type`,
        `missing_field`, `out_of_range`, `wrong_length`, `bad_ts`, `bad_device`.
        """
        if len(payload) > self._max_payload_bytes:
            return [Refused("too_large", f"{len(payload)} bytes, at most {self._max_payload_bytes} are allowed")]
        if not payload.isascii():
            try:
                payload.decode()  # skipped parts are not decoded, yet they are stored and sent on as JSON
            except UnicodeDecodeError as error:
                return [Refused("not_utf8", str(error)[-_LONGEST_DETAIL:])]
        if payload[:1] == b"{":
            return [self._event(topic, payload)]
        first = payload.lstrip(_BLANK)[:1]
        if first == b"[":
            return self._array(topic, payload)
        return [self._event(topic, payload) if first else Refused("empty", "the payload is empty")]

    def reread(self, topic: str, payload: bytes) -> tuple[float, ...] | None:
        """The row of a stored event; None when this source cannot read it (any more)."""
        (parsed,) = self.parse(topic, payload)
        return None if isinstance(parsed, Refused) else parsed[4]

    def _array(self, topic: str, payload: bytes) -> list[Parsed | Refused]:
        try:
            elements = self._split(payload)
        except msgspec.ValidationError as error:
            return [Refused("too_many_events", str(error))]
        except (msgspec.DecodeError, RecursionError) as error:
            return [self._refusal(error)]
        if not elements:
            return [Refused("empty", "the array holds no event")]
        return [self._event(topic, bytes(element)) for element in elements]

    def _event(self, topic: str, payload: bytes) -> Parsed | Refused:
        try:
            values = self._values(self._decode(payload))
            row = values[self._row :]
            if self._waveforms:
                row = self._flat(row)
            device = self._template.name(topic, values[3 : self._row])
        except (msgspec.DecodeError, RecursionError) as error:
            return self._refusal(error)
        except Refused as refused:
            return refused
        ts, seq, boot = values[:3]
        if ts is not None:
            ts = self._ts_ms(ts)
            if ts is None:
                return Refused("bad_ts", "the event time is before 1970 or after 2200; is ts_unit right?")
        if boot is not None:
            boot = str(boot)
        return device, ts, seq, boot, row, payload

    def _flat(self, values: tuple[Any, ...]) -> tuple[float, ...]:
        """Waveforms one after the other, as the fields are declared; several waveforms must be equally long."""
        if len(values) == 1 and values[0].__class__ is list and len(values[0]) == self._width:
            return tuple(values[0])  # by far the most frequent shape: one field, one waveform
        waves = [value for value in values if isinstance(value, list)]
        row = tuple(chain.from_iterable(value if isinstance(value, list) else (value,) for value in values))
        unequal = any(len(wave) != len(waves[0]) for wave in waves)
        # where any width will do, the samples of each field must still be told apart afterwards
        fits = len(row) == self._width if self._width else row and len(waves) in {0, len(values)}
        if unequal or not fits:
            wanted = self._width or "the same number of"
            raise Refused("wrong_length", f"expected {wanted} numbers in equal waveforms, got {len(row)}")
        return row

    def _refusal(self, error: msgspec.DecodeError | RecursionError) -> Refused:
        text = str(error)[:_LONGEST_DETAIL]
        if isinstance(error, RecursionError):
            return Refused("too_deep", text)
        if not isinstance(error, msgspec.ValidationError):
            return Refused("not_json", text)
        for place, reason in self._reason_at.items():
            if text.endswith(place):
                return Refused(reason, text)
        return Refused(
            next((reason for start, reason in _REASONS.items() if text.startswith(start)), "wrong_type"), text
        )


def _leaves(spec: SourceSpec, ts: str, device_paths: tuple[str, ...], width: int) -> dict[str, Leaf]:
    if not spec.fields or 0 != width < len(spec.fields):
        raise ConfigError(f"a source needs fields and a number for each; got {len(spec.fields)} fields, width {width}")
    if unknown := sorted(spec.constraints.keys() - set(spec.fields)):
        raise ConfigError(f"constraints for {unknown[0]!r}, which is not one of the fields {list(spec.fields)}")
    leaves = {path: Leaf(_value_type(spec, path, width), required=True) for path in spec.fields}
    meta = {ts: Leaf(ts_type(spec.ts_unit), required=False)}
    for path, leaf in (
        (spec.seq, Leaf(_SEQ, required=False)),
        (spec.boot, Leaf(_BOOT, required=False)),
        *((path, Leaf(_DEVICE, required=True)) for path in device_paths),
    ):
        if path and path in meta and meta[path] != leaf:
            raise ConfigError(f"{path!r} is declared as two of ts, seq, boot and device")
        meta[path] = leaf
    meta.pop("", None)
    if both := sorted(leaves.keys() & meta.keys()):
        raise ConfigError(f"{both[0]!r} is a field and also ts, seq, boot or device")
    return leaves | meta


def _value_type(spec: SourceSpec, path: str, width: int) -> object:
    low, high = spec.constraints.get(path, (None, None))
    limits = Meta(
        ge=-LARGEST_VALUE if low is None else max(low, -LARGEST_VALUE),
        le=LARGEST_VALUE if high is None else min(high, LARGEST_VALUE),
    )
    number = Annotated[float, limits]
    if width == len(spec.fields):
        return number
    return number | Annotated[list[number], Meta(max_length=width or spec.max_payload_bytes)]
