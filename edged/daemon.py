"""The life of the process: starts without waiting for anything outside, runs until told to stop, drains in time."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from edged.app import App, build
from edged.errors import EdgedError, ExitCode
from edged.ops.clock import SystemClock
from edged.ops.logs import Log
from edged.ops.memory import use_one_arena
from edged.ops.sdnotify import SystemdNotifier

if TYPE_CHECKING:
    from edged.config.settings import Config

DRAIN_S = 8.0  # below systemd's TimeoutStopSec, so that we end by ourselves and say what was left
STATUS_EVERY_S = 5.0
STALLED_AFTER_S = (
    20.0  # a unit in flight for so long, or for one watchdog interval, without an open store trouble: no food
)


class Stop:
    """The two-step stop: the first signal drains, the second one goes at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.now = asyncio.Event()

    def __call__(self) -> None:
        (self.now if self.asked.is_set() else self.asked).set()


def run(load: Callable[[], Config]) -> int:
    """Run the daemon in the foreground until SIGTERM or SIGINT.

    Args:
        load: reads the configuration; called again at SIGHUP.

    Returns:
        an exit code. Raises `EdgedError` for what the world did, which the command line explains.
    """
    use_one_arena()
    config = load()
    try:
        import uvloop
    except ImportError:  # no wheel for this platform: slower, otherwise the same
        return asyncio.run(serve(config, load))
    return uvloop.run(serve(config, load))


async def serve(config: Config, load: Callable[[], Config], stop: Stop | None = None) -> int:
    """Everything between the first and the last line of the log. `stop`: for tests that send no signals."""
    clock = SystemClock()
    log = Log(clock)
    notifier = SystemdNotifier()
    stop = stop or Stop()
    loop = asyncio.get_running_loop()
    reload = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    app = await build(config, clock=clock, log=log)
    loop.set_exception_handler(partial(_unhandled, app, log))
    await app.serve_status()
    _calm_garbage_collection()
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(work, name=name) for name, work in app.tasks()]
            running.append(tasks.create_task(_watch(app, notifier, clock), name="watchdog"))
            running.append(tasks.create_task(_reload(app, config, load, reload, log, notifier), name="reload"))
            notifier.ready(app.status_line())
            log.info("started", site=config.gateway.site, gateway=config.gateway.id, epoch=app.epoch)
            failed = await _first(stop.asked, app.failed)
            notifier.stopping()
            if not failed:
                await _drain(app, stop, log)
            await app.close_link()
            for task in running:
                task.cancel()
    except* EdgedError as group:
        raise group.exceptions[0] from None
    finally:
        await app.close()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
    log.info("stopped", waiting_results=app.waiting_results())
    if app.failure is not None:
        raise app.failure
    return ExitCode.OK


def _unhandled(app: App, log: Log, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An exception that no code of ours caught: a bug. A daemon that goes on half-working lies, so the process ends.

    What the network does to a transport (an `OSError`) arrives here as well and only costs that connection.
    """
    error = context.get("exception")
    log.error("unhandled", code=type(error).__name__, text=context.get("message", ""), detail=repr(error))
    if error is not None and not isinstance(error, OSError):
        app.on_failure(error)


def _calm_garbage_collection() -> None:
    """What exists by now lives as long as the process; batches are freed by reference counts.

    Without this the collector walks all modules again and again while hundreds of small tuples pass by.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


async def _first(stop: asyncio.Event, failed: asyncio.Event) -> bool:
    """Wait for a signal or a failure; True when it was a failure."""
    waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(failed.wait())]  # noqa: TID251 - awaited here
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return failed.is_set()


async def _drain(app: App, stop: Stop, log: Log) -> None:
    """Commit what was taken, send what is committed; what does not leave in time stays in the store."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            done = asyncio.ensure_future(app.drain())  # noqa: TID251 - awaited or cancelled below
            again = asyncio.ensure_future(stop.now.wait())  # noqa: TID251 - cancelled below
            try:
                await asyncio.wait([done, again], return_when=asyncio.FIRST_COMPLETED)
            finally:
                done.cancel()
                again.cancel()
    log.info("drained", waiting_results=app.waiting_results())


async def _watch(app: App, notifier: SystemdNotifier, clock: SystemClock) -> None:
    """Feed the watchdog only while the hot path moves: a loop that turns but commits nothing is not alive."""
    interval_s = min((notifier.watchdog_s or 0) / 2 or STATUS_EVERY_S, STATUS_EVERY_S)
    stalled_after_s = min(notifier.watchdog_s or STALLED_AFTER_S, STALLED_AFTER_S)
    while True:
        if app.moving(clock.mono_ns(), stalled_after_s):
            notifier.watchdog()
        notifier.status(app.status_line())
        await asyncio.sleep(interval_s)


async def _reload(
    app: App, config: Config, load: Callable[[], Config], asked: asyncio.Event, log: Log, notifier: SystemdNotifier
) -> None:
    """SIGHUP: take over what can be changed while running, say what needs a restart."""
    current = config
    while True:
        await asked.wait()
        asked.clear()
        notifier.reloading(app.clock.mono_ns())
        try:
            fresh = await asyncio.to_thread(load)
        except EdgedError as error:
            log.error("reload_refused", detail=str(error))
        else:
            applied, needs_restart = app.reload(current, fresh)
            current = fresh
            log.info("reloaded", applied=",".join(applied) or "nothing", needs_restart=",".join(needs_restart) or "no")
        notifier.ready(app.status_line())
