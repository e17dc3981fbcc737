"""A store, a link and a hub in simulated time around a `Sender`: deterministic, and as bad as a test wants them."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from edged.sync.dispatch import Rules
from edged.sync.effects import Effect, GiveUp, Home, Look, Parted, Raise, Read, SayHello, Sealed, Send
from edged.sync.protocol import VERSION, Ack, AckStatus, Cursor, Fork, HelloAck, Stream, StreamExtent
from edged.sync.ranges import Ranges, add, clip, contiguous, missing
from edged.sync.sender import Sender

S = 1_000_000_000
MS = 1_000_000
SITE, GATEWAY, INSTANCE, HUB = "site", "gw", "run-1", "hub-1"


Verdict = tuple[AckStatus, str, int]
"""What the hub says instead of taking a batch: status, reason, retry_ms."""


@dataclass
class Weather:
    """How the link and the hub behave; changed at any time.

    rate: bytes/s, one direction (the other one is free). delay_ns: each way. chances are per message.
    hub_ns, hub_row_ns: what a commit takes. verdict: what the hub says instead of committing.
    """

    rate: float = 1e9
    delay_ns: int = 5 * MS
    lose: float = 0.0
    lose_answer: float = 0.0
    repeat: float = 0.0
    jitter_ns: int = 0
    hub_ns: int = 2 * MS
    hub_row_ns: int = 1_000
    foreign: float = 0.0
    verdict: Callable[[Sealed, Stream], Verdict | None] = lambda batch, stream: None
    hello_verdict: Callable[[], Verdict | None] = lambda: None


@dataclass
class Store:
    """Numbers of the streams by epoch. row_bytes: what a sealed row weighs. tombstones: given up after a refusal."""

    extents: list[StreamExtent] = field(default_factory=list)
    row_bytes: float = 9.0
    tombstones: dict[Stream, Ranges] = field(default_factory=dict)
    made_ns: dict[tuple[Stream, int], int] = field(default_factory=dict)

    def make(self, stream: Stream, rows: int, now_ns: int = 0, epoch: str = "e1") -> int:
        """Append rows to the current epoch of a stream; returns the next number."""
        mine = [extent for extent in self.extents if extent.stream == stream]
        base, first = (mine[-1].base, mine[-1].next) if mine else (1, 1)
        if mine and mine[-1].epoch == epoch:
            self.extents.remove(mine[-1])
        elif mine:
            base = first
        self.extents.append(StreamExtent(epoch, stream, base, first + rows))
        if stream == "alarm":
            self.made_ns |= dict.fromkeys(((stream, number) for number in range(first, first + rows)), now_ns)
        return first + rows

    def read(self, order: Read) -> Sealed | None:
        for extent in self.extents:
            if extent.stream == order.lane.stream and extent.base <= order.first < extent.next:
                last = min(order.first + order.limit, extent.next) - 1
                gone = self.tombstones.get(order.lane.stream, ())
                lost = bool(clip(gone, order.first, order.first))
                if lost:
                    last = clip(gone, order.first, last)[0][1]
                elif after := clip(gone, order.first, last):
                    last = after[0][0] - 1
                weight = 300 if lost else 600 + int((last - order.first + 1) * self.row_bytes)
                return Sealed(extent.epoch, order.first, last, lost, bytes(weight))
        return None


class Hub:
    """Ranges in memory, as a receiver keeps them. `rows`: every number committed, and how often it was written."""

    def __init__(self, receiver: str = HUB) -> None:
        self.receiver = receiver
        self.home: dict[tuple[str, Stream], Ranges] = {}
        self.base: dict[tuple[str, Stream], int] = {}
        self.writes: dict[tuple[str, Stream, int], int] = {}
        self.arrived_ns: dict[tuple[Stream, int], int] = {}
        self.most_ranges = 0

    def commit(self, stream: Stream, batch: Sealed, base: int, now_ns: int) -> Ack:
        key = (batch.epoch, stream)
        known = self.home.get(key, ())
        for first, last in missing(known, batch.first, batch.last):
            for number in range(first, last + 1):
                self.writes[(*key, number)] = self.writes.get((*key, number), 0) + 1
                self.arrived_ns[stream, number] = now_ns
        self.home[key] = add(known, batch.first, batch.last)
        self.base[key] = base
        upto, beyond = contiguous(self.home[key], base)
        self.most_ranges = max(self.most_ranges, len(beyond))
        return self.ack(stream, batch, "ok", upto=upto, ranges=beyond)

    def ack(self, stream: Stream, batch: Sealed, status: AckStatus, **more: Any) -> Ack:
        return Ack(
            v=VERSION, receiver=self.receiver, site=SITE, gateway=GATEWAY, epoch=batch.epoch, stream=stream,
            first=batch.first, last=batch.last, status=status, **more,
        )  # fmt: skip

    def hello(self, status: AckStatus = "ok", forks: tuple[Fork, ...] = (), **more: Any) -> HelloAck:
        cursors = []
        for (epoch, stream), known in self.home.items():
            upto, beyond = contiguous(known, self.base[epoch, stream])
            cursors.append(Cursor(epoch, stream, upto, beyond))
        return HelloAck(
            v=VERSION, receiver=self.receiver, site=SITE, gateway=GATEWAY, instance=INSTANCE, status=status,
            cursors=tuple(cursors), forks=forks, **more,
        )  # fmt: skip


class World:
    """Runs the sender against store, link and hub. `run` moves the time on until a condition holds or it is over."""

    def __init__(self, store: Store, hub: Hub, weather: Weather, *, seed: int = 0, **rules: Any) -> None:
        self.now = S
        self.random = random.Random(seed)
        self.store, self.hub, self.weather = store, hub, weather
        wanted: dict[str, Any] = {
            "streams": ("alarm", "result", "health"),
            "reconnect_spread_s": 0.0,
            "rate_limit_bytes_s": 1e9,
        } | rules
        self.sender = Sender(Rules(SITE, GATEWAY, INSTANCE, **wanted), self.random.random)
        self.sent: list[tuple[int, Stream, Sealed]] = []
        self.raised: list[tuple[str, bool, str]] = []
        self.given_up: list[GiveUp] = []
        self.parted: list[Parted] = []
        self.home: dict[Stream, Ranges] = {}
        self.most_in_flight = self.most_bytes = 0
        self.confirms_tombstones = True
        self.read_ns = MS
        self._events: list[tuple[int, int, Callable[[], list[Effect]]]] = []
        self._order = count()
        self._free_ns = 0
        self._generation = 0
        self._batches: dict[int, Sealed] = {}

    # --- the rim ---

    def up(self) -> None:
        self._generation += 1
        self._free_ns = self.now
        self.act(self.sender.link_up(self.now))

    def down(self, detail: str = "cut") -> None:
        self._generation += 1
        self.act(self.sender.link_down(self.now, detail))

    def make(self, stream: Stream, rows: int) -> None:
        number = self.store.make(stream, rows, self.now, self.store.extents[-1].epoch if self.store.extents else "e1")
        self.act(self.sender.made(self.now, {stream: number}))

    def at(self, when_ns: int, action: Callable[[], list[Effect] | None]) -> None:
        heapq.heappush(self._events, (when_ns, next(self._order), lambda: action() or []))

    def act(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SayHello(key):
                    self.act(self.sender.moved(self.now, self.store.extents))
                    self._transmit(key, 500, self._hub_hello)
                case Look():
                    self.act(self.sender.moved(self.now, self.store.extents))
                case Read():
                    self.at(self.now + self.read_ns, partial(self._read, effect))
                case Send(key, stream, payload):
                    batch = self._batches[key]
                    assert payload is batch.payload
                    self.sent.append((self.now, stream, batch))
                    self._transmit(key, len(payload), partial(self._hub_batch, stream, batch))
                case Home(stream, ranges):
                    for first, last in ranges:
                        self.home[stream] = add(self.home.get(stream, ()), first, last)
                case GiveUp(stream, first, last):
                    self.given_up.append(effect)
                    if effect.tombstone and self.confirms_tombstones:
                        self.at(self.now + 20 * MS, partial(self._bury, stream, first, last))
                case Parted():
                    self.parted.append(effect)
                case Raise(code, active, detail):
                    self.raised.append((code, active, detail))
        standing = self.sender.standing()
        self.most_in_flight = max(self.most_in_flight, standing.in_flight)
        self.most_bytes = max(self.most_bytes, standing.in_flight_bytes)

    def _read(self, order: Read) -> list[Effect]:
        batch = self.store.read(order)
        if batch is not None:
            self._batches[order.key] = batch
        return self.sender.sealed(self.now, order.key, batch)

    def _bury(self, stream: Stream, first: int, last: int) -> list[Effect]:
        self.store.tombstones[stream] = add(self.store.tombstones.get(stream, ()), first, last)
        return self.sender.gave_up(self.now, stream, first, last)

    # --- the link ---

    def _transmit(self, key: int, size: int, deliver: Callable[[], None]) -> None:
        weather, generation = self.weather, self._generation
        self._free_ns = max(self.now, self._free_ns) + int((size * 1.03 + 120) / weather.rate * S)
        there = self._free_ns + weather.delay_ns
        self._later(generation, there + weather.delay_ns, lambda: self.sender.carried(self.now, key))
        if self.random.random() >= weather.lose:
            for _ in range(2 if self.random.random() < weather.repeat else 1):
                self.at(there + self._jitter(), deliver)

    def _jitter(self) -> int:
        return self.random.randrange(self.weather.jitter_ns + 1)

    def _later(self, generation: int, when_ns: int, action: Callable[[], list[Effect]]) -> None:
        self.at(when_ns, lambda: action() if generation == self._generation else [])

    def _answer(self, took_ns: int, action: Callable[[], list[Effect]]) -> None:
        if self.random.random() >= self.weather.lose_answer:
            for _ in range(2 if self.random.random() < self.weather.repeat else 1):
                when = self.now + took_ns + self.weather.delay_ns + self._jitter()
                self._later(self._generation, when, action)

    # --- the hub ---

    def _hub_hello(self) -> None:
        verdict = self.weather.hello_verdict()
        if verdict is None:
            answer = self.hub.hello()
        else:
            answer = self.hub.hello(verdict[0], reason=verdict[1], retry_ms=verdict[2])
        self._answer(self.weather.hub_ns, lambda: self.sender.welcomed(self.now, answer))

    def _hub_batch(self, stream: Stream, batch: Sealed) -> None:
        verdict = self.weather.verdict(batch, stream)
        base = next(e.base for e in self.store.extents if (e.epoch, e.stream) == (batch.epoch, stream))
        if verdict is not None:
            status, reason, retry_ms = verdict
            answer = self.hub.ack(stream, batch, status, reason=reason, retry_ms=retry_ms)
        else:
            answer = self.hub.commit(stream, batch, base, self.now)
        took = self.weather.hub_ns + self.weather.hub_row_ns * (batch.last - batch.first + 1)
        if self.random.random() < self.weather.foreign:
            foreign = Hub("another").ack(stream, batch, "ok", upto=batch.last)
            self._answer(0, lambda: self.sender.answered(self.now, foreign))
        self._answer(took, lambda: self.sender.answered(self.now, answer))

    # --- time ---

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let simulated time pass; True when `until` became true."""
        end = self.now + int(seconds * S)
        while not until():
            due = self.sender.due_ns
            next_event = self._events[0][0] if self._events else end
            when = min(due, next_event)
            if when >= end:
                self.now = end
                return False
            self.now = max(self.now, when)
            if next_event <= due:
                self.act(heapq.heappop(self._events)[2]())
            else:
                self.act(self.sender.tick(self.now))
        return True

    def all_home(self) -> bool:
        return all(lag == 0 for lag in self.sender.standing().lag.values())
