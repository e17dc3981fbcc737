"""One connection over a transport that only remembers, with a clock that moves when told to."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any

import mqtt5
import pytest

from edged.messages import Outbound
from edged.mqtt.codec5 import Codec5
from edged.mqtt.codec311 import Codec311
from edged.mqtt.connection import ABORT_AFTER_S, PINGREQ, Connection
from edged.mqtt.counters import Counters
from edged.mqtt.session import Alarms, InboundBudget
from edged.mqtt.settings import LinkSettings
from tests.doubles.clock import FakeClock
from tests.doubles.link_listener import RecordingListener
from tests.unit.mqtt.packets import puback, publish

ACCEPTED = {"5": b"\x20\x03\x00\x00\x00\x90\x04\x00\x01\x00\x01", "3.1.1": b"\x20\x02\x00\x00\x90\x03\x00\x01\x01"}


class RememberingTransport(asyncio.Transport):
    """Stands in for a socket: everything written stays here."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.reading = True
        self.closed = self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.written))

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed


class Bench:
    """A connection and all that surrounds it."""

    def __init__(self, version: str = "5", **settings: Any) -> None:
        defaults: dict[str, Any] = {"keep_alive_s": 20, "ack_timeout_s": 1_000, "filters": ("in/#",)}
        self.settings = LinkSettings("broker", "gw", **{**defaults, **settings})
        self.clock = FakeClock()
        self.heard = RecordingListener()
        self.counters = Counters()
        self.budget = InboundBudget(
            max_count=self.settings.max_unacked_count, max_bytes=self.settings.max_unacked_bytes
        )
        codec = (Codec5 if version == "5" else Codec311)(self.settings.max_packet_bytes)
        generations = iter(range(1, 100))
        self.connection = Connection(
            self.settings,
            codec,
            b"HELLO",
            lambda: next(generations),
            self.heard,
            Alarms(self.heard.on_alarm),
            self.budget,
            self.counters,
            self.clock,
        )
        self.transport = RememberingTransport()
        self.connection.connection_made(self.transport)
        self._version = version

    def up(self) -> Bench:
        self.connection.data_received(ACCEPTED[self._version])
        self.transport.written.clear()
        return self

    def reads(self) -> bool:
        return self.transport.reading

    def refuse(self, reason: mqtt5.PubAckReasonCode) -> None:
        """The broker does not take the oldest publish in flight."""
        packet_id = next(iter(self.connection.window.inflight))
        self.connection.data_received(mqtt5.PubAckPacket(packet_id, reason_code=reason).write())

    def tick(self, seconds: float = 0.0) -> list[bytes]:
        """Let time pass and the timer fire; returns what was written."""
        self.clock.advance_s(seconds)
        self.transport.written.clear()
        self.connection._tick()
        return self.transport.written


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench().up()
    yield made
    made.connection.connection_lost(None)


async def test_the_handshake_writes_connect_then_subscribe() -> None:
    made = Bench()
    assert made.transport.written == [b"HELLO"]
    made.connection.data_received(ACCEPTED["5"][:5])
    assert made.connection.free_slots == 0
    assert len(made.transport.written) == 2
    assert made.connection.send([Outbound(b"t", b"", 1)], [7]) == 0  # no publishes yet, but acknowledgements
    assert made.transport.written[2] == puback(7)
    made.connection.data_received(ACCEPTED["5"][5:])
    assert made.connection.free_slots == 1_000
    assert made.connection.accepted.done()
    made.connection.connection_lost(None)


async def test_results_and_acknowledgements_leave_in_one_write_results_first(bench: Bench) -> None:
    assert bench.connection.send([Outbound(b"t", b"r", 1), Outbound(b"t", b"r", 2)], [5, 6]) == 2
    (data,) = bench.transport.written
    assert data.endswith(puback(5) + puback(6))
    assert bench.connection.send([], ()) == 0
    assert len(bench.transport.written) == 1


async def test_a_read_with_many_messages_is_told_once(bench: Bench) -> None:
    bench.connection.data_received(b"".join(publish("5", "in/1", b"x", packet_id=i) for i in range(1, 101)))
    assert bench.heard.inbox_calls == 1
    assert len(bench.connection.inbox) == 100
    assert (bench.budget.count, bench.budget.bytes) == (100, 100)


async def test_messages_count_before_anybody_is_told_of_anything(bench: Bench) -> None:
    bench.connection.send([Outbound(b"t", b"", 9)], ())
    seen: list[int] = []
    bench.heard.when_settled = lambda: seen.append(bench.budget.count)
    bench.connection.data_received(puback(2) + publish("5", "in/1", b"x", packet_id=1))
    assert seen == [1]


async def test_pings_go_out_when_it_is_quiet(bench: Bench) -> None:
    assert bench.tick(14.9) == []
    assert bench.tick(0.1) == [PINGREQ]
    assert bench.tick(1) == []
    bench.connection.data_received(b"\xd0\0")
    assert bench.tick(13.9) == []
    assert bench.tick(0.1) == [PINGREQ]


