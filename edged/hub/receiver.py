"""From a payload to its answer, whichever way it came: checked, decoded, committed, and only then called home."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edged.errors import EdgedError
from edged.hub.decisions import (
    RETRY_MAX_MS,
    allowed,
    answer,
    away_retry_ms,
    busy_retry_ms,
    hello_answer,
    named,
    refuse,
    spread_s,
)
from edged.hub.door import Door, Room
from edged.hub.memory import Returned, StreamTurns, Suspects
from edged.hub.ports import Batch, DatabaseAway
from edged.sync.envelope import MESSAGE_MAX_BYTES, Refusal, decode_hello, open_body, read_header
from edged.sync.protocol import BODY_MAX_BYTES, HEADER_MAX_BYTES, Ack, BatchHeader, HelloAck

if TYPE_CHECKING:
    from edged.hub.decisions import Place, Sender
    from edged.hub.keeper import Keeper
    from edged.hub.metering import HubMetrics
    from edged.hub.ports import Database
    from edged.hub.settings import GatewaysTable, LimitsTable
    from edged.ops.logs import Log
    from edged.ports import Clock

PAYLOAD_MAX_BYTES = HEADER_MAX_BYTES + 1 + BODY_MAX_BYTES
HEAD_BYTES = HEADER_MAX_BYTES + 1  # of a payload that is too large, this much is kept to name it
PACE_WEIGHT = 0.1  # of the newest commit in the mean

Answer = Ack | HelloAck


class Arrival(NamedTuple):
    """A payload and where it came from. size_bytes: as it travelled; of what is too large only the head is kept."""

    place: Place
    payload: bytes
    size_bytes: int
    at_ns: int


def cut(payload: bytes) -> bytes:
    """What is kept of a payload: all of it, or the head of one that is refused for its size anyway."""
    return payload if len(payload) <= PAYLOAD_MAX_BYTES else payload[:HEAD_BYTES]


class Parts(NamedTuple):
    """What a receiver needs. sharers: workers that share what arrives. chance: a random number from 0 to 1."""

    keeper: Keeper
    gateways: GatewaysTable
    sites: tuple[str, ...]
    limits: LimitsTable
    sharers: int
    clock: Clock
    log: Log
    metrics: HubMetrics
    chance: Callable[[], float]


class Receiver:
    """One per worker. Batches of one stream are committed in the order they came, different streams at once."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        limits = parts.limits
        self.door = Door(Room(limits.max_inflight_batches, limits.max_inflight_bytes, limits.max_inflight_per_gateway))
        self._streams = StreamTurns()
        self._commits = asyncio.Semaphore(limits.commits)
        self._suspects = Suspects()
        self._returned = Returned()
        self._commit_s = 0.01
        self._started: dict[int, int] = {}  # in order of arrival
        self._count = 0

    async def take(self, arrival: Arrival) -> Answer | None:
        """The answer to what the door let in; the caller leads it out again.

        None as long as this hub has never seen its database: a gateway holds to the receiver that answers first.
        """
        if not self._parts.keeper.receiver:
            return None
        self._count = number = self._count + 1
        self._started[number] = arrival.at_ns
        try:
            return await (self._hello(arrival) if arrival.place.hello else self._batch(arrival))
        finally:
            del self._started[number]

    def busy(self, arrival: Arrival) -> Answer | None:
        """The answer to what the door did not let in; None as for `take`. Called from any thread."""
        parts = self._parts
        if not parts.keeper.receiver:
            return None
        retry_ms = busy_retry_ms(self.door.batches, self._commit_s, parts.limits.commits, parts.chance())
        if arrival.place.hello:
            return hello_answer(arrival.payload, arrival.place.sender, parts.keeper.receiver, "retry", "busy", retry_ms)
        name = named(arrival.payload[:HEAD_BYTES])
        return answer(name, arrival.place, parts.keeper.receiver, "retry", "busy", retry_ms)

    # --- batches ---

    async def _batch(self, arrival: Arrival) -> Ack:
        place, parts = arrival.place, self._parts
        name = named(arrival.payload[:HEAD_BYTES])
        receiver = parts.keeper.receiver
        header: BatchHeader | None = None
        try:
            header, body = self._check(arrival)
            self._database()  # while it is away nobody waits for a turn
            async with self._streams.turn((*place.sender, header.stream)), self._commits:
                return await self._commit(arrival, header, body)
        except Refusal as refusal:
            again = header is not None and refusal.code == "bad_checksum" and self._suspects.first_time(header)
            retry_ms = away_retry_ms(0, parts.chance()) if again else 0
            parts.log.warning("refused", code=refusal.code, sender=place.sender, detail=refusal.detail)
            return answer(name, place, receiver, "retry" if again else "reject", refusal.code, retry_ms)
        except (EdgedError, TimeoutError) as error:
            return answer(name, place, receiver, "retry", *self._trouble(error, place.sender))
        except Exception as error:  # noqa: BLE001 - a bug that one batch finds must not stop the others, nor lose that one
            parts.log.error("hub_error", code=type(error).__name__, sender=place.sender, detail=repr(error))
            return answer(name, place, receiver, "retry", "hub_error", RETRY_MAX_MS)

    def _check(self, arrival: Arrival) -> tuple[BatchHeader, memoryview]:
        """Header and body of what may be committed. Raises `Refusal`."""
        if arrival.size_bytes > PAYLOAD_MAX_BYTES:
            code = "too_large" if b"\n" in arrival.payload[:HEAD_BYTES] else "bad_header"
            raise Refusal(code, f"a message of {arrival.size_bytes} bytes, at most {PAYLOAD_MAX_BYTES} are allowed")
        header, body = read_header(arrival.payload)
        parts = self._parts
        reason = refuse(header, arrival.place, parts.gateways.allow, parts.sites)
        if reason:
            raise Refusal(reason, f"says that it is {header.stream} of {header.site}/{header.gateway}")
        return header, body

    def _database(self) -> Database:
        database = self._parts.keeper.serving()
        if database is None:
            raise DatabaseAway(self._parts.keeper.fault)
        return database

    async def _commit(self, arrival: Arrival, header: BatchHeader, body: memoryview) -> Ack:
        parts, clock = self._parts, self._parts.clock
        begun_ns = clock.mono_ns()
        rows, lost = await asyncio.to_thread(open_body, header, body)
        decoded_ns = clock.mono_ns()
        async with asyncio.timeout(parts.limits.commit_timeout_s):
            ack = await self._database().commit(Batch(header, rows, lost))
        commit_ns = clock.mono_ns() - decoded_ns
        parts.keeper.committed()
        self._commit_s += (commit_ns / 1e9 - self._commit_s) * PACE_WEIGHT
        parts.metrics.committed(begun_ns - arrival.at_ns, decoded_ns - begun_ns, commit_ns)
        if ack.status == "ok":
            parts.metrics.home(header.stream, header.kind, header.n, len(ack.bad))
        return ack

    def _trouble(self, error: EdgedError | TimeoutError, sender: Sender) -> tuple[str, int]:
        """Reason and pause after a commit that did not happen, or may have."""
        keeper, chance = self._parts.keeper, self._parts.chance()
        if isinstance(error, TimeoutError):
            keeper.slow()
            return "database_slow", away_retry_ms(keeper.troubled_s(), chance)
        if isinstance(error, DatabaseAway):
            if not keeper.fault:  # else it was not even asked
                keeper.failed(error)
            return "database_away", away_retry_ms(keeper.troubled_s(), chance)
        self._parts.log.error("hub_error", code=type(error).__name__, sender=sender, detail=str(error))
        return "hub_error", RETRY_MAX_MS

    # --- hello ---

    async def _hello(self, arrival: Arrival) -> HelloAck:
        sender, parts = arrival.place.sender, self._parts
        receiver = parts.keeper.receiver
        try:
            if arrival.size_bytes > MESSAGE_MAX_BYTES:
                raise Refusal("too_large", f"{arrival.size_bytes} bytes")
            hello = decode_hello(arrival.payload)
            if (hello.site, hello.gateway) != sender or not allowed(sender, parts.gateways.allow, parts.sites):
                raise Refusal("foreign_gateway", f"says that it is {hello.site}/{hello.gateway}")
            async with asyncio.timeout(parts.limits.commit_timeout_s):
                ack = await self._database().hello(hello)
            parts.keeper.committed()
        except Refusal as refusal:
            parts.log.warning("hello_refused", code=refusal.code, sender=sender, detail=refusal.detail)
            return hello_answer(arrival.payload, sender, receiver, "reject", refusal.code)
        except (EdgedError, TimeoutError) as error:
            return hello_answer(arrival.payload, sender, receiver, "retry", *self._trouble(error, sender))
        except Exception as error:  # noqa: BLE001 - as for batches: one gateway's hello must not stop the others
            parts.log.error("hub_error", code=type(error).__name__, sender=sender, detail=repr(error))
            return hello_answer(arrival.payload, sender, receiver, "retry", "hub_error", RETRY_MAX_MS)
        gateways = self._returned.count(sender, parts.clock.mono_ns())
        seen_by_all = gateways * parts.sharers if gateways > 1 else gateways
        return msgspec.structs.replace(ack, spread_s=spread_s(seen_by_all))

    def oldest_s(self) -> float:
        """Age of what has been in hand for longest."""
        oldest_ns = next(iter(self._started.values()), None)
        return 0.0 if oldest_ns is None else (self._parts.clock.mono_ns() - oldest_ns) / 1e9


def kind(answer: Answer) -> str:
    """For the metrics: the stream, or hello."""
    return answer.stream if isinstance(answer, Ack) else "hello"
