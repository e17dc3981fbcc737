"""Dead letters and gap notices: what is refused or missing, on `R/dlq/{reason}` and `R/gap`. Pure; times come in."""

from __future__ import annotations

import hashlib
from base64 import b64encode

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
    return Notice("gap", _encode(body))


class LetterBox:
    """Writes at most one letter per reason and half second; the next one says how many were suppressed."""

    def __init__(self) -> None:
        self._last_ms: dict[str, int] = {}
        self._suppressed: dict[str, int] = {}

    def letter(
        self, reason: str, detail: str, *, topic: str, payload: bytes, mono_ms: int, wall_ms: int
    ) -> Notice | None:
        """A letter, or None when this one is only counted."""
        last = self._last_ms.get(reason)
        if last is not None and mono_ms - last < LETTER_INTERVAL_MS:
            self._suppressed[reason] = self._suppressed.get(reason, 0) + 1
            return None
        self._last_ms[reason] = mono_ms
        body = {
            "v": "edged.dlq/1",
            "topic": topic,
            "size": payload.size_bytes if isinstance(payload, Oversize) else len(payload),
            "sha256": payload.sha256 if isinstance(payload, Oversize) else hashlib.sha256(payload).hexdigest(),
            "head": b64encode(payload[:HEAD_BYTES]).decode(),
            "reason": reason,
            "detail": detail[:_DETAIL_CHARS],
            "suppressed": self._suppressed.pop(reason, 0),
            "ts": rfc3339_ms(wall_ms),
        }
        return Notice(f"dlq/{reason}", _encode(body))
