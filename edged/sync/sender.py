"""The gateway's side of `edged-sync/1`: what to send, and when, until every number is home. Pure.

The rim tells what happened and when (`link_up`, `welcomed`, `answered`, `sealed`, `tick`, ...); each call returns the
effects that the rim must carry out, in order. Nothing here is durable: everything follows from the store's extents and
the hub's answer to `hello`, so the process around it may die at any instant. Times are monotonic nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from edged.sync.course import Course
from edged.sync.dispatch import NEVER_NS, PAYLOAD_MAX_BYTES, Dispatch, Rules
from edged.sync.effects import (
    Counts,
    Effect,
    GiveUp,
    Home,
    Look,
    Parted,
    Raise,
    SayHello,
    Sealed,
    Standing,
)
from edged.sync.flights import Flight
from edged.sync.protocol import BATCH_ROWS_MAX, VERSION, Ack, HelloAck, Stream, StreamExtent
from edged.sync.ranges import Ranges, add, missing

_S = 1_000_000_000

HELLO_FIRST_S = 5.0  # until the next hello; longer than the way there and back over a satellite
HELLO_MAX_S = 30.0
HELLO_BYTES = 500
REFUSED_FIRST_S = 60.0  # a hub that does not want us is asked again so late, doubling
REFUSED_MAX_S = 3600.0
RETRY_MIN_S, RETRY_MAX_S = 0.1, 600.0  # what a hub may ask for
UNSENDABLE_S = 10.0
FOREIGN_NS = 600 * _S  # another receiver is gone when it was not heard for so long
REJECTS_IN_ROW = 3  # of one stream: then more than these rows is wrong, and giving up more would be loss for nothing
OURS = frozenset({"foreign_gateway", "bad_header"})  # refusals that say nothing about the rows: none is given up


class State(Enum):
    """Where the sender stands. HALTED: another history stands under our numbers, and the daemon restarts."""

    AWAY = "away"
    GREETING = "greeting"
    OPEN = "open"
    HALTED = "halted"


class Event(Enum):
    """What moves it. DOUBT: the hub refuses us, or says nothing any more, so ask again who is there."""

    UP = "up"
    DOWN = "down"
    WELCOME = "welcome"
    DOUBT = "doubt"
    FORK = "fork"


NEXT: Mapping[tuple[State, Event], State] = {
    (State.AWAY, Event.UP): State.GREETING,
    (State.GREETING, Event.DOWN): State.AWAY,
    (State.GREETING, Event.WELCOME): State.OPEN,
    (State.GREETING, Event.FORK): State.HALTED,
    (State.OPEN, Event.UP): State.GREETING,
    (State.OPEN, Event.DOWN): State.AWAY,
    (State.OPEN, Event.DOUBT): State.GREETING,
}
"""What is not listed changes nothing; out of HALTED nothing leads."""


class Sender:
    """The state machine. chance: uniform in [0, 1), spreads what a fleet would otherwise do in step."""

    def __init__(self, rules: Rules, chance: Callable[[], float]) -> None:
        self._rules = rules
        self._chance = chance
        self.receiver = rules.receiver
        self.counts = Counts()
        self._state = State.AWAY
        self._dispatch = Dispatch(rules, self.counts, chance)
        self._courses = self._dispatch.courses
        self._pacing = self._dispatch.pacing
        self._flights = self._dispatch.flights
        self._effects: list[Effect] = []
        self._reasons: set[str] = set()
        self._hello: tuple[int, int] | None = None  # key of the last one, and when it was sent
        self._hello_due_ns = self._hello_tries = 0
        self._refusals = 0
        self._heard_ns = self._foreign_ns = self._ack_delay_ns = 0

    @property
    def due_ns(self) -> int:
        """When `tick` is to be called if nothing happens before."""
        return self._dispatch.wake_ns

    def standing(self) -> Standing:
        return Standing(
            state=self._state.value,
            receiver=self.receiver,
            lag={stream: course.waiting for stream, course in self._courses.items()},
            ranges={stream: len(course.home) for stream, course in self._courses.items()},
            in_flight=len(self._flights),
            in_flight_bytes=self._flights.bytes,
            rate_bytes_s=int(self._pacing.rate_bytes_s),
            link_delay_ms=int(self._pacing.base_s * 1000),
            ack_delay_ms=self._ack_delay_ns // 1_000_000,
            slowdowns=self._pacing.slowdowns,
        )

    # --- what happens to the link ---

    def link_up(self, now_ns: int, payload_max_bytes: int = PAYLOAD_MAX_BYTES) -> list[Effect]:
        """Connected. payload_max_bytes: the largest batch, header line included, that the link takes."""
        self._dispatch.payload_max_bytes = min(payload_max_bytes, PAYLOAD_MAX_BYTES)
        self._dispatch.ground()
        for course in self._courses.values():
            course.rows_max = BATCH_ROWS_MAX
        self._pacing.restart(now_ns)
        self._hello_due_ns, self._hello_tries = now_ns, 0
        self._enter(Event.UP)
        return self._done(now_ns)

    def link_down(self, now_ns: int, detail: str) -> list[Effect]:
        self._dispatch.ground()
        self._hello = None
        self._enter(Event.DOWN)
        self._raise("upstream_away", detail)
        return self._done(now_ns)

    def carried(self, now_ns: int, key: int) -> list[Effect]:
        """The other end of the link has the bytes; only a measurement, no answer of the hub."""
        flight = self._flights.get(key)
        if self._hello is not None and self._hello[0] == key:
            self._pacing.carried(now_ns, self._hello[1], HELLO_BYTES, paced=False)
            self._hello = None
        elif flight is not None and not flight.carried:
            flight.carried = True
            paced = flight.lane.paced and flight.tries == 1
            self._pacing.carried(now_ns, flight.sent_ns, flight.size_bytes, paced=paced)
        return self._done(now_ns)

    def unsendable(self, now_ns: int, key: int, reason: str) -> list[Effect]:
        """The link, or somebody on the way, refused these bytes."""
        flight = self._flights.get(key)
        if flight is not None and reason == "packet_too_large":
            self._too_large(now_ns, flight, "too_large")
        else:
            self._raise("upstream_refused", f"publishing is refused: {reason}")
            if flight is not None:
                flight.asked, flight.carried = True, True
                flight.due_ns = now_ns + int(UNSENDABLE_S * _S)
        return self._done(now_ns)

    # --- what happens in the store ---

    def moved(self, now_ns: int, extents: Sequence[StreamExtent]) -> list[Effect]:
        """What the store holds now."""
        for stream, course in self._courses.items():
            course.moved([extent for extent in extents if extent.stream == stream], now_ns)
        return self._done(now_ns)

    def made(self, now_ns: int, next_by_stream: Mapping[str, int]) -> list[Effect]:
        """Rows were made; the numbers that the next ones will get."""
        unknown = False
        for stream, course in self._courses.items():
            number = next_by_stream.get(stream, 0)
            if course.extents:
                course.grown(number, now_ns)
            else:
                unknown = unknown or number > 1
        if unknown:
            self._effects.append(Look())
        return self._done(now_ns)

    def gave_up(self, now_ns: int, stream: Stream, first: int, last: int) -> list[Effect]:
        """A tombstone stands in the place of these numbers."""
        course = self._courses.get(stream)
        if course is not None:
            tombstone = ((first, last),)
            course.given_up = tuple(rest for piece in course.given_up for rest in missing(tombstone, *piece))
        return self._done(now_ns)

    def sealed(self, now_ns: int, key: int, batch: Sealed | None) -> list[Effect]:
        """The answer to `Read`. None: nothing is there yet. An empty payload: these rows cannot be made a batch."""
        dispatch = self._dispatch
        order = dispatch.reading
        if order is not None and order.key == key:  # else of a connection that is gone
            dispatch.reading = None
            if batch is None:
                dispatch.nothing_there(now_ns, order)
            elif not 0 < len(batch.payload) <= dispatch.payload_max_bytes and (batch.first == batch.last or batch.lost):
                self._give_up(now_ns, order.lane.stream, batch, "too_large")
            elif self._state is State.OPEN and (send := dispatch.launch(now_ns, order, batch)):
                self._effects.append(send)
        return self._done(now_ns)

    # --- what the hub says ---

    def welcomed(self, now_ns: int, answer: HelloAck) -> list[Effect]:
        """The answer to a hello."""
        ours = self._is_ours(answer) and answer.instance == self._rules.instance
        if ours and self._is_right(now_ns, answer.receiver) and self._state is State.GREETING:
            self._on_welcome(now_ns, answer)
        return self._done(now_ns)

    def answered(self, now_ns: int, answer: Ack) -> list[Effect]:
        """The answer to a batch, or to one of a former connection: what it calls home is home in any case."""
        course = self._courses.get(answer.stream)
        if course is None or not self.receiver or not self._is_ours(answer):
            self.counts.strange += 1
        elif self._state is not State.HALTED and self._is_right(now_ns, answer.receiver):
            self._on_answer(now_ns, course, answer)
        return self._done(now_ns)

    def tick(self, now_ns: int) -> list[Effect]:
        """Time has passed."""
        return self._done(now_ns)

    def _done(self, now_ns: int) -> list[Effect]:
        """Go on as far as possible, and hand out what has come together."""
        dispatch = self._dispatch
        dispatch.wake_ns = NEVER_NS
        if now_ns - self._foreign_ns >= FOREIGN_NS:
            self._end("receiver_foreign")
        if self._state is State.OPEN and dispatch.overdue(now_ns, self._heard_ns):
            self._hello_due_ns, self._hello_tries = now_ns, 0
            self._enter(Event.DOUBT)
        if self._state is State.GREETING:
            self._greet(now_ns)
        elif self._state is State.OPEN:
            self._effects += dispatch.resend(now_ns)
            if (read := dispatch.choose(now_ns)) is not None:
                self._effects.append(read)
        effects, self._effects = self._effects, []
        return effects

    # --- hello ---

    def _greet(self, now_ns: int) -> None:
        if now_ns >= self._hello_due_ns:
            self._hello_tries += 1
            if self._hello_tries > 1:
                self._raise("upstream_away", "nobody answers to hello")
            pause_s = min(HELLO_MAX_S, HELLO_FIRST_S * (1 << min(self._hello_tries - 1, 8)))
            self._hello_due_ns = now_ns + int(pause_s * (0.75 + self._chance() / 2) * _S)
            self._hello = (self._dispatch.next_key(), now_ns)
            self.counts.hellos += 1
            self._effects.append(SayHello(self._hello[0]))
        self._dispatch.wake_at(self._hello_due_ns)

    def _on_welcome(self, now_ns: int, answer: HelloAck) -> None:
        self._heard_ns = now_ns
        self._end("upstream_away")
        if answer.status == "retry":
            self._raise("upstream_slow", answer.reason)
            self._hello_due_ns = now_ns + self._asked_ns(answer.retry_ms)
        elif answer.status == "reject":
            self._refused(now_ns, f"the hub refuses this gateway: {answer.reason}")
        elif answer.forks:
            self._enter(Event.FORK)
            self._dispatch.ground()
            self._effects += [Parted(fork.epoch, fork.seq) for fork in answer.forks]
        else:
            self._open(now_ns, answer)

    def _open(self, now_ns: int, answer: HelloAck) -> None:
        self._enter(Event.WELCOME)
        dispatch = self._dispatch
        dispatch.slow = False
        self._end("upstream_slow")
        if not self._refusals:
            self._end("upstream_refused")
        spread_s = max(answer.spread_s, self._rules.reconnect_spread_s)
        dispatch.past_from_ns = now_ns + int(self._chance() * spread_s * _S)
        dispatch.paced_from_ns = now_ns
        for stream, course in self._courses.items():
            told: Ranges = ()
            for cursor in answer.cursors:
                if cursor.stream == stream:
                    for first, last in course.told(cursor.epoch, cursor.upto, cursor.ranges) or ():
                        told = add(told, first, last)
            course.begin(told)
            if course.home:
                self._effects.append(Home(stream, course.home))
        dispatch.land_what_is_home()
        for flight in self._flights:  # nobody answered them: the same bytes again
            flight.asked = flight.asked or flight.due_ns > now_ns
            flight.due_ns = now_ns

    def _refused(self, now_ns: int, detail: str) -> None:
        """The hub does not want us: keep everything, and ask again much later."""
        self._raise("upstream_refused", detail)
        self._dispatch.ground()
        pause_s = min(REFUSED_MAX_S, REFUSED_FIRST_S * (1 << min(self._refusals, 8)))
        self._refusals += 1
        self._hello_due_ns = now_ns + int(pause_s * (1 + self._chance() / 4) * _S)
        self._enter(Event.DOUBT)

    # --- answers ---

    def _is_ours(self, answer: Ack | HelloAck) -> bool:
        return (answer.v, answer.site, answer.gateway) == (VERSION, self._rules.site, self._rules.gateway)

    def _is_right(self, now_ns: int, receiver: str) -> bool:
        """Whether this is our receiver; the first one that answers becomes it."""
        self.receiver = self.receiver or receiver
        if receiver == self.receiver:
            return True
        self.counts.foreign += 1
        self._foreign_ns = now_ns
        self._raise("receiver_foreign", f"{receiver} answers too, ours is {self.receiver}")
        return False

    def _on_answer(self, now_ns: int, course: Course, answer: Ack) -> None:
        batch = ((answer.first, answer.last),) if answer.status == "ok" else ()
        told = course.told(answer.epoch, answer.upto, (*answer.ranges, *batch))
        if told is None:
            self.counts.strange += 1
            return
        self.counts.answers += 1
        self.counts.bad_rows += len(answer.bad)
        self._heard_ns = now_ns
        self._end("upstream_away")
        flight = self._flights.find(answer.stream, answer.epoch, answer.first, answer.last)
        if flight is not None and answer.status == "ok":
            self._ack_delay_ns += (now_ns - flight.sent_ns - self._ack_delay_ns) // 4
            if not flight.batch.lost:
                course.rejects_in_row = 0
        fresh = course.arrived(told)
        if fresh:
            self._effects.append(Home(answer.stream, fresh))
            self._dispatch.land_what_is_home()
        if answer.status == "ok":
            self._on_ok()
        elif flight is not None and self._flights.get(flight.key):
            (self._on_retry if answer.status == "retry" else self._on_reject)(now_ns, flight, answer)

    def _on_ok(self) -> None:
        self._dispatch.slow = False
        self._refusals = 0
        self._end("upstream_slow")
        self._end("upstream_refused")
        if not any(course.given_up or course.shelved for course in self._courses.values()):
            self._end("upstream_rejecting")

    def _on_retry(self, now_ns: int, flight: Flight, answer: Ack) -> None:
        self.counts.retries += 1
        self._raise("upstream_slow", answer.reason)
        flight.asked, flight.tries, flight.carried = True, 1, True
        flight.due_ns = now_ns + self._asked_ns(answer.retry_ms)
        self._dispatch.slow = True  # one batch at a time, until one is taken
        self._dispatch.paced_from_ns = max(self._dispatch.paced_from_ns, flight.due_ns)

    def _on_reject(self, now_ns: int, flight: Flight, answer: Ack) -> None:
        self.counts.rejects += 1
        if answer.reason in OURS:
            self._refused(now_ns, f"the hub refuses our batches: {answer.reason}")
        elif answer.reason == "too_large":
            self._too_large(now_ns, flight, answer.reason)
        else:
            self._flights.land(flight)
            self._give_up(now_ns, flight.lane.stream, flight.batch, answer.reason)

    def _too_large(self, now_ns: int, flight: Flight, reason: str) -> None:
        """Send less at once; a single row that is too large is given up."""
        if flight.rows > 1:
            self._dispatch.shrink(flight)
        else:
            self._flights.land(flight)
            self._give_up(now_ns, flight.lane.stream, flight.batch, reason)

    def _give_up(self, now_ns: int, stream: Stream, batch: Sealed, reason: str) -> None:
        course = self._courses[stream]
        if batch.lost:
            course.shelved, course.shelved_ns = add(course.shelved, batch.first, batch.last), now_ns
        else:
            course.given_up = add(course.given_up, batch.first, batch.last)
            self.counts.given_up += batch.last - batch.first + 1
        self._raise("upstream_rejecting", f"{stream} {batch.first} to {batch.last}: {reason}")
        self._effects.append(GiveUp(stream, batch.first, batch.last, reason, batch.payload, not batch.lost))
        course.rejects_in_row += 1
        if course.rejects_in_row >= REJECTS_IN_ROW:
            doublings = min(course.rejects_in_row - REJECTS_IN_ROW, 8)
            course.quiet_until_ns = now_ns + int(min(REFUSED_MAX_S, REFUSED_FIRST_S * (1 << doublings)) * _S)

    # --- small things ---

    def _enter(self, event: Event) -> None:
        self._state = NEXT.get((self._state, event), self._state)

    def _asked_ns(self, retry_ms: int) -> int:
        """How long the hub wants us to wait, within bounds, and not in step with others."""
        asked_s = min(RETRY_MAX_S, max(RETRY_MIN_S, retry_ms / 1000))
        return int(asked_s * (1 + self._chance() / 4) * _S)

    def _raise(self, code: str, detail: str) -> None:
        if code not in self._reasons:
            self._reasons.add(code)
            self._effects.append(Raise(code, True, detail))

    def _end(self, code: str) -> None:
        if code in self._reasons:
            self._reasons.remove(code)
            self._effects.append(Raise(code, False, ""))
