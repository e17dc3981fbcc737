"""Every seam of the daemon on one page: what a part needs from the outside, as protocols. Doubles implement these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np

    from edged.messages import (
        EventColumns,
        Inbound,
        ModelInfo,
        Notice,
        Outbound,
        ResultColumns,
        Unit,
    )
    from edged.sync.piece import Piece
    from edged.sync.protocol import Probe, Stream, StreamExtent
    from edged.sync.ranges import Ranges

ClockQuality = Literal["synced", "holdover", "unsynced"]


class Clock(Protocol):
    """The host's clocks. Order, timers and deadlines use `mono_ns`; `wall_ms` is for people and payloads only."""

    @property
    def boot_id(self) -> str: ...

    def mono_ns(self) -> int: ...

    def wall_ms(self) -> int: ...

    def quality(self) -> ClockQuality: ...

    def error_ns(self) -> int | None:
        """Greatest error of the wall clock that the kernel admits; None when it does not say."""


# --- mqtt -------------------------------------------------------------------------------------------------------


class SessionInfo(NamedTuple):
    """What the broker granted. `refused`: (filter, reason) pairs; the link counts as up only for the rest."""

    generation: int
    protocol: Literal["5", "3.1.1"]
    session_present: bool
    receive_maximum: int
    max_packet_bytes: int
    refused: tuple[tuple[str, str], ...]


class LinkListener(Protocol):
    """What the engine wants to hear from the link. All calls are made on the loop and must not block or raise."""

    def on_inbox(self) -> None:
        """Messages wait in the link's inbox; called once per read, not per message."""

    def on_up(self, session: SessionInfo) -> None:
        """Connected and subscribed."""

    def on_down(self, code: str, detail: str) -> None:
        """Connection lost or refused; `code` is stable (`refused`, `half_open`, `taken_over`, `closed`, ...)."""

    def on_settled(self, acknowledged: Sequence[int], refused: Sequence[tuple[int, str]]) -> None:
        """Tokens the broker acknowledged, and tokens it refused with a reason code name."""

    def on_alarm(self, code: str, active: bool, detail: str) -> None:
        """A condition an operator must see (`duplicate_client_id`, `publish_denied`, `subscribe_denied`)."""


class Link(Protocol):
    """The connection to the plant's broker, batch-wise."""

    @property
    def generation(self) -> int:
        """Number of the current connection; 0 while down."""

    @property
    def free_slots(self) -> int:
        """QoS 1 publishes that may be sent now within the broker's receive maximum and our own window; 0 while down."""

    def take(self, limit: int) -> tuple[int, list[Inbound]]:
        """(generation, up to `limit` oldest messages); they count as unacknowledged until `send` acknowledges them."""

    def waiting(self) -> int:
        """Messages in the inbox not yet taken."""

    def send(
        self,
        publishes: Sequence[Outbound],
        acks: Sequence[int] = (),
        *,
        generation: int = 0,
        released_count: int = 0,
        released_bytes: int = 0,
    ) -> int:
        """One write: publishes (as many as there are free slots, oversize ones refused), then the acknowledgements.

        acks: packet ids in order of receipt, dropped and counted when `generation` is not the current one.
        released_*: how many taken messages and payload bytes are now safe, so that reading may resume.
        Returns the number of leading publishes consumed.
        """


# --- store ------------------------------------------------------------------------------------------------------


class Committed(NamedTuple):
    """What became durable with one unit, and what had to be given up to make room.

    evicted_unsent_results: by the cursors of that moment, which acknowledgements on their way have overtaken.
    evicted_result_upto: every result up to here is gone, when some went now; 0 when none went. Rows around alarms stay
    longer than others, so that more may be missing behind it: up to evicted_result_last.
    """

    batch: int
    bytes_used: int
    commit_us: int
    evicted_events: int
    evicted_results: int
    evicted_unsent_results: int
    evicted_result_upto: int = 0
    evicted_result_last: int = 0


class StoredResults(NamedTuple):
    first_seq: int
    columns: ResultColumns


class StoredNotices(NamedTuple):
    """Notices of one batch; the cursor for notices is the batch number."""

    batch: int
    notices: list[Notice]


class StoredEvents(NamedTuple):
    first_seq: int
    arrival_wall_ms: int
    arrival_mono_ns: int
    boot: str
    columns: EventColumns


class Journal(Protocol):
    """The durable log of units. One unit in flight at a time; the callback runs on the loop."""

    delivered_upto: int
    """Newest result the broker has; older rows go first when room is needed, and without a tombstone."""
    answered_upto: int
    """Newest event up to which every event is answered."""
    noticed_upto: int
    """Newest batch whose notices the broker has."""
    outward_streams: frozenset[Stream]
    """Streams that must be home before their rows are free. Empty: what the plant's broker has is free."""

    @property
    def epoch(self) -> str: ...

    def epoch_of_result(self, seq: int) -> str:
        """The epoch that `seq` was made in: results salvaged from a damaged store keep their identity."""

    def submit(self, unit: Unit, done: Callable[[Committed], None]) -> None:
        """Commit `unit`; retried inside until it is durable (a full disk is reported, nothing is dropped)."""

    async def read_results(self, first_seq: int, limit: int) -> list[StoredResults]:
        """Stored results from `first_seq` on, about `limit` rows: whole stored groups, trimmed at the start."""

    async def read_events(self, first_seq: int, limit: int) -> list[StoredEvents]: ...

    async def read_notices(self, after_batch: int, limit: int) -> list[StoredNotices]: ...

    async def save_snapshot(self, event_seq: int, blob: bytes) -> None:
        """Keep the folded state as of `event_seq` (all events <= it are in the fold); replaces the previous one."""

    async def save_meta(self, meta: bytes) -> None:
        """Replace the meta of the newest row: cursors that moved while nothing arrived."""

    def set_synced(self, stream: Stream, home: Ranges) -> None:
        """Everything of `stream` that is home."""

    async def give_up(self, stream: Stream, first: int, last: int, reason: str) -> None:
        """A tombstone for numbers whose rows the receiver refuses: from now on they are lost to it."""

    async def summarize(self, first: int, last: int, reason: str) -> None:
        """The results first..last that are not home go there as a summary by minute, with a tombstone."""

    async def fork(self, first_result: int) -> str:
        """A new epoch from the start on that made `first_result`: its earlier numbers are another history's.

        Returns the new epoch. The process must start again: what it knows of epochs and of what is home is outdated.
        """

    def trim(self) -> None:
        """Remove rows that nobody needs and give their space back, in small steps; cheap when there is none."""


# --- home -------------------------------------------------------------------------------------------------------


class Outward(Protocol):
    """The store as the uplink sees it: read-only, from another process, while the daemon writes. Blocking."""

    def extents(self) -> tuple[StreamExtent, ...]:
        """Every stream of every epoch, oldest first; the last of each stream is the current epoch's."""

    def probes(self, after_seq: int, limit: int) -> tuple[Probe, ...]:
        """First results of the newest `limit` starts of the daemon that made any beyond `after_seq`, oldest first."""

    def piece(self, stream: Stream, seq: int, limit: int) -> Piece | None:
        """What stands at `seq` and right behind it, at most `limit` numbers; None when `seq` is not made yet."""

    def close(self) -> None: ...


# --- infer ------------------------------------------------------------------------------------------------------


class Model(Protocol):
    """A loaded model, synchronous by design; hosted inline or on a lane."""

    @property
    def info(self) -> ModelInfo: ...

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        """One call for the whole batch. Raises `InferenceError`."""

    def close(self) -> None:
        """Idempotent, never raises."""