async def test_silence_after_a_ping_drops_the_socket(bench: Bench) -> None:
    bench.tick(15)
    bench.tick(14.9)
    assert not bench.transport.closed
    bench.tick(0.1)
    assert bench.transport.aborted
    bench.connection.connection_lost(None)
    assert bench.connection.ended.result().code == "half_open"
    assert bench.counters.half_open == 1
    assert bench.connection.ended.result().up_s == 30


async def test_a_long_pause_is_interrupted_by_one_read_and_counted() -> None:
    made = Bench(max_unacked_count=2).up()
    made.connection.data_received(publish("5", "in/1", b"x", packet_id=1) * 2)
    assert not made.reads()
    states = []
    for seconds in (19.9, 0.1):
        made.tick(seconds)
        states.append(made.reads())
    assert states == [False, True]
    made.connection.data_received(publish("5", "in/1", b"x", packet_id=3))
    assert not made.reads()
    assert (made.counters.pauses, made.counters.forced_reads) == (1, 1)
    made.connection.data_received(publish("5", "in/1", b"x", packet_id=4))  # what the kernel held already
    made.tick(40)
    assert not made.reads()  # twice the limit: not one read more
    made.budget.released(4, 4)
    made.connection.resume_reading()
    assert made.reads()
    made.connection.resume_reading()
    made.connection.connection_lost(None)


