"""What a unit carries beside its rows: the books and the cursors, so that a restart knows where everything stands."""

from __future__ import annotations

import msgspec

from edged.errors import StoreCorrupt
from edged.policy.ledger import Ledger


class Meta(msgspec.Struct, kw_only=True):
    """Cumulative, written with every unit; the newest one counts.

    done: per pipeline, every event up to this seq is answered in the store.
    sent: every result up to this seq is acknowledged by the broker. notices: the same by batch number.
    session: a broker session exists, so its absence at the next connect is a gap.
    records: newest number used in the streams `alarm` and `health`.
    synced: per stream, what the receiver has committed.
    receiver: identity of the receiver that answered first; no other one may call anything home.
    """

    ledger: Ledger
    done: dict[str, int] = {}
    sent: int = 0
    notices: int = 0
    notice_batch: int = 0
    session: bool = False
    records: dict[str, int] = {}
    synced: dict[str, tuple[tuple[int, int], ...]] = {}
    receiver: str = ""

    def dump(self) -> bytes:
        return msgspec.json.encode(self)


def load_meta(data: bytes | None) -> Meta:
    """The meta of a unit; a fresh one for a new store. Raises `StoreCorrupt` when it cannot be read."""
    if data is None:
        return Meta(ledger=Ledger())
    try:
        return msgspec.json.decode(data, type=Meta)
    except msgspec.DecodeError as error:
        raise StoreCorrupt(
            f"reading the newest row of the store: its books are no valid JSON ({error})",
            hint="run `edged store verify`; a store written by a newer edged needs that version",
        ) from error
