"""The daemon's side of the uplink: starts the child process, tells it the news, hears what is home, starts it again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edged.errors import EdgedError
from edged.mqtt.backoff import Backoff
from edged.sync.protocol import Range, Stream
from edged.uplink.lines import (
    LINE_MAX_BYTES,
    ForkFound,
    FromUplink,
    GaveUp,
    Line,
    News,
    Reason,
    Rejected,
    Start,
    Status,
    Synced,
    decode,
    encode,
)

if TYPE_CHECKING:
    from edged.config.settings import Config
    from edged.ops.logs import Log
    from edged.ports import Clock

NEWS_EVERY_S = 0.02  # alarms excepted
NEWS_WAITING_MAX_BYTES = 65_536  # that the child has not read: newer news replace older ones here, not in the pipe
GRACE_S = 3.0
FAILED = "uplink_failed"
FAILS_IN_ROW = 3  # then somebody must look
STEADY_S = 10.0  # a child that lives so long has not failed
COMMAND = (sys.executable, "-P", "-m", "edged.uplink")


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """What the daemon wants to hear; all calls are made on the loop and must not block.

    on_synced: these numbers are home. on_rejected: these need a tombstone, then `Uplink.gave_up`. on_fork: from this
    number on another history stands under our epoch. on_reason: a reason of the mode began or ended.
    """

    on_synced: Callable[[Stream, tuple[Range, ...]], None]
    on_rejected: Callable[[Stream, int, int, str], None]
    on_fork: Callable[[str, int], None]
    on_status: Callable[[Status], None]
    on_reason: Callable[[str, bool, str], None]


class UplinkStatistics(NamedTuple):
    """starts: of the child. crashes: ends that nobody asked for. last_exit: code of the last one, negative: signal."""

    starts: int
    crashes: int
    last_exit: int | None
    pid: int | None
    lines: int
    news: int


class Uplink:
    """Owns the child process. `run` is a task of the daemon.

    Args:
        start: what the child is told first; its receiver is replaced by the one that answered.
        chance: uniform in [0, 1), spreads restarts.
        command: the child, for tests.
    """

    def __init__(
        self,
        start: Start,
        callbacks: Callbacks,
        *,
        clock: Clock,
        log: Log,
        chance: Callable[[], float],
        command: Sequence[str] = COMMAND,
        backoff: Backoff | None = None,
    ) -> None:
        self._start = start
        self._tell = callbacks
        self._now_ns = clock.mono_ns
        self._log = log
        self._chance = chance
        self._command = list(command)
        self._backoff = backoff or Backoff()
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: asyncio.WriteTransport | None = None
        self._next: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = asyncio.Event()
        self._receiver = start.receiver
        self._active: dict[str, str] = {}
        self._stale: set[str] = set()  # said by a child that is gone, until its successor knows better
        self._starts = self._crashes = self._lines = self._news = 0
        self._last_exit: int | None = None
        self._since_ns = 0

    @property
    def receiver(self) -> str:
        """The hub whose answers count; to be kept, and given back with `Start` after a restart of the daemon."""
        return self._receiver

    def statistics(self) -> UplinkStatistics:
        pid = self._child.pid if self._child is not None else None
        return UplinkStatistics(self._starts, self._crashes, self._last_exit, pid, self._lines, self._news)

    # --- what the daemon tells ---

    def news(self, next_by_stream: Mapping[str, int], *, urgent: bool = False) -> None:
        """Rows were committed; the numbers that the next ones will get. urgent: an alarm is among them."""
        self._next.update(next_by_stream)
        if urgent:
            self._flush()
        elif self._timer is None and self._pipe is not None:
            self._timer = asyncio.get_running_loop().call_later(NEWS_EVERY_S, self._flush)

    def gave_up(self, stream: Stream, first: int, last: int) -> None:
        """The tombstone that was asked for is durable."""
        self._write(GaveUp(stream=stream, first=first, last=last))

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pipe = self._pipe
        if pipe is None or self._next == self._told:
            return
        if pipe.get_write_buffer_size() > NEWS_WAITING_MAX_BYTES:
            self._timer = asyncio.get_running_loop().call_later(NEWS_EVERY_S, self._flush)
            return
        fresh = {stream: number for stream, number in self._next.items() if self._told.get(stream) != number}
        self._told = dict(self._next)
        self._news += 1
        self._write(News(next=fresh))

    def _write(self, line: Line) -> None:
        if self._pipe is not None and not self._pipe.is_closing():
            self._pipe.write(encode(line))

    # --- the child ---

    async def run(self) -> None:
        """Keep the child running until `stop` or cancellation. What it does wrong is told, never raised."""
        failures = 0
        try:
            while not self._stopping.is_set():
                self._since_ns = self._now_ns()
                await self._live_once()
                if self._stopping.is_set():
                    return
                self._crashes += 1
                up_s = (self._now_ns() - self._since_ns) / 1e9
                failures = self._backoff.failures_after(failures, up_s)
                self._log.error("uplink_died", exit=self._last_exit, up_s=round(up_s, 1), in_row=failures)
                if failures >= FAILS_IN_ROW:
                    self._reason(FAILED, True, f"ended {failures} times in a row, last with {self._last_exit}")
                delay_s = max(self._backoff.first_s, self._backoff.delay_s(failures, self._chance()))
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await self._stopping.wait()
        finally:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._child is not None:  # cancelled
                self._child.kill()
                await asyncio.to_thread(self._child.wait)
                self._child = None

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL when it has not ended in time."""
        self._stopping.set()
        child = self._child
        if child is None:
            return
        child.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(child.wait, GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            await asyncio.to_thread(child.wait)

    async def _live_once(self) -> None:
        """Start the child, hear it until its output ends."""
        loop = asyncio.get_running_loop()
        try:
            child = await asyncio.to_thread(_spawn, self._command)
        except OSError as error:
            self._log.error("uplink_not_started", detail=str(error))
            return
        assert child.stdin is not None
        assert child.stdout is not None
        self._child = child
        self._starts += 1
        reader = asyncio.StreamReader(limit=LINE_MAX_BYTES)
        output, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), child.stdout)
        self._pipe, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, child.stdin)
        if self._stopping.is_set():
            child.terminate()
        try:
            self._told = {}
            self._write(msgspec.structs.replace(self._start, receiver=self._receiver))
            self._flush()
            await self._hear(reader)
        except EdgedError as error:
            self._log.error("uplink_not_understood", detail=str(error))
            child.kill()
        finally:
            self._pipe.close()
            self._pipe = None
            output.close()
        self._last_exit = await asyncio.to_thread(_ended, child)
        self._child = None
        self._stale = set(self._active) - {FAILED}

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:
                raise EdgedError(f"reading a line of the uplink: longer than {LINE_MAX_BYTES} bytes") from None
            if not line:
                return
            self._lines += 1
            self._on_line(decode(line, FromUplink))

    def _on_line(self, line: FromUplink) -> None:
        match line:
            case Synced(stream=stream, ranges=ranges):
                self._tell.on_synced(stream, ranges)
            case Rejected(stream=stream, first=first, last=last, reason=reason):
                self._tell.on_rejected(stream, first, last, reason)
            case ForkFound(epoch=epoch, seq=seq):
                self._tell.on_fork(epoch, seq)
            case Reason(code=code, active=active, detail=detail):
                self._stale.discard(code)
                self._reason(code, active, detail)
            case Status():
                self._on_status(line)

    def _on_status(self, status: Status) -> None:
        self._receiver = status.receiver or self._receiver
        if self._now_ns() - self._since_ns >= STEADY_S * 1e9:
            self._reason(FAILED, False, "it runs")
        if status.state == "open":
            for code in self._stale:
                self._reason(code, False, "the hub answers")
            self._stale.clear()
        self._tell.on_status(status)

    def _reason(self, code: str, active: bool, detail: str) -> None:
        if active != (code in self._active):
            if active:
                self._active[code] = detail
            else:
                del self._active[code]
            self._tell.on_reason(code, active, detail)


def start_of(config: Config, version: str, receiver: str = "") -> Start:
    """What the child needs of a configuration that has [upstream]. receiver: the one that was kept."""
    assert config.upstream is not None
    gateway = config.gateway
    return Start(
        site=gateway.site,
        gateway=gateway.id,
        version=version,
        state_dir=gateway.state_dir,
        upstream=config.upstream,
        receiver=receiver,
    )


def _spawn(command: list[str]) -> subprocess.Popen[bytes]:
    """In a thread: forking a large process takes milliseconds."""
    package = str(Path(__file__).parents[2])
    search = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": search}
    )


def _ended(child: subprocess.Popen[bytes]) -> int:
    """How it ended; one that closed its output and stays is killed."""
    try:
        return child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()
