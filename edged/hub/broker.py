"""The way to the gateways through a broker: keeps a connection, lets messages in by the door, answers them."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from edged.errors import EdgedError, LinkError
from edged.hub.broker_session import RECEIVE_MAXIMUM_FACTOR, Address, Message, Session
from edged.hub.configuration import secret
from edged.hub.decisions import Protocol, answer_topic, next_protocol, parse_topic, subscriptions
from edged.hub.receiver import Answer, Arrival, Receiver, cut, kind
from edged.hub.settings import DEFAULT_PORTS
from edged.hub.tls import client_context
from edged.sync.envelope import encode_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from edged.hub.metering import HubMetrics
    from edged.hub.settings import BrokerTable
    from edged.ops.logs import Log
    from edged.ports import Clock

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 30.0
STABLE_AFTER_S = 30.0
SUBSCRIBE_TIMEOUT_S = 15.0
WATCH_EVERY_S = 1.0
VIA = "mqtt"


class Surroundings(NamedTuple):
    """What the link needs besides its table. worker: its number, part of the client id. chance: 0 to 1."""

    worker: int
    sites: tuple[str, ...]
    max_inflight_batches: int
    clock: Clock
    log: Log
    metrics: HubMetrics
    chance: Callable[[], float]


def backoff_s(attempt: int, chance: float) -> float:
    """Pause before the next attempt after so many failed ones."""
    return min(BACKOFF_FIRST_S * (1 << min(attempt, 10)), BACKOFF_MAX_S) * (0.5 + 0.5 * chance)


def read_address(table: BrokerTable, who: str) -> Address:
    """Where to connect, as `who`. Blocks: reads certificates and secrets anew, they may have been replaced."""
    url = urlsplit(table.url)
    tls = client_context(table.ca_file, table.cert_file, table.key_file) if url.scheme == "mqtts" else None
    return Address(
        host=url.hostname or "",
        port=url.port or DEFAULT_PORTS[url.scheme],
        client_id=f"{table.client_id_prefix}-{who}-{secrets.token_hex(4)}",
        username=table.username,
        password=secret(table.password_file, table.password_credential),
        keep_alive_s=table.keep_alive_s,
        tls=tls,
    )


class BrokerLink:
    """One per worker. `run` keeps it up until `drain`; `fault` says why it is not."""

    def __init__(self, table: BrokerTable, receiver: Receiver, around: Surroundings) -> None:
        self._table = table
        self._receiver = receiver
        self._around = around
        self._filters = subscriptions(table.root, around.sites, shared=table.shared)
        self._session: Session | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._loop = asyncio.get_running_loop()
        self._draining: asyncio.Future[None] = self._loop.create_future()
        self._in_hand = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.fault = "not connected yet"
        self.denied = ""
        """Why the broker did not take our last answer; "" while it takes them."""

    # --- the connection ---

    async def run(self) -> None:
        """Connect, and again whenever it ends, until `drain`."""
        attempt, protocol, worked = 0, None, False
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            while not self._draining.done():
                protocol = next_protocol(self._table.protocol, protocol, worked)
                begun_ns = self._around.clock.mono_ns()
                worked, lasted = await self._one_session(protocol)
                stable = lasted and self._around.clock.mono_ns() - begun_ns > STABLE_AFTER_S * 1e9
                attempt = 0 if stable else attempt + 1
                await asyncio.wait({self._draining}, timeout=backoff_s(attempt, self._around.chance()))

    async def _one_session(self, protocol: Protocol) -> tuple[bool, bool]:
        """From connect to the end: (the version is not the reason for a failure, it was up)."""
        log = self._around.log
        session: Session | None = None
        try:
            address = await asyncio.to_thread(self._address)
            receive_maximum = min(self._around.max_inflight_batches * RECEIVE_MAXIMUM_FACTOR, 65_535)
            session = Session(address, protocol, self._filters, receive_maximum, self._arrived, self._on_denied)
            await asyncio.to_thread(session.open)
            await asyncio.wait({session.up}, timeout=SUBSCRIBE_TIMEOUT_S)
            if not session.up.done():
                raise LinkError(f"the broker does not answer within {SUBSCRIBE_TIMEOUT_S:.0f} s")
            session.up.result()
        except (EdgedError, OSError, ValueError) as error:  # ValueError: paho's word for a hostname that is none
            self._down(error)
            if session is not None:
                await session.close()
            return session is None or not session.refused_version, False
        self._session, self.fault, self.denied = session, "", ""
        self._around.metrics.connected()
        log.info("connected", protocol=protocol, client_id=address.client_id)
        try:
            await self._until_over(session)
        finally:
            self._session = None
            await session.close()
        return True, True

    async def _until_over(self, session: Session) -> None:
        over: set[asyncio.Future[Any]] = {session.ended, self._draining}
        while session.alive and not any(future.done() for future in over):
            await asyncio.wait(over, timeout=WATCH_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
        if self._draining.done():
            session.pause()
            await self._idle.wait()
        else:
            why = session.ended.result() if session.ended.done() else "paho's thread died"
            self._down(LinkError(f"the connection ended: {why}", hint="look at the broker's log"))

    def _down(self, error: Exception) -> None:
        self.fault = str(error) or type(error).__name__
        self._around.log.warning("broker_away", detail=self.fault)

    def _address(self) -> Address:
        return read_address(self._table, str(self._around.worker))

    def drain(self) -> None:
        """Take nothing more, answer what is in hand, say goodbye. `run` returns then."""
        if not self._draining.done():
            self._draining.set_result(None)

    def _on_denied(self, reason: str) -> None:
        self.denied = f"the broker refuses our answers: {reason}"
        self._around.metrics.unsent("denied")
        self._around.log.error("answer_denied", detail=reason)

    # --- messages: the first half in paho's thread ---

    def _arrived(self, session: Session, message: Message) -> None:
        """Decide at once whether there is room, so that nothing can pile up between paho's thread and the loop."""
        place = parse_topic(self._table.root, message.topic)
        if place is None or message.retained:
            self._post(self._ignored, session, message.token, "retained" if message.retained else "topic")
            return
        payload = cut(message.payload)
        arrival = Arrival(place, payload, len(message.payload), self._around.clock.mono_ns())
        if self._receiver.door.enter(place.sender, arrival.size_bytes):
            self._post(self._start, session, arrival, message.token)
            return
        self._answer(session, arrival, message.token, self._receiver.busy(arrival))

    def _post(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop is closed: the process ends
            pass

    def _answer(self, session: Session, arrival: Arrival, token: int, answer: Answer | None) -> None:
        """After the commit: the answer, then the acknowledgement, so that nobody takes over what is done."""
        metrics = self._around.metrics
        if answer is None:
            metrics.ignored("receiver_unknown")
        else:
            metrics.answer(VIA, kind(answer), answer.status, answer.reason)
            unsent = session.answer(answer_topic(self._table.root, arrival.place), encode_message(answer))
            if unsent:
                metrics.unsent(unsent)  # the gateway asks again
        session.done(token)

    # --- the second half, on the loop ---

    def _ignored(self, session: Session, token: int, reason: str) -> None:
        self._around.metrics.ignored(reason)
        session.done(token)

    def _start(self, session: Session, arrival: Arrival, token: int) -> None:
        if self._tasks is None or self._draining.done():  # too late: nobody acknowledges it, so it comes again
            self._receiver.door.leave(arrival.place.sender, arrival.size_bytes)
            return
        self._in_hand += 1
        self._idle.clear()
        self._tasks.create_task(self._handle(session, arrival, token))

    async def _handle(self, session: Session, arrival: Arrival, token: int) -> None:
        try:
            self._around.metrics.received(VIA, arrival.size_bytes)
            self._answer(session, arrival, token, await self._receiver.take(arrival))
        finally:
            self._receiver.door.leave(arrival.place.sender, arrival.size_bytes)
            self._in_hand -= 1
            if not self._in_hand:
                self._idle.set()
