"""The uplink's loop: tells the sender what happened, carries out what it asks for, and reports to the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from edged.errors import BugError
from edged.sync.dispatch import Rules
from edged.sync.effects import Effect, GiveUp, Home, Look, Parted, Raise, Read, SayHello, Sealed, Send
from edged.sync.envelope import Refusal, decode_ack, decode_hello_ack
from edged.sync.protocol import Stream, StreamExtent
from edged.sync.ranges import Ranges, add
from edged.sync.sender import Sender
from edged.uplink.http_carrier import HttpCarrier
from edged.uplink.lines import (
    DETAIL_MAX_CHARS,
    RANGES_PER_LINE,
    ForkFound,
    GaveUp,
    Line,
    News,
    Reason,
    Rejected,
    Start,
    Status,
    Synced,
    ToUplink,
)
from edged.uplink.mqtt_carrier import MqttCarrier

if TYPE_CHECKING:
    from edged.ops.logs import Log
    from edged.ports import Clock
    from edged.uplink.batches import Batches
    from edged.uplink.carrier import Carrier
    from edged.uplink.quarantine import Quarantine

STATUS_EVERY_S = 1.0
HOME_EVERY_S = 0.02  # what is home is told so often at most
BIT_S = 1000 / 8  # bytes/s in a kbit/s

T = TypeVar("T")
Tell = Callable[[Line], None]


class Session:
    """Implements `edged.uplink.carrier.CarrierListener`.

    Args:
        start: what the daemon said first.
        instance: of this run; answers to hellos of others are ignored.
        batches: reads and seals, in a thread that belongs to it.
        tell: writes a line to the daemon; never blocks.
        chance: uniform in [0, 1).
    """

    def __init__(
        self,
        start: Start,
        instance: str,
        batches: Batches,
        quarantine: Quarantine,
        tell: Tell,
        *,
        clock: Clock,
        log: Log,
        chance: Callable[[], float],
    ) -> None:
        self._batches = batches
        self._quarantine = quarantine
        self._tell = tell
        self._clock = clock
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="uplink-store")
        self._timer: asyncio.TimerHandle | None = None
        self._home: dict[Stream, Ranges] = {}
        self._home_timer: asyncio.TimerHandle | None = None
        self._reasons: dict[str, dict[str, str]] = {}  # code → who says so → detail
        self._receiver = ""
        self._unreadable = 0
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self.sender = Sender(_rules(start, instance), chance)
        make = HttpCarrier if start.upstream.http else MqttCarrier
        self.carrier: Carrier = make(start, self, clock, chance)

    async def run(self) -> None:
        """Until cancelled. Raises what made the store unreadable."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.carrier.run(), name="carrier")
            tasks.create_task(self._report(), name="status")
            await self.failed

    async def close(self) -> None:
        for timer in (self._timer, self._home_timer):
            if timer is not None:
                timer.cancel()
        self._tell_home()
        await self.carrier.close()
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    def heard(self, line: ToUplink) -> None:
        """The daemon said something."""
        now = self._clock.mono_ns()
        match line:
            case News(next=numbers):
                self._act(self.sender.made(now, numbers))
            case GaveUp(stream=stream, first=first, last=last):
                self._act(self.sender.gave_up(now, stream, first, last))

    # --- CarrierListener ---

    def on_up(self, payload_max_bytes: int) -> None:
        self._log.info("uplink_connected")
        self._act(self.sender.link_up(self._clock.mono_ns(), payload_max_bytes))

    def on_down(self, detail: str) -> None:
        self._log.warning("uplink_disconnected", detail=detail)
        self._act(self.sender.link_down(self._clock.mono_ns(), detail))

    def on_carried(self, key: int) -> None:
        self._act(self.sender.carried(self._clock.mono_ns(), key))

    def on_refused(self, key: int, reason: str) -> None:
        self._act(self.sender.unsendable(self._clock.mono_ns(), key, reason))

    def on_hello_answer(self, payload: bytes) -> None:
        try:
            answer = decode_hello_ack(payload)
        except Refusal as refusal:
            self._not_understood(refusal)
        else:
            self._act(self.sender.welcomed(self._clock.mono_ns(), answer))

    def on_answer(self, payload: bytes) -> None:
        try:
            answer = decode_ack(payload)
        except Refusal as refusal:
            self._not_understood(refusal)
        else:
            self._act(self.sender.answered(self._clock.mono_ns(), answer))

    def on_trouble(self, code: str, active: bool, detail: str) -> None:
        self._reason("upstream_refused", code, active, f"{code}: {detail}")

    def _not_understood(self, refusal: Refusal) -> None:
        self._unreadable += 1
        self._log.warning("uplink_answer_not_understood", code=refusal.code, detail=refusal.detail)

    # --- what the sender asks for ---

    def _act(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case SayHello(key):
                    self._in_thread(self._hello_of, partial(self._on_hello, key))
                case Look():
                    self._in_thread(self._batches.extents, self._on_extents)
                case Read():
                    self._in_thread(partial(self._batches.batch, effect), partial(self._on_batch, effect.key))
                case Send(key, stream, payload):
                    self.carrier.batch(key, stream, payload)
                case Home(stream, ranges):
                    self._remember_home(stream, ranges)
                case GiveUp():
                    self._in_thread(partial(self._keep, effect), partial(self._on_kept, effect))
                case Parted(epoch, seq):
                    self._log.error("uplink_fork", epoch=epoch, seq=seq)
                    self._tell(ForkFound(epoch=epoch, seq=seq))
                case Raise(code, active, detail):
                    self._reason(code, "sender", active, detail)
        if self.sender.receiver != self._receiver:  # to be kept for the next run
            self._receiver = self.sender.receiver
            self._tell(self.status())
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay_s = (self.sender.due_ns - self._clock.mono_ns()) / 1e9
        self._timer = self._loop.call_later(min(max(0.0, delay_s), 3600.0), self._tick)

    def _tick(self) -> None:
        self._act(self.sender.tick(self._clock.mono_ns()))

    def _hello_of(self) -> tuple[tuple[StreamExtent, ...], bytes]:
        extents = self._batches.extents()
        return extents, self._batches.hello(extents)

    def _on_hello(self, key: int, read: tuple[tuple[StreamExtent, ...], bytes]) -> None:
        self._on_extents(read[0])
        self.carrier.hello(key, read[1])

    def _on_extents(self, extents: tuple[StreamExtent, ...]) -> None:
        self._act(self.sender.moved(self._clock.mono_ns(), extents))

    def _on_batch(self, key: int, batch: Sealed | None) -> None:
        self._act(self.sender.sealed(self._clock.mono_ns(), key, batch))

    def _keep(self, refused: GiveUp) -> str:
        """Where the copy of a refused batch is; a disk that takes none must not keep the line from moving on."""
        try:
            kept = self._quarantine.keep(refused.stream, refused.first, refused.last, refused.reason, refused.payload)
        except OSError as error:
            return f"no copy could be kept: {error}"
        return str(kept)

    def _on_kept(self, refused: GiveUp, where: str) -> None:
        self._log.error(
            "uplink_batch_refused",
            code=refused.reason,
            stream=refused.stream,
            first=refused.first,
            last=refused.last,
            kept=where,
        )
        if refused.tombstone:
            self._tell(Rejected(stream=refused.stream, first=refused.first, last=refused.last, reason=refused.reason))

    # --- what the daemon is told ---

    def _remember_home(self, stream: Stream, ranges: Ranges) -> None:
        known = self._home.get(stream, ())
        for first, last in ranges:
            known = add(known, first, last)
        self._home[stream] = known
        if self._home_timer is None:
            self._home_timer = self._loop.call_later(HOME_EVERY_S, self._tell_home)

    def _tell_home(self) -> None:
        self._home_timer = None
        home, self._home = self._home, {}
        for stream, ranges in home.items():
            for begin in range(0, len(ranges), RANGES_PER_LINE):
                self._tell(Synced(stream=stream, ranges=ranges[begin : begin + RANGES_PER_LINE]))

    def _reason(self, code: str, source: str, active: bool, detail: str) -> None:
        """A reason is there while anybody says so."""
        said = self._reasons.setdefault(code, {})
        before = bool(said)
        if active:
            said[source] = detail
        else:
            said.pop(source, None)
        if bool(said) != before:
            (self._log.warning if active else self._log.info)("uplink_reason", code=code, active=active, detail=detail)
            self._tell(Reason(code=code, active=active, detail=detail[:DETAIL_MAX_CHARS]))

    async def _report(self) -> None:
        while True:
            self._tell(self.status())
            await asyncio.sleep(STATUS_EVERY_S)

    def status(self) -> Status:
        standing = self.sender.standing()
        return Status(
            state=standing.state,
            receiver=standing.receiver,
            lag_rows=standing.lag,
            ranges=standing.ranges,
            in_flight=standing.in_flight,
            in_flight_bytes=standing.in_flight_bytes,
            rate_kbit_s=round(standing.rate_bytes_s / BIT_S),
            link_delay_ms=standing.link_delay_ms,
            ack_delay_ms=standing.ack_delay_ms,
            counters={
                **asdict(self.sender.counts),
                "slowdowns": standing.slowdowns,
                "answers_not_understood": self._unreadable,
            },
        )

    # --- the thread ---

    def _in_thread(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        try:
            future = asyncio.wrap_future(self._thread.submit(work), loop=self._loop)
        except RuntimeError:  # the thread is closed: the process ends
            return
        future.add_done_callback(partial(self._done, then))

    def _done(self, then: Callable[[T], None], future: asyncio.Future[T]) -> None:
        if future.cancelled() or self.failed.done():
            return
        error = future.exception()
        if error is None:
            try:
                then(future.result())
            except BugError as bug:
                self.failed.set_exception(bug)
        else:  # the store cannot be read: the process ends, and is started again
            self.failed.set_exception(error)


def _rules(start: Start, instance: str) -> Rules:
    upstream = start.upstream
    return Rules(
        site=start.site,
        gateway=start.gateway,
        instance=instance,
        streams=upstream.streams,
        receiver=upstream.receiver or start.receiver,
        rate_limit_bytes_s=upstream.rate_limit_kbit_s * BIT_S,
        window=upstream.window,
        live_interval_s=upstream.live_interval_ms / 1000,
        reconnect_spread_s=upstream.reconnect_spread_s,
    )