async def test_acknowledgements_behind_a_large_message_on_a_slow_line_are_waited_for() -> None:
    made = Bench(ack_timeout_s=30, keep_alive_s=1_000, max_packet_bytes=200_000).up()
    made.connection.send([Outbound(b"t", b"", 1)], ())
    for size in (150_000, 5_000_000):  # one that is kept, one that is skipped
        large = publish("5", "in/1", b"x" * size, packet_id=1)
        for start in range(0, len(large), len(large) // 9):
            made.tick(25)
            made.connection.data_received(large[start : start + len(large) // 9])
    made.tick(29.9)
    assert not made.transport.closed
    made.tick(0.1)
    assert made.transport.aborted
    made.connection.connection_lost(None)
    assert made.connection.ended.result().code == "half_open"


async def test_a_resumed_session_may_send_much_before_suback_and_reading_pauses_already() -> None:
    made = Bench(max_unacked_count=10, connect_timeout_s=10)
    made.connection.data_received(ACCEPTED["5"][:5])
    for packet_id in range(1, 10):
        made.tick(9.9)
        made.connection.data_received(publish("5", "in/1", b"x", packet_id=packet_id))
    made.connection.data_received(publish("5", "in/1", b"x", packet_id=10))
    assert not made.reads()
    made.tick(19)
    assert not made.transport.closed
    made.budget.released(10, 10)
    made.connection.resume_reading()
    made.connection.data_received(ACCEPTED["5"][5:])
    assert len(made.heard.sessions) == 1
    made.connection.connection_lost(None)


async def test_silence_instead_of_suback_is_a_timeout() -> None:
    made = Bench(connect_timeout_s=10)
    made.tick(100)
    assert not made.transport.closed  # until CONNACK the link keeps the time
    made.connection.data_received(ACCEPTED["5"][:5])
    made.tick(9.9)
    assert not made.transport.closed
    made.tick(0.1)
    made.connection.connection_lost(None)
    assert made.connection.ended.result()[:2] == ("timeout", "waiting for SUBACK: nothing came within 10 s")


async def test_above_the_high_water_mark_nothing_is_taken_and_below_it_the_engine_is_told(bench: Bench) -> None:
    bench.connection.pause_writing()
    assert bench.connection.free_slots == 0
    assert bench.connection.send([Outbound(b"t", b"", 1)], ()) == 0
    bench.connection.resume_writing()
    assert bench.heard.settled_calls == 1
    assert bench.connection.send([Outbound(b"t", b"", 1)], ()) == 1


async def test_a_canary_that_stays_away_is_an_alarm_until_it_comes() -> None:
    made = Bench("3.1.1", canary_topic="R/meta/canary")
    made.connection.data_received(b"\x20\x02\x00\x00\x90\x04\x00\x01\x01\x00")
    assert made.transport.written[-1] == b"\x32\x12\x00\x0dR/meta/canary\x00\x021"
    made.tick(4.9)
    assert made.heard.alarms == []
    made.tick(0.1)
    made.tick(100)
    assert [alarm[:2] for alarm in made.heard.alarms] == [("publish_denied", True)]
    made.connection.data_received(
        publish("3.1.1", "in/1", b"x", packet_id=1)
        + publish("3.1.1", "R/meta/canary", b"1")
        + publish("3.1.1", "R/meta/canary", b"1", packet_id=2)
    )
    assert [alarm[:2] for alarm in made.heard.alarms] == [("publish_denied", True), ("publish_denied", False)]
    # One with a packet id needs its acknowledgement in turn, so the engine gets it like any message.
    assert [message[:2] for message in made.connection.inbox] == [(1, "in/1"), (2, "R/meta/canary")]
    assert made.budget.count == 2
    made.connection.connection_lost(None)


async def test_the_alarm_of_a_denied_publish_ends_after_a_minute_without_another() -> None:
    bench = Bench(keep_alive_s=1_000).up()
    for _ in range(2):
        bench.connection.send([Outbound(b"t", b"", 1)], ())
        bench.refuse(mqtt5.PubAckReasonCode.NOT_AUTHORIZED)
    assert bench.heard.refused == [(1, "not_authorized")] * 2
    bench.tick(59.9)
    assert len(bench.heard.alarms) == 1
    bench.tick(0.1)
    assert [alarm[:2] for alarm in bench.heard.alarms] == [("publish_denied", True), ("publish_denied", False)]
    assert bench.counters.publishes_refused == 2
    bench.connection.connection_lost(None)


async def test_other_refusals_are_reported_without_an_alarm(bench: Bench) -> None:
    bench.connection.send([Outbound(b"t", b"", 1), Outbound(b"t", b"", 0)], ())
    for _ in range(2):
        bench.refuse(mqtt5.PubAckReasonCode.QUOTA_EXCEEDED)
    assert bench.heard.refused == [(1, "quota_exceeded")]
    assert bench.heard.alarms == []
    assert bench.connection.window.inflight == {}


async def test_an_acknowledgement_with_a_reason_text_is_one(bench: Bench) -> None:
    bench.connection.send([Outbound(b"t", b"", 8)], ())
    bench.connection.data_received(mqtt5.PubAckPacket(2, reason_str="fine").write())
    assert bench.heard.acknowledged == [8]


async def test_after_the_end_nothing_is_read_written_or_reported(bench: Bench) -> None:
    bench.connection.goodbye("closed", "we disconnected")
    assert bench.transport.written == [b"\xe0\0"]
    bench.connection.data_received(publish("5", "in/1", b"late", packet_id=1))
    assert bench.connection.send([Outbound(b"t", b"", 1)], [1]) == 0
    bench.connection.resume_writing()
    bench.connection.resume_reading()
    bench.connection.end("other", "a second reason")
    assert bench.tick(100) == []
    assert bench.connection.inbox == []
    assert bench.heard.settled_calls == 0
    bench.connection.connection_lost(None)
    assert bench.connection.ended.result()[:2] == ("closed", "we disconnected")


async def test_what_follows_a_farewell_in_the_same_read_is_ignored(bench: Bench) -> None:
    bench.connection.data_received(b"\xe0\x01\x8b" + b"\x20\x03\x00\x00\x00")
    bench.connection.connection_lost(None)
    assert bench.connection.ended.result().detail == "the broker disconnected us: server_shutting_down"
    assert bench.counters.violations == 0


async def test_a_polite_end_that_nobody_answers_becomes_an_abort() -> None:
    made = Bench().up()
    made.connection.goodbye("closed", "we disconnected")
    assert not made.transport.aborted
    async with asyncio.timeout(ABORT_AFTER_S + 5):
        while not made.transport.aborted:  # a timer of the loop itself
            await asyncio.sleep(0.05)


async def test_an_end_before_subscribing_is_over_wakes_whoever_waits_for_it() -> None:
    made = Bench(filters=())
    made.connection.data_received(b"\x20\x03\x00\x00\x00")
    made.connection.connection_lost(ConnectionResetError("reset by peer"))
    await made.connection.accepted
    await asyncio.sleep(0)  # the deferred step finds the connection ended
    ended = made.connection.ended.result()
    assert (ended.code, ended.connected_s, ended.up_s, ended.silent) == ("closed", 0.0, 0.0, False)
    assert "reset by peer" in ended.detail
    assert made.heard.sessions == []


async def test_a_close_without_a_byte_is_silent_and_a_tls_failure_is_not() -> None:
    silent, tls = Bench(), Bench()
    silent.connection.connection_lost(None)
    tls.connection.connection_lost(ssl.SSLError(1, "tlsv13 alert certificate required"))
    assert silent.connection.ended.result().silent
    assert tls.connection.ended.result()[0] == "tls"
    assert not tls.connection.ended.result().silent


async def test_waiting_for_confirmations_ends_when_the_last_one_came(bench: Bench) -> None:
    assert await bench.connection.emptied(0.0)
    bench.connection.send([Outbound(b"t", b"", 1), Outbound(b"t", b"", 2)], ())
    assert not await bench.connection.emptied(0.01)
    waiting = asyncio.get_running_loop().create_task(bench.connection.emptied(10))
    await asyncio.sleep(0)
    bench.connection.data_received(puback(2))
    assert not waiting.done()
    bench.connection.data_received(puback(3))
    assert await waiting
