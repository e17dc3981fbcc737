"""Dead letters and gap notices: what is refused or missing, on `R/dlq/{reason}` and `R/gap`. Pure; times come in."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from typing import NamedTuple

import msgspec

from edged.messages import Notice, Oversize
from edged.timestamps import rfc3339_ms

HEAD_BYTES = 1024  # of the refused payload, enough to recognise the sender
LETTER_INTERVAL_MS = 500  # one letter per reason in this time passes; a flood is counted, not repeated
_DETAIL_CHARS = 400

_encode = msgspec.json.Encoder(order="deterministic").encode


def gap_notice(*, device: str | None, first: int, last: int, count: int, kind: str, wall_ms: int) -> Notice:
    """Say what is known to be missing: seqs `first` to `last`, inclusive."""
    body = {
        "v": "edged.gap/1",
        "device": device,
        "from": first,
        "to": last,
        "count": count,
        "kind": kind,
        "ts": rfc3339_ms(wall_ms),
    }
    return Notice("gap", _encode(body), stream="health", kind="gap")


class _HeldBack(NamedTuple):
    """The newest refusal of a reason that got no letter, and how many before it got none either."""

    detail: str
    topic: str
    payload: bytes
    earlier: int


class LetterBox:
    """Writes at most one letter per reason and half second; the next one says how many were suppressed.

    `overdue` writes that next one when no further refusal comes, so that in the end every refusal is told.
    """

    def __init__(self) -> None:
        self._last_ms: dict[str, int] = {}
        self._held: dict[str, _HeldBack] = {}

    def letter(
        self, reason: str, detail: str, *, topic: str, payload: bytes, mono_ms: int, wall_ms: int
    ) -> Notice | None:
        """A letter, or None when this one is held back for now."""
        last = self._last_ms.get(reason)
        held = self._held.get(reason)
        suppressed = 0 if held is None else held.earlier + 1
        if last is not None and mono_ms - last < LETTER_INTERVAL_MS:
            self._held[reason] = _HeldBack(detail, topic, payload, suppressed)
            return None
        self._last_ms[reason] = mono_ms
        self._held.pop(reason, None)
        return _letter(reason, detail, topic, payload, suppressed, wall_ms)

    def overdue(self, *, mono_ms: int, wall_ms: int) -> list[Notice]:
        """Letters for what was held back and is followed by nothing; call it a few times a second."""
        letters = []
        for reason, held in list(self._held.items()):
            if mono_ms - self._last_ms[reason] >= LETTER_INTERVAL_MS:
                self._last_ms[reason] = mono_ms
                del self._held[reason]
                letters.append(_letter(reason, held.detail, held.topic, held.payload, held.earlier, wall_ms))
        return letters


def _letter(reason: str, detail: str, topic: str, payload: bytes, suppressed: int, wall_ms: int) -> Notice:
    body = {
        "v": "edged.dlq/1",
        "topic": topic,
        "size": payload.size_bytes if isinstance(payload, Oversize) else len(payload),
        "sha256": payload.sha256 if isinstance(payload, Oversize) else hashlib.sha256(payload).hexdigest(),
        "head": b64encode(payload[:HEAD_BYTES]).decode(),
        "reason": reason,
        "detail": detail[:_DETAIL_CHARS],
        "suppressed": suppressed,
        "ts": rfc3339_ms(wall_ms),
    }
    return Notice(f"dlq/{reason}", _encode(body))
