"""Everything that leaves: retained topics, notices, results. Fills the window, reads back what waits in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from edged.messages import Outbound
from edged.policy.ledger import Ledger, add
from edged.publish.outbox import RETRY_LATER

if TYPE_CHECKING:
    from edged.messages import Notice
    from edged.ports import Committed, Journal, Link
    from edged.publish.board import Board
    from edged.publish.notices import NoticeBox
    from edged.publish.outbox import Outbox
    from edged.publish.result_json import ResultEncoder

RESULTS = "result"  # the ledger stream of results
EVICTED = "budget"  # given up for room, seen by this process
NOT_STORED = "not_stored"  # found missing: lost with a damaged store, or given up before the last start
REFILL_ROWS = 500  # results read back at once: about 400 KB of payloads
_CONTROL_SHARE = 4  # retained topics and notices each get at most this fraction of the window


class Loss(NamedTuple):
    """Results (inclusive, by seq) that were gone before anybody got them."""

    first: int
    last: int
    reason: str


class Delivery:
    """Sends in order and keeps the cursors. Everything but `refill` is synchronous."""

    def __init__(
        self,
        *,
        journal: Journal,
        encoder: ResultEncoder,
        outbox: Outbox,
        notices: NoticeBox,
        board: Board,
        ledger: Ledger,
    ) -> None:
        self.outbox = outbox
        self.notices = notices
        self.board = board
        self.link: Link | None = None
        self._journal = journal
        self._encoder = encoder
        self._terms = ledger.result(RESULTS)
        self._booked = outbox.delivered
        self._refused: dict[int, str] = {}  # by seq, until the cursor has passed them
        self._gone_upto = 0
        self._evicted_upto = 0
        """Newest result given up for room; before it, those around alarms may still stand."""
        self._losses: list[Loss] = []
        self._refill_wanted = asyncio.Event()
        self.idle = asyncio.Event()
        """Set while nothing waits for an acknowledgement, or nobody is there to give one."""
        self.idle.set()
        self._connection = 0
        self._historical_below = 0
        """Results before this one were made before the present connection: history for whoever listens."""

    # --- after a commit ---

    def committed(
        self,
        unit: Committed,
        results: Sequence[Outbound],
        notices: Sequence[Notice],
        *,
        generation: int,
        acks: Sequence[int],
        count: int,
        size: int,
    ) -> None:
        """What is durable may leave: results and notices first, then the acknowledgements, all in one write."""
        self._gone_upto = max(self._gone_upto, unit.evicted_result_upto)
        self._evicted_upto = max(self._evicted_upto, unit.evicted_result_upto, unit.evicted_result_last)
        self.outbox.offer(results)
        self.notices.offer(unit.batch, notices)
        self._update_idle()
        self.pump(acks, generation=generation, count=count, size=size)

    def pump(self, acks: Sequence[int] = (), *, generation: int = 0, count: int = 0, size: int = 0) -> None:
        """Send what fits into the window, and `acks` whether anything fits or not."""
        link = self.link
        if link is None:
            return
        slots = link.free_slots
        share = max(1, slots // _CONTROL_SHARE)
        control = self.board.peek(share) if slots and self.board.pending else []
        notices = self.notices.peek(min(share, slots - len(control))) if slots else []
        results = self.outbox.peek(slots - len(control) - len(notices)) if slots else []
        if control or notices or results or acks or count:
            used = link.send(
                [*control, *notices, *results] if control or notices else results,
                acks,
                generation=generation,
                released_count=count,
                released_bytes=size,
            )
            self.board.sent(control[:used])
            self.notices.sent(notices, max(0, min(len(notices), used - len(control))))
            self.outbox.sent(max(0, used - len(control) - len(notices)))
        if self._connection and (self.outbox.refill_from() is not None or self.notices.refill_from() is not None):
            self._refill_wanted.set()

    def send_unreliably(self, message: Outbound) -> None:
        """QoS 0, for what is worthless a moment later (health)."""
        if self.link is not None and self._connection:
            self.link.send([message._replace(qos0=True, token=0)])

    # --- what the link says ---

    def connected(self, generation: int) -> None:
        self._connection = generation
        self._historical_below = self.outbox.committed + 1
        self.board.connected()
        self._update_idle()
        self.pump()

    def disconnected(self) -> None:
        self._connection = 0
        self.outbox.rewind()
        self.notices.rewind()
        self._update_idle()

    def settled(self, acknowledged: Sequence[int], refused: Sequence[tuple[int, str]]) -> list[tuple[Outbound, str]]:
        """Move the cursors; returns results refused for good, for their letters."""
        letters = self._refuse(refused) if refused else []
        positive = acknowledged
        if acknowledged and min(acknowledged) < 0:
            positive = [token for token in acknowledged if token > 0]
            negative = [token for token in acknowledged if token < 0]
            self.board.settle(negative)
            self.notices.settle(negative)
        for token in self._refused.keys() & set(positive) if self._refused else ():
            del self._refused[token]  # refused on an earlier connection, taken on this one
        self.outbox.settle(positive)
        self._book()
        self._update_idle()
        self.pump()
        return letters

    def _refuse(self, refused: Sequence[tuple[int, str]]) -> list[tuple[Outbound, str]]:
        letters = []
        again = False
        for token, reason in refused:
            if token < 0:
                self.board.refuse([token])
                self.notices.refuse([token])
            elif reason in RETRY_LATER:
                again = True
            elif (item := self.outbox.in_flight_item(token)) is not None:
                letters.append((item, reason))
                self._refused[token] = reason
                self.outbox.settle([token])
        if again:
            self.outbox.rewind()
        return letters

    def _update_idle(self) -> None:
        if self._connection and self.outbox.waiting:
            self.idle.clear()
        else:
            self.idle.set()

    # --- the books ---

    def give_up(self) -> list[Loss]:
        """Pass over what is gone from the store; returns what was lost since the last call."""
        self.outbox.give_up_to(self._gone_upto)
        self._book()
        self._update_idle()
        losses, self._losses = self._losses, []
        return losses

    def _book(self) -> None:
        """Everything the cursor has passed was delivered, except what was refused and what was gone."""
        upto = self.outbox.delivered
        delivered = upto - self._booked
        if delivered <= 0:
            return
        self._booked = upto
        for first, last in self.outbox.take_holes():
            reason = EVICTED if first <= self._evicted_upto else NOT_STORED
            delivered -= last - first + 1
            add(self._terms.evicted, reason, last - first + 1)
            self._losses.append(Loss(first, last, reason))
        for token in [token for token in self._refused if token <= upto]:
            delivered -= 1
            add(self._terms.refused_by_broker, self._refused.pop(token))
        self._terms.delivered += delivered

    # --- reading back ---

    async def refill(self) -> None:
        """Runs for ever: reads back what waits in the store whenever the outbox has nothing ready."""
        while True:
            await self._refill_wanted.wait()
            self._refill_wanted.clear()
            await self.refill_once()

    async def refill_once(self) -> None:
        """Read back one portion of what waits, notices first."""
        await self._refill_notices()
        await self._refill_results()

    async def _refill_results(self) -> None:
        first = self.outbox.refill_from()
        connection = self._connection
        if first is None or not connection:
            return
        stored = await self._journal.read_results(first, REFILL_ROWS)
        if connection != self._connection or self.outbox.refill_from() != first:
            return  # the connection changed while we read: the cursor is elsewhere now
        if not stored:
            self.outbox.give_up_to(self.outbox.committed)
            return
        self.outbox.refill(
            chain.from_iterable(
                self._encoder.encode(
                    group.first_seq,
                    group.columns,
                    historical=group.first_seq < self._historical_below,
                    epoch=self._journal.epoch_of_result(group.first_seq),
                )
                for group in stored
            )
        )
        self.pump()

    async def _refill_notices(self) -> None:
        after = self.notices.refill_from()
        connection = self._connection
        if after is None or not connection:
            return
        stored = await self._journal.read_notices(after, REFILL_ROWS)
        if connection != self._connection or self.notices.refill_from() != after:
            return
        batches = [(group.batch, group.notices) for group in stored]
        self.notices.refill(batches, complete=len(batches) < REFILL_ROWS)
        self.pump()
