"""The connection that questions come over: apart from the one for batches, so that neither holds up the other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edged.errors import EdgedError, LinkError
from edged.hub.broker import SUBSCRIBE_TIMEOUT_S, WATCH_EVERY_S, backoff_s, read_address
from edged.hub.broker_session import Message, Session
from edged.hub.inference import Asked, InferenceService, subscriptions
from edged.hub.settings import SHARE_GROUP

if TYPE_CHECKING:
    from edged.hub.broker import Surroundings
    from edged.hub.settings import BrokerTable

RECEIVE_MAXIMUM = 16
STABLE_AFTER_S = 30.0


class InferenceLink:
    """Keeps the connection up until cancelled; `fault` says why it is not. MQTT 5 only: answers need its properties."""

    def __init__(self, table: BrokerTable, service: InferenceService, around: Surroundings) -> None:
        self._table = table
        self._service = service
        self._around = around
        share = f"$share/{SHARE_GROUP}/" if table.shared else ""
        self._filters = subscriptions(table.root, around.sites, share)
        self.fault = "not connected yet"

    async def run(self) -> None:
        """Connect, and again whenever it ends."""
        attempt = 0
        clock = self._around.clock
        while True:
            begun_ns = clock.mono_ns()
            await self._one_session()
            attempt = 0 if clock.mono_ns() - begun_ns > STABLE_AFTER_S * 1e9 else attempt + 1
            await asyncio.sleep(backoff_s(attempt, self._around.chance()))

    async def _one_session(self) -> None:
        session: Session | None = None
        try:
            address = await asyncio.to_thread(read_address, self._table, f"i{self._around.worker}")
            session = Session(address, "5", self._filters, RECEIVE_MAXIMUM, self._arrived, lambda _reason: None)
            await asyncio.to_thread(session.open)
            await asyncio.wait({session.up}, timeout=SUBSCRIBE_TIMEOUT_S)
            if not session.up.done():
                raise LinkError(f"the broker does not answer within {SUBSCRIBE_TIMEOUT_S:.0f} s")
            session.up.result()
            self.fault = ""
            while session.alive and not session.ended.done():
                await asyncio.wait({session.ended}, timeout=WATCH_EVERY_S)
            raise LinkError("the connection ended", hint="look at the broker's log")
        except (EdgedError, OSError, ValueError) as error:  # ValueError: paho's word for a hostname that is none
            self.fault = str(error) or type(error).__name__
            self._around.log.warning("inference_away", detail=self.fault)
        finally:
            if session is not None:
                await session.close()

    def _arrived(self, session: Session, message: Message) -> None:
        """In paho's thread."""
        session.done(message.token)  # nothing is kept: who asked asks again, or somebody else
        if message.retained:
            return

        def reply(topic: str, payload: bytes, correlation: bytes, expiry_s: int) -> str:
            return session.answer(topic, payload, qos=0, correlation=correlation, expiry_s=expiry_s)

        self._service.offer(Asked(message.topic, message.payload, message.answer_to, message.correlation, reply))
