"""Which batch leaves when: the lanes over the streams, the window, the token bucket, what is sent again. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from edged.errors import BugError
from edged.sync.course import Course
from edged.sync.effects import Counts, Read, Sealed, Send
from edged.sync.flights import Flight, Flights
from edged.sync.lanes import LANES, Lane, Share
from edged.sync.pacing import Pacing
from edged.sync.protocol import BODY_MAX_BYTES, HEADER_MAX_BYTES, STREAMS, Range, Stream
from edged.sync.ranges import covers

_S = 1_000_000_000
NEVER_NS = 1 << 62
PAYLOAD_MAX_BYTES = HEADER_MAX_BYTES + BODY_MAX_BYTES
QUIET_NS = 50_000_000  # news may overtake what they tell of
TRIES_MAX = 3  # brokers that speak 3.1.1 confirm a message that is too large for them, and drop it
SHELF_S = 3600
HOLES_MAX = 16  # ranges of one stream that may wait for their tombstones


class Rules(NamedTuple):
    """What the configuration says about sending. receiver: the only one whose answers count; empty: the first."""

    site: str
    gateway: str
    instance: str
    streams: tuple[Stream, ...]
    receiver: str = ""
    rate_limit_bytes_s: float = 32_000.0
    window: int = 4
    live_interval_s: float = 1.0
    reconnect_spread_s: float = 30.0


class Dispatch:
    """What waits and what is on its way.

    slow: the hub asks for time, so one batch goes at once. *_from_ns: before that nothing that is paced goes, and no
    backlog. wake_ns: when `choose` or `resend` may have something, if nothing happens before.
    """

    def __init__(self, rules: Rules, counts: Counts, chance: Callable[[], float]) -> None:
        self._window = rules.window
        self._gather_ns = int(rules.live_interval_s * _S)
        self._counts = counts
        self._chance = chance
        self._share = Share()
        self._last_key = 0
        self.courses = {stream: Course(stream, rules.window + 2) for stream in STREAMS if stream in rules.streams}
        self.flights = Flights()
        self.pacing = Pacing(rules.rate_limit_bytes_s, max(1, rules.window - 1))
        self.payload_max_bytes = PAYLOAD_MAX_BYTES
        self.reading: Read | None = None
        self.slow = False
        self.paced_from_ns = self.past_from_ns = 0
        self.wake_ns = NEVER_NS

    def next_key(self) -> int:
        self._last_key += 1
        return self._last_key

    def wake_at(self, when_ns: int) -> None:
        self.wake_ns = min(self.wake_ns, when_ns)

    def ground(self) -> None:
        """Forget what is on its way: it will be read again, or turn out to be home."""
        self.flights.clear()
        self.reading = None

    def land_what_is_home(self) -> None:
        for flight in self.flights:
            if covers(self.courses[flight.lane.stream].home, flight.batch.first, flight.batch.last):
                self.flights.land(flight)

    # --- again ---

    def overdue(self, now_ns: int, heard_ns: int) -> bool:
        """Whether a batch has waited too long and the hub has said nothing at all since it was sent."""
        return any(f.due_ns <= now_ns and not f.asked and heard_ns < f.sent_ns for f in self.flights)

    def resend(self, now_ns: int) -> list[Send]:
        """The same bytes again, of every batch whose time has come and, if it is paced, that the bucket lets go."""
        again = []
        for flight in self.flights:
            if flight.due_ns > now_ns:
                self.wake_at(flight.due_ns)
            elif flight.lane.paced and self.pacing.free_ns > now_ns:
                self.wake_at(self.pacing.free_ns)
            elif flight.tries >= TRIES_MAX and not flight.asked and flight.rows > 1:
                self.shrink(flight)
            else:
                self._counts.timeouts += not flight.asked
                self._counts.resends += 1
                flight.tries += not flight.asked
                flight.wait(now_ns, self._chance())
                self.pacing.sent(now_ns, flight.size_bytes)
                again.append(Send(flight.key, flight.lane.stream, flight.batch.payload))
        return again

    def shrink(self, flight: Flight) -> None:
        """Never send so many rows at once again: somebody on the way does not let them pass."""
        self.flights.land(flight)
        self.courses[flight.lane.stream].rows_max = flight.rows // 2
        self._counts.shrunk += 1

    # --- new ones ---

    def choose(self, now_ns: int) -> Read | None:
        """What to read next; None when nothing may go now."""
        for course in self.courses.values():
            self._take_off_the_shelf(now_ns, course)
            course.open_front()
            self._counts.fallbacks += course.age_live(now_ns)
        if self.reading is not None or len(self.flights) >= self._window:
            return None
        paced_slots = 1 if self.slow else max(1, self._window - 1)
        paced_room = self.flights.paced < paced_slots and self.pacing.fits(self.flights.uncarried_bytes)
        for lane in self._share.order(self._target_bytes):
            hole = self._hole(lane)
            if hole is None or (lane.paced and not paced_room):
                continue
            course = self.courses[lane.stream]
            enough = course.rows(self._target_bytes)
            rows = min(enough, hole[1] - hole[0] + 1)
            ready_ns = self._ready_ns(lane, course, hole[0], gathers=lane.gathers and rows < enough)
            if ready_ns <= now_ns:
                self.reading = Read(self.next_key(), lane, hole[0], rows)
                return self.reading
            self.wake_at(ready_ns)
        return None

    def nothing_there(self, now_ns: int, order: Read) -> None:
        """The store did not have what was asked for yet."""
        course = self.courses[order.lane.stream]
        course.quiet_until_ns = max(course.quiet_until_ns, now_ns + QUIET_NS)

    def launch(self, now_ns: int, order: Read, batch: Sealed) -> Send | None:
        """Send what was read; None when it came out too large and must be read again, smaller."""
        course = self.courses[order.lane.stream]
        rows, size_bytes = batch.last - batch.first + 1, len(batch.payload)
        if batch.first != order.first or rows < 1:
            raise BugError(f"read {order.lane.stream} {order.first}, got {batch.first} to {batch.last}")
        if not batch.lost:
            if rows > 1 and size_bytes > min(2 * self._target_bytes, self.payload_max_bytes):
                course.too_heavy(rows, size_bytes)
                self._counts.shrunk += 1
                return None
            course.weighed(rows, size_bytes)
        past_waits = order.lane.part == "live" and now_ns >= self.past_from_ns and self._past_waits()
        flight = Flight(order.key, order.lane, batch, now_ns, now_ns)
        flight.wait(now_ns, self._chance())
        self.flights.add(flight)
        self.pacing.sent(now_ns, size_bytes)
        self._share.sent(order.lane, size_bytes, past_waits=past_waits)
        self._count(order, batch)
        return Send(order.key, order.lane.stream, batch.payload)

    # --- inside ---

    @property
    def _target_bytes(self) -> int:
        return min(self.pacing.batch_bytes, self.payload_max_bytes * 3 // 4)

    def _hole(self, lane: Lane) -> Range | None:
        course = self.courses.get(lane.stream)
        if course is None or len(course.given_up) + len(course.shelved) >= HOLES_MAX:
            return None
        course.flying = self.flights.ranges(lane.stream)
        return course.hole(lane.part)

    def _take_off_the_shelf(self, now_ns: int, course: Course) -> None:
        if course.shelved and now_ns - course.shelved_ns >= SHELF_S * _S:
            course.shelved = ()
        elif course.shelved:
            self.wake_at(course.shelved_ns + SHELF_S * _S)

    def _past_waits(self) -> bool:
        return any(lane.spreads and self._hole(lane) for lane in LANES)

    def _ready_ns(self, lane: Lane, course: Course, first: int, *, gathers: bool) -> int:
        """From when on this lane may send."""
        ready_ns = course.quiet_until_ns
        if lane.paced:
            ready_ns = max(ready_ns, self.paced_from_ns, self.pacing.free_ns)
        if lane.spreads:
            ready_ns = max(ready_ns, self.past_from_ns)
        return max(ready_ns, course.made_ns(first) + self._gather_ns) if gathers else ready_ns

    def _count(self, order: Read, batch: Sealed) -> None:
        counts = self._counts
        counts.batches += 1
        counts.rows += 0 if batch.lost else batch.last - batch.first + 1
        counts.bytes += len(batch.payload)
        counts.alarm_batches += order.lane.stream == "alarm"
        counts.lost_batches += batch.lost
