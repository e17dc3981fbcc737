"""The uplink's process: one line of configuration and then news come in, what is home goes out, on two pipes."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edged.errors import BugError, EdgedError, ExitCode
from edged.ops.clock import SystemClock
from edged.ops.logs import Log
from edged.ops.memory import use_one_arena
from edged.uplink.batches import Batches
from edged.uplink.lines import LINE_MAX_BYTES, Line, Start, Status, ToUplink, decode, encode
from edged.uplink.quarantine import Quarantine
from edged.uplink.session import Session

if TYPE_CHECKING:
    from edged.ports import Clock, Outward

OpenStore = Callable[[Start], "Outward"]

NICENESS = 5  # the hot path goes first
WAITING_MAX_BYTES = 262_144  # that the daemon has not read: then it hears no status until it has
START_WITHIN_S = 30.0


def main(open_store: OpenStore) -> int:
    """Run until the daemon closes our standard input, or SIGTERM. Returns an exit code."""
    use_one_arena()
    os.nice(NICENESS)
    clock = SystemClock()
    log = Log(clock)
    try:
        import uvloop
    except ImportError:  # no wheel for this platform: slower, otherwise the same
        return asyncio.run(_guarded(open_store, clock, log))
    return uvloop.run(_guarded(open_store, clock, log))


async def _guarded(open_store: OpenStore, clock: Clock, log: Log) -> int:
    code = ExitCode.OK
    try:
        await serve(open_store, clock, log)
    except* EdgedError as group:
        error = _first(group)
        log.error("uplink_ended", code=type(error).__name__, detail=str(error))
        code = error.exit_code
    except* BugError:
        traceback.print_exc()
        code = ExitCode.BUG
    return int(code)


def _first(group: BaseExceptionGroup[EdgedError]) -> EdgedError:
    """The first error of a group, however deep: task groups nest."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


class Pipe:
    """Standard output: whole lines, never blocking. Status lines are left out while the daemon does not read."""

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport

    def tell(self, line: Line) -> None:
        if isinstance(line, Status) and self._transport.get_write_buffer_size() > WAITING_MAX_BYTES:
            return
        self._transport.write(encode(line))


async def serve(open_store: OpenStore, clock: Clock, log: Log) -> None:
    """Everything between the first line and the end of the input."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_MAX_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sys.stdout)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # of the terminal: the daemon tells us when to end
    async with asyncio.timeout(START_WITHIN_S):
        start: Start = decode(await _line(reader), Start)
    outward = await asyncio.to_thread(open_store, start)
    instance = secrets.token_hex(8)
    session = Session(
        start,
        instance,
        Batches(start, instance, outward),
        Quarantine(Path(start.state_dir) / "quarantine"),
        Pipe(transport).tell,
        clock=clock,
        log=log,
        chance=random.random,
    )
    log.info("uplink_started", url=start.upstream.url, receiver=start.receiver or "the first", instance=instance)
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(session.run(), name="session"),
                tasks.create_task(_listen(reader, session, ended), name="news"),
            ]
            await ended.wait()
            for task in running:
                task.cancel()
    finally:
        await session.close()
        transport.close()
        outward.close()


async def _listen(reader: asyncio.StreamReader, session: Session, ended: asyncio.Event) -> None:
    """Lines of the daemon, until it is gone."""
    while line := await _line(reader):
        session.heard(decode(line, ToUplink))
    ended.set()


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ValueError:
        raise EdgedError(f"reading a line of the daemon: longer than {LINE_MAX_BYTES} bytes") from None
