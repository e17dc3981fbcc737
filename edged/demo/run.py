"""Plays the demo: broker, plant, daemon and SCADA together, breaks things when asked, and counts what came out."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from edged.demo import accelerator
from edged.demo.broker import start_broker
from edged.demo.chaos import Chaos
from edged.demo.facts import make_facts
from edged.demo.fleet import demo_plant
from edged.demo.hub import Line, ask_hub, hub_toml
from edged.demo.observer import Observer
from edged.demo.processes import Child, DemoError
from edged.demo.proxy import Proxy
from edged.demo.publisher import Publisher
from edged.demo.session import Session
from edged.demo.settings import ROOT, config_toml
from edged.demo.show import Show
from edged.demo.summary import Summary
from edged.demo.waiting import Waiter
from edged.ports import Clock

SEED = 7
_STATUS_S = 10.0
_LINGER_S = 0.3  # a duplicate would come right behind what it repeats


class Options(NamedTuple):
    """What was asked for. `seconds` None: until Ctrl-C. `keep`: folder for all that the demo writes, left in place."""

    seconds: float | None
    chaos: bool
    pumps: int
    rate_hz: float
    keep: Path | None
    online_s: float = 30.0  # starting Python, loading models and opening a store on a slow machine
    hub: Sequence[str] = ()  # command of edged-hub; without one no row goes anywhere
    accelerator: bool = False
    drain_s: float = 45.0  # a long wait between two attempts to reconnect, and the work after it


def play(options: Options, *, clock: Clock, daemon: Sequence[str], show: Show) -> Summary:
    """Play once and count. `daemon`: the command that `run --config FILE` is appended to.

    Raises `DemoError` when something does not start or dies without being asked to.
    """
    waiter = Waiter(clock)
    with ExitStack() as stack:
        stack.enter_context(_interrupts(waiter))
        folder = stack.enter_context(_working_folder(options.keep))
        broker, broker_port = start_broker(folder, waiter)
        stack.enter_context(broker)
        # Only chaos needs the proxy, and a proxy costs latency: without chaos the daemon talks to the broker itself.
        proxy = stack.enter_context(Proxy(broker_port)) if options.chaos else None

        centre = stack.enter_context(_centre(options.hub, folder, broker_port)) if options.hub else None

        config = folder / "edged.toml"
        port = proxy.port if proxy is not None else broker_port
        upstream_port = centre.line.port if centre is not None else None
        chain = accelerator.CHAIN if options.accelerator else accelerator.CHAIN[-1:]
        text = config_toml(port=port, state_dir=folder / "state", upstream_port=upstream_port, chain=chain)
        config.write_text(text, encoding="utf-8")
        edged = stack.enter_context(Child("edged", [*daemon, "run", "--config", str(config)], folder / "edged.log"))
        data = make_facts()
        stack.enter_context(Observer(ROOT, port=broker_port, facts=data, clock=clock))
        edged.start()

        session = Session(waiter, broker, edged, data, show, hub=centre.hub if centre is not None else None)
        session.wait_until_online(options.online_s)
        plant = demo_plant(options.pumps, SEED)
        publisher = Publisher(plant, port=broker_port, rate_hz=options.rate_hz, facts=data, clock=clock)
        publisher.start()
        session.begin(options.seconds)
        if proxy is not None:
            session.chaos = Chaos(proxy, edged, start_ns=clock.mono_ns(), seconds=options.seconds)
        if options.accelerator:
            kill = partial(_kill_accelerator, edged)
            session.accelerator = accelerator.Accelerator(kill, start_ns=clock.mono_ns(), seconds=options.seconds)
        if centre is not None:
            session.line = Line(centre.line, start_ns=clock.mono_ns(), seconds=options.seconds)
        session.watch()
        publisher.finish()
        session.drain(publisher.is_alive, options.drain_s)
        session.linger(_LINGER_S)
        return session.close(
            lambda: ask_ledger(daemon, config),
            lambda: ask_hub(options.hub, centre.config) if centre is not None else None,
        )


def _kill_accelerator(edged: Child) -> int:
    return accelerator.kill_workers(edged.pid) if edged.pid is not None else 0


class Centre(NamedTuple):
    """The hub, and the proxy that the gateway reaches it through."""

    hub: Child
    line: Proxy
    config: Path


@contextmanager
def _centre(command: Sequence[str], folder: Path, broker_port: int) -> Iterator[Centre]:
    """The hub listens on the same broker; what the gateway sends it goes through a line that can be cut."""
    (folder / "hub").mkdir()
    config = folder / "hub.toml"
    config.write_text(hub_toml(port=broker_port, folder=folder), encoding="utf-8")
    hub = Child("edged-hub", [*command, "run", "--config", str(config)], folder / "hub.log")
    with hub, Proxy(broker_port) as line:
        hub.start()
        yield Centre(hub, line, config)


def ask_ledger(daemon: Sequence[str], config: Path) -> dict[str, Any] | None:
    """The ledger as `edged status` tells it; None when it cannot."""
    command = [*daemon, "status", "--json", "--config", str(config)]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=_STATUS_S, check=True)
        return dict(json.loads(answer.stdout)["ledger"])
    except (subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _interrupts(waiter: Waiter) -> Iterator[None]:
    """The first SIGINT or SIGTERM ends the demo in order, the second one at once."""

    def asked(_number: int, _frame: FrameType | None) -> None:
        if waiter.interrupted.is_set():
            raise KeyboardInterrupt
        waiter.interrupted.set()

    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _working_folder(keep: Path | None) -> Iterator[Path]:
    """A temporary folder, or the one to keep, which must be new or empty."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="edged-demo-") as folder:
            yield Path(folder)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        taken = next(keep.iterdir(), None)
    except OSError as error:
        raise DemoError(f"cannot use {keep} as the demo's folder: {error}", hint="name another with --keep") from error
    if taken is not None:
        raise DemoError(
            f"the demo starts with an empty folder, but {keep} has {taken.name} in it", hint="name a new one"
        )
    yield keep.absolute()
