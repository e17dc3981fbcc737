"""What is sent at once: consecutive numbers of one stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from edged.messages import RecordColumns, ResultColumns, TelemetryColumns
    from edged.sync.protocol import Lost, Stream


class Piece(NamedTuple):
    """Consecutive numbers of one stream, of one epoch, all with rows or all without.

    rows: columns of the stream (`ResultColumns`, `TelemetryColumns` or `RecordColumns`); None when `lost` says why.
    base: first number of the stream in this epoch. boot, clock: of the newest row.
    """

    stream: Stream
    epoch: str
    base: int
    first: int
    last: int
    boot: str
    clock: str
    rows: ResultColumns | TelemetryColumns | RecordColumns | None
    lost: Lost | None
