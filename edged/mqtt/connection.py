"""One TCP connection to the broker, from CONNECT to its end. A new one is made for each attempt, so nothing lingers."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from enum import Enum, auto
from operator import itemgetter
from typing import NamedTuple, cast

from edged.errors import ProtocolViolation
from edged.messages import Outbound
from edged.mqtt.counters import Counters
from edged.mqtt.frames import (
    CONNACK,
    UNSUPPORTED_VERSION,
    Codec,
    ConnAck,
    Control,
    Farewell,
    Message,
    Pong,
    Refusal,
    SubAck,
)
from edged.mqtt.liveness import Liveness
from edged.mqtt.outbound import OutboundWindow, pack_acks
from edged.mqtt.session import Alarms, InboundBudget
from edged.mqtt.settings import LinkSettings
from edged.mqtt.tls import explain
from edged.ports import Clock, LinkListener, SessionInfo

PINGREQ = b"\xc0\x00"
ABORT_AFTER_S = 1.0  # how long a polite close may take before the socket is simply dropped
PUBLISH_DENIED = "publish_denied"
SUBSCRIBE_DENIED = "subscribe_denied"
DENIED = "not_authorized"
DENIED_HOLD_S = 60.0  # the alarm clears when no publish was denied for this long
DUPLICATE_CLIENT_ID = "duplicate_client_id"
NEVER_NS = 1 << 63
_NS = 1_000_000_000
_payload_of = itemgetter(2)


class Phase(Enum):
    """Where a connection stands. Only UP publishes; messages are taken from CONNACK on."""

    CONNECTING = auto()
    SUBSCRIBING = auto()
    UP = auto()
    ENDED = auto()


class Ended(NamedTuple):
    """Why and when a connection ended. connected_s: since CONNACK (None: there was none); up_s: since on_up."""

    code: str
    detail: str
    connected_s: float | None = None
    up_s: float = 0.0
    silent: bool = False  # closed without a single byte
    unsupported_version: bool = False


class Connection(asyncio.Protocol):
    """The hot path: one `data_received` per read, one `transport.write` per `send`.

    accepted: resolved by CONNACK, or when the connection has ended. ended: resolved with the reason.
    """

    def __init__(
        self,
        settings: LinkSettings,
        codec: Codec,
        hello: bytes,
        next_generation: Callable[[], int],
        listener: LinkListener,
        alarms: Alarms,
        budget: InboundBudget,
        counters: Counters,
        clock: Clock,
    ) -> None:
        self.inbox: list[Message] = []
        self.generation = 0
        self.window = OutboundWindow(limit=0, max_packet_bytes=0, with_properties=False, retain_allowed=False)
        self._settings = settings
        self._codec = codec
        self._hello = hello
        self._next_generation = next_generation
        self._listener = listener
        self._alarms = alarms
        self._budget = budget
        self._counters = counters
        self._now_ns = clock.mono_ns
        self._loop = asyncio.get_running_loop()
        self.accepted: asyncio.Future[None] = self._loop.create_future()
        self.ended: asyncio.Future[Ended] = self._loop.create_future()
        self._emptied: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._phase = Phase.CONNECTING
        self._session: ConnAck | None = None
        self._subscribe_id = 0
        self._short_read = False  # one read while paused, so that the keep-alive holds
        self._writable = True
        self._heard = False
        self._unsupported_version = False
        self._why: tuple[str, str] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._connected_ns = self._up_ns = 0
        self._denied_ns = self._now_ns()
        self._alive = self._watch(settings.keep_alive_s)
        self._canary_due_ns = 0  # 0: none expected

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._settings.max_write_buffer_bytes)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._settings.keep_alive_s * 1500)
        self._transport.write(self._hello)
        self._schedule_tick()

    def data_received(self, data: bytes) -> None:
        if self._phase is Phase.ENDED:
            return
        self._alive.heard(self._now_ns())
        if not self._heard and data[0] != CONNACK:
            self._heard = True
            self._violated(ProtocolViolation(f"waiting for CONNACK: the broker began with {data[:20]!r}"))
            return
        self._heard = True
        inbox = self.inbox
        before = len(inbox)
        acked: list[int] = []
        in_large_packet = self._codec.in_large_packet
        try:
            controls = self._codec.feed(data, inbox, acked)
        except ProtocolViolation as violation:
            self._violated(violation)
            controls = []
        if self._phase is Phase.CONNECTING and controls:
            self._on_control(controls.pop(0))
        if not self.generation:  # CONNACK is incomplete, or a refusal: whatever came with it is not for us
            inbox.clear()
            return
        if self._canary_due_ns:
            self._look_for_canary(before)
        # Counted before anybody is told: the listener may take them at any of the calls that follow.
        count = len(inbox) - before
        if count:
            self._count_messages(inbox[before:] if before else inbox)
        for control in controls:
            self._on_control(control)
        if acked:
            self._on_acked(acked)
        if count:
            self._listener.on_inbox()
        if in_large_packet or self._codec.in_large_packet:  # acknowledgements cannot overtake it, however slow the line
            self._alive.progress_ns = self._alive.read_ns
        if self._budget.paused and not self._alive.paused_ns and self.is_open:
            self._pause_reading()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._phase is Phase.UP:
            self._listener.on_settled((), ())  # nothing settled, but there are free slots again

    def connection_lost(self, exc: Exception | None) -> None:
        self._phase = Phase.ENDED
        if self._timer is not None:
            self._timer.cancel()
        if isinstance(exc, ssl.SSLError):
            self._why = self._why or ("tls", str(explain(exc, self._settings.host, self._settings.port)))
        silent = not self._heard and self._why is None
        code, detail = self._why or ("closed", f"the broker closed the connection: {exc or 'end of stream'}")
        now = self._now_ns()
        if not self.ended.done():
            self.ended.set_result(
                Ended(
                    code,
                    detail,
                    connected_s=(now - self._connected_ns) / _NS if self._connected_ns else None,
                    up_s=(now - self._up_ns) / _NS if self._up_ns else 0.0,
                    silent=silent,
                    unsupported_version=self._unsupported_version,
                )
            )
        for waiter in (self.accepted, self._emptied):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    # --- used by the link ---

    @property
    def is_open(self) -> bool:
        return self._phase is Phase.SUBSCRIBING or self._phase is Phase.UP

    @property
    def free_slots(self) -> int:
        return self.window.free if self._phase is Phase.UP and self._writable else 0

    @property
    def write_buffer_bytes(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None and self.is_open else 0

    def send(self, publishes: Sequence[Outbound], acks: Sequence[int]) -> int:
        """Write publishes, then acknowledgements, in one piece; return how many publishes were consumed."""
        transport = self._transport
        if transport is None or not self.is_open:
            return 0
        window, counters = self.window, self._counters
        parts: list[bytes] = []
        consumed = 0
        if publishes and self._phase is Phase.UP and self._writable:
            refused: list[tuple[int, str]] = []
            if not window.inflight:
                self._alive.progress_ns = self._now_ns()  # nothing was awaited until now
            consumed = window.pack(publishes, parts, refused)
            counters.published += consumed - len(refused)
            if refused:  # told later: the caller is in the middle of its turn
                counters.publishes_refused += len(refused)
                self._loop.call_soon(self._listener.on_settled, (), [item for item in refused if item[0]])
        if acks:
            parts.append(pack_acks(acks))
            counters.acks_sent += len(acks)
        if parts:
            transport.write(b"".join(parts))
            self._alive.written_ns = self._now_ns()
        return consumed

    def resume_reading(self) -> None:
        """Read again, if reading had paused."""
        if self._alive.paused_ns and self._transport is not None and self.is_open:
            self._alive.resumed(self._now_ns())
            self._transport.resume_reading()

    async def emptied(self, timeout_s: float) -> bool:
        """Wait until the broker has acknowledged everything sent; False when it did not in time."""
        if self.window.inflight and self.is_open:
            self._emptied = self._loop.create_future()
            await asyncio.wait((self._emptied,), timeout=timeout_s)
        return not self.window.inflight

    def end(self, code: str, detail: str, last_words: bytes = b"") -> None:
        """Close; the first reason given stands."""
        if self._why is None:
            self._why = (code, detail)
        self._phase = Phase.ENDED
        if self._transport is None or self._transport.is_closing():
            return
        if last_words:
            self._transport.write(last_words)
        self._transport.close()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(ABORT_AFTER_S, self._transport.abort)

    def abort(self, code: str, detail: str) -> None:
        """Drop the socket at once: nobody is listening on the other side."""
        self.end(code, detail)
        if self._transport is not None:
            self._transport.abort()

    def goodbye(self, code: str, detail: str) -> None:
        """Close with DISCONNECT: the broker forgets the Will."""
        self.end(code, detail, self._codec.disconnect() if self.is_open else b"")

    # --- what the broker says ---

    def _count_messages(self, messages: list[Message]) -> None:
        size_bytes = sum(map(len, map(_payload_of, messages)))
        self._counters.received += len(messages)
        self._counters.received_bytes += size_bytes
        self._counters.oversize += self._codec.take_oversize_count()
        self._budget.received(len(messages), size_bytes)

    def _on_acked(self, packet_ids: list[int]) -> None:
        window = self.window
        before = len(window.inflight)
        tokens = window.settle(packet_ids)
        known = before - len(window.inflight)
        self._counters.confirmed += known
        self._counters.confirms_unknown += len(packet_ids) - known
        self._alive.progress_ns = self._alive.read_ns
        if not window.inflight and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)
        self._listener.on_settled(tokens, ())

    def _on_control(self, control: Control) -> None:
        if self._phase is Phase.ENDED:
            return
        match control:
            case Pong():
                pass  # any byte proves life
            case Refusal(packet_id, reason):
                self._on_refusal(packet_id, reason)
            case ConnAck() if self._phase is Phase.CONNECTING:
                self._on_connack(control)
            case SubAck() if self._phase is Phase.SUBSCRIBING:
                self._on_suback(control)
            case Farewell(reason):
                code = "taken_over" if reason == "session_taken_over" else "closed"
                self.end(code, f"the broker disconnected us: {reason}")
            case _:
                self._violated(ProtocolViolation(f"{type(control).__name__} while {self._phase.name.lower()}"))

    def _on_connack(self, answer: ConnAck) -> None:
        if answer.reason:
            self._unsupported_version = answer.reason == UNSUPPORTED_VERSION
            self.end("refused", f"the broker refused client id {self._settings.client_id!r}: {answer.reason}")
            return
        if not answer.qos1_allowed:
            self.end("refused", "the broker allows QoS 0 only; QoS 1 is needed to lose nothing")
            return
        settings = self._settings
        self._session = answer
        if answer.keep_alive_s:  # 0 would turn it off, but then nobody would notice a half-open connection
            self._alive = self._watch(answer.keep_alive_s)
        self.window = OutboundWindow(
            limit=min(answer.receive_maximum, settings.max_inflight_out),
            max_packet_bytes=min(answer.max_packet_bytes, settings.max_publish_bytes),
            with_properties=self._codec.has_properties,
            retain_allowed=answer.retain_allowed,
        )
        self.generation = self._next_generation()
        self._connected_ns = self._now_ns()
        self._counters.connects += 1
        self._phase = Phase.SUBSCRIBING
        if not self.accepted.done():
            self.accepted.set_result(None)
        if not settings.filters and not self._canary:
            self._loop.call_soon(self._up, ())  # later: what came with CONNACK is not counted yet
            return
        assert self._transport is not None
        self._subscribe_id = self.window.next_id()
        self._transport.write(self._codec.subscribe(self._subscribe_id, settings.filters, self._canary))

    def _on_suback(self, answer: SubAck) -> None:
        wanted = self._settings.filters
        if answer.packet_id != self._subscribe_id or len(answer.reasons) != len(wanted) + bool(self._canary):
            self._violated(ProtocolViolation(f"SUBACK: {len(answer.reasons)} answers for {len(wanted)} filters"))
            return
        refused = tuple((name, why) for name, why in zip(wanted, answer.reasons, strict=False) if why)
        self._up(refused)

    def _up(self, refused: tuple[tuple[str, str], ...]) -> None:
        answer = self._session
        if answer is None or self._phase is not Phase.SUBSCRIBING:
            return  # ended meanwhile
        self._phase = Phase.UP
        self._up_ns = self._now_ns()
        if self._canary:  # before anybody else takes the last free slot
            self.send([Outbound(self._canary.encode(), b"%d" % self.generation, 0)], ())
            self._canary_due_ns = self._up_ns + int(self._settings.canary_timeout_s * _NS)
        detail = ", ".join(f"{name} ({why})" for name, why in refused)
        self._alarms.set(SUBSCRIBE_DENIED, bool(refused), f"the broker refused the subscription to {detail}")
        self._listener.on_up(
            SessionInfo(
                generation=self.generation,
                protocol=self._codec.version,
                session_present=answer.session_present,
                receive_maximum=self.window.limit,
                max_packet_bytes=answer.max_packet_bytes,
                refused=refused,
            )
        )

    def _on_refusal(self, packet_id: int, reason: str) -> None:
        token = self.window.inflight.pop(packet_id, None)
        self._alive.progress_ns = self._alive.read_ns
        if token is None:
            self._counters.confirms_unknown += 1
            return
        self._counters.publishes_refused += 1
        if reason == DENIED:
            self._denied_ns = self._alive.read_ns
            self._alarms.set(PUBLISH_DENIED, True, f"the broker denies publishing to {self._settings.client_id!r}")
        self._listener.on_settled((), ((token, reason),) if token else ())

    def _violated(self, violation: ProtocolViolation) -> None:
        self._counters.violations += 1
        self.end("protocol_violation", str(violation), self._codec.disconnect(violation=True))

    # --- the canary (3.1.1) ---

    @property
    def _canary(self) -> str:
        return "" if self._codec.has_properties else self._settings.canary_topic

    def _look_for_canary(self, before: int) -> None:
        new = self.inbox[before:]
        kept = [message for message in new if message[1] != self._canary or message[0]]
        if len(kept) < len(new):
            self.inbox[before:] = kept
            self._canary_due_ns = 0
            self._alarms.set(PUBLISH_DENIED, False, "the canary came back")

    # --- time ---

    def _watch(self, keep_alive_s: int) -> Liveness:
        return Liveness(self._now_ns(), keep_alive_s=keep_alive_s, ack_timeout_s=self._settings.ack_timeout_s)

    def _pause_reading(self) -> None:
        assert self._transport is not None
        self._alive.paused(self._now_ns())
        if self._short_read:
            self._short_read = False
        else:
            self._counters.pauses += 1
        self._transport.pause_reading()

    def _schedule_tick(self) -> None:
        self._timer = self._loop.call_later(self._alive.tick_s, self._tick)

    def _tick(self) -> None:
        self._schedule_tick()
        if not self.is_open:
            return  # the link limits how long that may last
        now = self._now_ns()
        verdict = self._alive.verdict(now, inflight=len(self.window.inflight))
        if verdict.ping:
            assert self._transport is not None
            self._transport.write(PINGREQ)
            self._alive.written_ns = now
            self._alive.pinged = True
        if verdict.short_read and not self._budget.twice_full:
            self._counters.forced_reads += 1
            self._short_read = True
            self.resume_reading()
        if verdict.half_open:
            self._counters.half_open += 1
            self.abort("half_open", verdict.half_open)
        elif self._phase is Phase.UP:
            self._review_alarms(now)
        elif not self._alive.paused_ns and now - self._alive.read_ns >= self._settings.connect_timeout_s * _NS:
            # Silence counts, not time: the messages of a resumed session may come first, over a slow line.
            self.abort("timeout", f"waiting for SUBACK: nothing came within {self._settings.connect_timeout_s} s")

    def _review_alarms(self, now: int) -> None:
        if self._canary_due_ns and now >= self._canary_due_ns:
            self._canary_due_ns = NEVER_NS  # said once; should it come after all, the alarm ends
            self._alarms.set(
                PUBLISH_DENIED, True, f"a message to {self._canary} did not come back: publishing or reading is denied"
            )
        if self._codec.has_properties and now - self._denied_ns >= DENIED_HOLD_S * _NS:
            self._alarms.set(PUBLISH_DENIED, False, "no publish was denied lately")
        if now - self._up_ns >= self._settings.backoff.stable_s * _NS:
            self._alarms.set(DUPLICATE_CLIENT_ID, False, "the connection is stable")
