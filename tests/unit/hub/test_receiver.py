"""From a payload to its answer: what is committed, what is refused and why, what waits."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import zstandard

from edged.errors import EdgedError
from edged.hub.decisions import Place, Sender
from edged.hub.keeper import Keeper
from edged.hub.metering import HubMetrics
from edged.hub.ports import Database, DatabaseAway
from edged.hub.receiver import PAYLOAD_MAX_BYTES, Arrival, Parts, Receiver, cut
from edged.hub.settings import GatewaysTable, LimitsTable
from edged.ops.logs import Log
from edged.sync.protocol import BATCH_ROWS_MAX, DECODED_MAX_BYTES, Ack, HelloAck, Lost, StreamExtent
from tests.doubles.clock import FakeClock
from tests.doubles.hub_rig import GatedDatabase, hello_payload, payload, until

GW = Sender("lyon", "gw-1")


class Scene:
    """A receiver with a database that serves, unless told otherwise."""

    def __init__(self, *, sharers: int = 1, **limits: int) -> None:
        self.clock = FakeClock()
        self.database = GatedDatabase()
        self.lines: list[str] = []
        log = Log(self.clock, write=self.lines.append, journal=True)
        self.keeper = Keeper(self.open, self.probe, self.clock, log, remembered="hub-db-1")
        self.receiver = Receiver(
            Parts(
                self.keeper,
                GatewaysTable(allow=("lyon/*",)),
                (),
                LimitsTable(**limits),
                sharers,
                self.clock,
                log,
                HubMetrics("1"),
                lambda: 0.5,
            )
        )

    async def open(self) -> Database:
        return self.database

    async def probe(self, _database: Database) -> None: ...

    async def serving(self) -> Scene:
        assert await self.keeper._look()
        return self

    async def batch(self, data: bytes, place: Place | None = None) -> Ack:
        arrival = Arrival(place or Place(GW, stream="alarm"), cut(data), len(data), self.clock.mono_ns())
        ack = await self.receiver.take(arrival)
        assert isinstance(ack, Ack)
        return ack

    async def hello(self, data: bytes, sender: Sender = GW) -> HelloAck:
        ack = await self.receiver.take(Arrival(Place(sender, hello=True), data, len(data), self.clock.mono_ns()))
        assert isinstance(ack, HelloAck)
        return ack


async def test_what_is_home_is_told_after_the_commit() -> None:
    scene = await Scene().serving()
    ack = await scene.batch(payload(3, 7))
    assert (ack.status, ack.receiver, ack.upto, ack.ranges) == ("ok", "hub-db-1", 0, ((3, 7),))
    ack = await scene.batch(payload(1, 2))
    assert (ack.upto, ack.ranges) == (7, ())


async def test_the_same_batch_again_changes_nothing_and_gets_the_same_kind_of_answer() -> None:
    scene = await Scene().serving()
    first, again = await scene.batch(payload(1, 5)), await scene.batch(payload(1, 5))
    assert first == again
    assert scene.database.rows_written == 5


async def test_numbers_without_rows_are_taken_too() -> None:
    scene = await Scene().serving()
    ack = await scene.batch(payload(1, 9, lost=Lost(reason="budget", since_ms=1)))
    assert (ack.status, ack.upto) == ("ok", 9)


def bomb() -> bytes:
    return zstandard.ZstdCompressor().compress(bytes(DECODED_MAX_BYTES * 4))


def with_body(body: bytes) -> bytes:
    return payload(1, 5, sha256=hashlib.sha256(body).hexdigest()).partition(b"\n")[0] + b"\n" + body


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "no line": (lambda: b"x" * 100, "bad_header"),
    "nothing": (lambda: b"", "bad_header"),
    "no JSON": (lambda: b"{\n", "bad_header"),
    "another version": (lambda: payload(1, 5, v="edged-sync/2"), "bad_header"),
    "n does not fit": (lambda: payload(1, 5, n=4), "bad_header"),
    "backwards": (lambda: payload(1, 5, first=9, last=5, n=-3), "bad_header"),
    "before the base": (lambda: payload(1, 5, base=3), "before_base"),
    "another gateway": (lambda: payload(1, 5, gateway="gw-2"), "foreign_gateway"),
    "another site": (lambda: payload(1, 5, site="nice"), "foreign_gateway"),
    "another stream": (lambda: payload(1, 5, stream="health"), "bad_header"),
    "a header of 10 MB": (lambda: b"{" + b" " * 10_000_000 + b"}\n", "bad_header"),
    "a body of 10 MB": (lambda: payload(1, 5) + bytes(10_000_000), "too_large"),
    "too many rows": (lambda: payload(1, 5, last=BATCH_ROWS_MAX + 1, n=BATCH_ROWS_MAX + 1), "too_large"),
    "a bomb": (lambda: with_body(bomb()), "too_large"),
    "no zstd": (lambda: with_body(b"hello"), "bad_body"),
    "columns that do not fit": (
        lambda: with_body(zstandard.ZstdCompressor().compress(b"[1,2,3]")),
        "bad_body",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_breaks_the_protocol_is_rejected_with_its_reason_and_nothing_else_is_touched(name: str) -> None:
    make, reason = HOSTILE[name]
    scene = await Scene().serving()
    data = make()
    ack = await scene.batch(data)
    assert (ack.status, ack.reason, ack.retry_ms) == ("reject", reason, 0)
    assert scene.database.home == {}
    assert (await scene.batch(payload(1, 5))).status == "ok"


async def test_the_answer_to_a_refused_batch_names_it() -> None:
    scene = await Scene().serving()
    ack = await scene.batch(payload(4, 9, v="edged-sync/9"))
    assert (ack.epoch, ack.stream, ack.first, ack.last) == ("epoch-1", "alarm", 4, 9)


async def test_only_the_head_of_what_is_too_large_is_kept() -> None:
    data = b"x" * (PAYLOAD_MAX_BYTES + 1)
    assert len(cut(data)) < 5_000
    assert cut(data[:-1]) is not None
    assert len(cut(data[:-1])) == PAYLOAD_MAX_BYTES


async def test_a_wrong_checksum_is_asked_for_once_more_and_then_rejected() -> None:
    scene = await Scene().serving()
    wrong = payload(1, 5, sha256="0" * 64)
    first, second = await scene.batch(wrong), await scene.batch(wrong)
    assert (first.status, first.reason, first.retry_ms) == ("retry", "bad_checksum", 1_000)
    assert (second.status, second.reason) == ("reject", "bad_checksum")
    assert (await scene.batch(payload(1, 5))).status == "ok"


async def test_a_gateway_that_the_hub_does_not_know_is_refused() -> None:
    scene = await Scene().serving()
    foreign = Sender("nice", "gw-1")
    ack = await scene.batch(payload(1, 5, site="nice"), Place(foreign, stream="alarm"))
    answer = await scene.hello(hello_payload(site="nice"), foreign)
    assert (ack.status, ack.reason) == (answer.status, answer.reason) == ("reject", "foreign_gateway")


async def test_without_a_topic_the_header_says_the_stream() -> None:
    scene = await Scene().serving()
    ack = await scene.batch(payload(1, 5, stream="health"), Place(GW))
    assert (ack.status, ack.stream) == ("ok", "health")


# --- the database ---


async def test_while_the_database_is_away_the_answer_is_to_wait_longer_and_longer() -> None:
    scene = Scene()
    waits = []
    for _ in range(4):
        ack = await scene.batch(payload(1, 5))
        assert (ack.status, ack.reason) == ("retry", "database_away")
        waits.append(ack.retry_ms)
        scene.clock.advance_s(20)
    assert waits == [1_000, 20_000, 40_000, 60_000]
    assert (await scene.hello(hello_payload())).reason == "database_away"
    await scene.serving()
    assert (await scene.batch(payload(1, 5))).status == "ok"


async def test_a_hub_that_never_saw_its_database_says_nothing() -> None:
    """A gateway holds to the receiver that answers first: nobody may answer without a name."""
    scene = Scene()
    scene.keeper._receiver = ""
    for place in (Place(GW, stream="alarm"), Place(GW, hello=True)):
        arrival = Arrival(place, payload(1, 5), 100, 0)
        assert await scene.receiver.take(arrival) is None
        assert scene.receiver.busy(arrival) is None


async def test_a_commit_that_fails_is_answered_with_retry_and_the_next_one_does_not_even_try() -> None:
    scene = await Scene().serving()
    scene.database.away_after = 0
    assert (await scene.batch(payload(1, 5))).reason == "database_away"
    scene.database.away_after = None
    assert (await scene.batch(payload(1, 5))).reason == "database_away"
    await scene.serving()
    assert (await scene.batch(payload(1, 5))).status == "ok"


async def test_a_commit_that_takes_too_long_is_given_up_and_the_next_may_try() -> None:
    scene = await Scene(commit_timeout_s=1).serving()
    scene.database.open.clear()
    ack = await scene.batch(payload(1, 5))
    assert (ack.status, ack.reason, ack.retry_ms) == ("retry", "database_slow", 1_000)
    scene.database.open.set()
    assert (await scene.batch(payload(1, 5))).status == "ok"


@pytest.mark.parametrize("bug", [ZeroDivisionError("oops"), EdgedError("schema of another version")])
async def test_a_bug_that_one_batch_finds_stops_no_other_and_loses_nothing(bug: Exception) -> None:
    scene = await Scene().serving()
    scene.database.bug = bug
    ack = await scene.batch(payload(1, 5))
    assert (ack.status, ack.reason, ack.retry_ms) == ("retry", "hub_error", 60_000)
    assert any("hub_error" in line for line in scene.lines)
    scene.database.bug = None
    assert (await scene.batch(payload(1, 5))).status == "ok"


async def test_what_the_database_answers_is_passed_on() -> None:
    scene = await Scene().serving()
    scene.database.answer = ("retry", "busy")
    ack = await scene.batch(payload(1, 5))
    assert (ack.status, ack.reason) == ("retry", "busy")


# --- order and room ---


async def test_batches_of_one_stream_are_committed_in_order_and_other_streams_do_not_wait() -> None:
    scene = await Scene().serving()
    scene.database.open.clear()
    scene.database.held_gateways = {"gw-1"}
    async with asyncio.TaskGroup() as tasks:
        for first in (1, 6, 11):
            tasks.create_task(scene.batch(payload(first, first + 4)))
        await until(lambda: scene.database.waiting == 1, "the first is at the database")
        other = await scene.batch(payload(1, 5, gateway="gw-2"), Place(Sender("lyon", "gw-2"), stream="alarm"))
        assert other.status == "ok"
        assert scene.receiver.oldest_s() == 0
        scene.clock.advance_s(2)
        assert scene.receiver.oldest_s() == 2
        scene.database.open.set()
    assert scene.database.committed == [
        ("gw-2", "alarm", 1),
        ("gw-1", "alarm", 1),
        ("gw-1", "alarm", 6),
        ("gw-1", "alarm", 11),
    ]
    assert scene.receiver.oldest_s() == 0


async def test_not_more_batches_than_allowed_are_decoded_and_committed_at_once() -> None:
    scene = await Scene(commits=2).serving()
    scene.database.open.clear()
    async with asyncio.TaskGroup() as tasks:
        for number in range(6):
            place = Place(Sender("lyon", f"gw-{number}"), stream="alarm")
            tasks.create_task(scene.batch(payload(1, 5, gateway=f"gw-{number}"), place))
        await until(lambda: scene.database.waiting == 2, "two are at the database")
        scene.database.open.set()
    assert scene.database.highest_waiting == 2


async def test_busy_is_said_for_batches_and_hellos() -> None:
    scene = Scene()
    batch = scene.receiver.busy(Arrival(Place(GW, stream="alarm"), payload(4, 9), 100, 0))
    hello = scene.receiver.busy(Arrival(Place(GW, hello=True), hello_payload(), 100, 0))
    assert isinstance(batch, Ack)
    assert isinstance(hello, HelloAck)
    assert (batch.status, batch.reason, batch.first, batch.retry_ms) == ("retry", "busy", 4, 250)
    assert (hello.status, hello.reason, hello.instance) == ("retry", "busy", "i-1")


# --- hello ---


async def test_hello_returns_the_cursors() -> None:
    scene = await Scene().serving()
    await scene.batch(payload(1, 5))
    answer = await scene.hello(hello_payload(extents=(StreamExtent("epoch-1", "alarm", 1, 6),)))
    assert (answer.status, answer.spread_s) == ("ok", 0)
    assert [(cursor.stream, cursor.upto) for cursor in answer.cursors] == [("alarm", 5)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "bad_header"),
        (b"[]", "bad_header"),
        (hello_payload(v="edged-sync/9"), "bad_header"),
        (hello_payload(gateway="gw-9"), "foreign_gateway"),
        (b"{" + b" " * 300_000 + b"}", "too_large"),
    ],
    ids=["nothing", "no object", "version", "foreign", "large"],
)
async def test_a_hello_that_breaks_the_protocol_is_rejected(data: bytes, reason: str) -> None:
    scene = await Scene().serving()
    answer = await scene.hello(data)
    assert (answer.status, answer.reason) == ("reject", reason)


async def test_a_bug_that_hello_finds_loses_nothing() -> None:
    class Buggy(GatedDatabase):
        async def hello(self, hello: Any) -> HelloAck:
            raise ZeroDivisionError("oops")

    scene = Scene()
    scene.database = Buggy()
    await scene.serving()
    answer = await scene.hello(hello_payload())
    assert (answer.status, answer.reason) == ("retry", "hub_error")


async def test_fifty_gateways_that_return_at_once_are_spread_over_a_minute() -> None:
    scene = await Scene().serving()
    spreads = [
        (await scene.hello(hello_payload(gateway=f"g{number}"), Sender("lyon", f"g{number}"))).spread_s
        for number in range(50)
    ]
    assert (spreads[0], spreads[1], spreads[-1]) == (0, 2, 60)
    scene.clock.advance_s(61)
    assert (await scene.hello(hello_payload())).spread_s == 0


async def test_workers_that_share_the_fleet_count_for_each_other() -> None:
    scene = await Scene(sharers=4).serving()
    await scene.hello(hello_payload())
    second = await scene.hello(hello_payload(gateway="gw-2"), Sender("lyon", "gw-2"))
    assert second.spread_s == 10


def test_the_tests_own_liar_lies() -> None:
    assert json.loads(payload(1, 2, n=7).partition(b"\n")[0])["n"] == 7
    assert msgspec.json.decode(payload(1, 2).partition(b"\n")[0])["n"] == 2
    assert isinstance(DatabaseAway("x"), EdgedError)
