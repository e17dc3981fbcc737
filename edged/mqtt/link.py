"""The link to the plant's broker: connects, reconnects, and is what the engine sees (`edged.ports.Link`)."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict

from edged.errors import LinkError
from edged.messages import Inbound, Outbound
from edged.mqtt.backoff import next_patience
from edged.mqtt.codec5 import Codec5
from edged.mqtt.codec311 import Codec311
from edged.mqtt.connection import DUPLICATE_CLIENT_ID, Connection, Ended
from edged.mqtt.counters import Counters, LinkStatistics
from edged.mqtt.frames import ConnectRequest, Message
from edged.mqtt.session import Alarms, InboundBudget, TakeoverWatch, VersionChoice
from edged.mqtt.settings import LinkSettings, read_secret
from edged.mqtt.tls import explain, make_context
from edged.ports import Clock, LinkListener


class MqttLink:
    """Implements `edged.ports.Link`. `run` keeps it connected until `close` or cancellation.

    Codes of `on_down`: unreachable, tls, credentials (a file of ours), timeout, refused, protocol_violation, half_open,
    taken_over, closed. Codes of `on_alarm`: duplicate_client_id, publish_denied, subscribe_denied.

    Args:
        settings: where and how to connect.
        listener: hears about messages, acknowledgements, and the state of the link.
        clock: monotonic time for keep-alive and durations.
        chance: uniform in [0, 1), spreads reconnects.
    """

    def __init__(
        self, settings: LinkSettings, listener: LinkListener, clock: Clock, chance: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._patience = 1.0
        self._listener = listener
        self._clock = clock
        self._chance = chance
        self._counters = Counters()
        self._alarms = Alarms(listener.on_alarm)
        self._budget = InboundBudget(max_count=settings.max_unacked_count, max_bytes=settings.max_unacked_bytes)
        self._takeovers = TakeoverWatch()
        self._version = VersionChoice(settings.protocol)
        self._connection: Connection | None = None
        self._left: deque[tuple[int, list[Message]]] = deque()  # not taken before their connection ended
        self._generation = 0
        self._closing = asyncio.Event()
        self._wake: asyncio.Future[None] | None = None  # resolved to end a wait between attempts
        self._deadline: asyncio.Timeout | None = None

    # --- edged.ports.Link ---

    @property
    def generation(self) -> int:
        connection = self._connection
        return connection.generation if connection is not None and connection.is_open else 0

    @property
    def free_slots(self) -> int:
        return self._connection.free_slots if self._connection is not None else 0

    def take(self, limit: int) -> tuple[int, list[Inbound]]:
        if self._left:
            generation, messages = self._left[0]
            taken, rest = messages[:limit], messages[limit:]
            if rest:
                self._left[0] = (generation, rest)
            else:
                self._left.popleft()
        elif self._connection is None:
            return 0, []
        else:
            connection = self._connection
            generation, taken = connection.generation, connection.inbox
            connection.inbox = taken[limit:] if len(taken) > limit else []
            del taken[limit:]
        return generation, taken  # type: ignore[return-value]  # plain tuples of the same shape, as they are faster

    def waiting(self) -> int:
        waiting = sum(len(messages) for _, messages in self._left)
        return waiting + (len(self._connection.inbox) if self._connection is not None else 0)

    def send(
        self,
        publishes: Sequence[Outbound],
        acks: Sequence[int] = (),
        *,
        generation: int = 0,
        released_count: int = 0,
        released_bytes: int = 0,
    ) -> int:
        connection = self._connection
        if released_count or released_bytes:
            still_paused = self._budget.released(released_count, released_bytes)
            if not still_paused and connection is not None:
                connection.resume_reading()
        if acks and (connection is None or generation != connection.generation or not connection.is_open):
            self._counters.acks_stale += len(acks)
            acks = ()
        return connection.send(publishes, acks) if connection is not None else 0

    # --- life ---

    async def run(self) -> None:
        """Connect, again and again, until `close` or cancellation. Failures are told to the listener, never raised."""
        failures = 0
        while not self._closing.is_set():
            if self._budget.twice_full:  # even the first read of a new connection would be too much
                await self._rest(1.0)
                continue
            ended = await self._live_once()
            if self._closing.is_set():
                return
            backoff = self._settings.backoff
            failures = backoff.failures_after(failures, ended.up_s)
            delay_s = backoff.delay_s(failures, self._chance())
            self._patience = next_patience(
                self._patience, self._settings.patience_most, ended.code, ended.up_s, backoff.stable_s
            )
            if self._learn_from(ended):
                delay_s = 0.0
            self._listener.on_down(ended.code, ended.detail)
            await self._rest(delay_s)

    async def close(self, farewell: Outbound | None = None, *, drain_s: float = 2.0) -> None:
        """Disconnect so that no Will is sent, after `farewell` is published.

        drain_s: how long to wait for the acknowledgements of what was sent, and again for that of `farewell`.
        """
        self._closing.set()
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(0.0)  # an attempt that is under way need not be finished
        connection = self._connection
        if connection is None:
            return
        await connection.emptied(drain_s)
        if farewell is not None:
            connection.send([farewell], ())
            await connection.emptied(drain_s)
        connection.goodbye("closed", "we disconnected")
        await asyncio.wait((connection.ended,))

    def statistics(self) -> LinkStatistics:
        connection = self._connection
        return LinkStatistics(
            **asdict(self._counters),
            unacked_count=self._budget.count,
            unacked_bytes=self._budget.bytes,
            inflight=len(connection.window.inflight) if connection is not None else 0,
            write_buffer_bytes=connection.write_buffer_bytes if connection is not None else 0,
        )

    # --- one connection ---

    async def _live_once(self) -> Ended:
        """Connect, live, and return why it ended."""
        settings = self._settings.patient(self._patience)
        self._counters.attempts += 1
        connection: Connection | None = None
        try:
            try:
                async with asyncio.timeout(settings.connect_timeout_s) as deadline:
                    self._deadline = deadline
                    connection = await self._open(settings)
                    self._connection = connection
                    await connection.accepted
            except TimeoutError:
                detail = f"{settings.host}:{settings.port} did not answer within {settings.connect_timeout_s} s"
                if connection is None:
                    return Ended("timeout", detail)
                connection.abort("timeout", detail)
            except LinkError as error:
                return Ended("credentials", str(error))
            except ssl.SSLError as error:
                return Ended("tls", str(explain(error, settings.host, settings.port)))
            except (OSError, UnicodeError) as error:  # UnicodeError: the host cannot be a name at all
                return Ended("unreachable", f"connecting to {settings.host}:{settings.port}: {error}")
            self._deadline = None
            ended = await asyncio.shield(connection.ended)
        finally:
            self._connection = self._deadline = None
            if connection is not None:
                connection.abort("closed", "the daemon stopped")
                if connection.inbox:
                    self._left.append((connection.generation, connection.inbox))
        if ended.code == "taken_over":
            self._counters.takeovers += 1
        return ended

    async def _open(self, settings: LinkSettings) -> Connection:
        loop = asyncio.get_running_loop()
        password = await loop.run_in_executor(None, read_secret, settings.password)
        context = await loop.run_in_executor(None, make_context, settings.tls) if settings.tls else None
        codec = (Codec5 if self._version.version == "5" else Codec311)(settings.max_packet_bytes)
        hello = codec.connect(
            ConnectRequest(
                client_id=settings.client_id,
                keep_alive_s=settings.keep_alive_s,
                session_expiry_s=settings.session_expiry_s,
                receive_maximum=settings.receive_maximum,
                username=settings.username,
                password=password,
                will_topic=settings.will_topic,
                will_payload=settings.will_payload,
                will_delay_s=settings.will_delay_s,
            )
        )
        connection = Connection(
            settings,
            codec,
            hello,
            self._next_generation,
            self._listener,
            self._alarms,
            self._budget,
            self._counters,
            self._clock,
        )
        server_name = (settings.tls.server_name or settings.host) if settings.tls else None
        await loop.create_connection(
            lambda: connection, settings.host, settings.port, ssl=context, server_hostname=server_name
        )
        return connection

    def _next_generation(self) -> int:
        self._generation += 1
        return self._generation

    def _learn_from(self, ended: Ended) -> bool:
        """Draw conclusions from an end; return whether to try again at once, in another MQTT version."""
        suspected = self._takeovers.ended(taken_over=ended.code == "taken_over", connected_s=ended.connected_s)
        if suspected:
            client_id = self._settings.client_id
            self._alarms.set(DUPLICATE_CLIENT_ID, True, f"another client seems to use the client id {client_id!r}")
        if ended.connected_s is not None:
            self._version.accepted()
        elif ended.silent:
            self._version.silently_closed()
        return ended.unsupported_version and self._version.refused()

    async def _rest(self, delay_s: float) -> None:
        self._wake = asyncio.get_running_loop().create_future()
        await asyncio.wait((self._wake,), timeout=delay_s)
