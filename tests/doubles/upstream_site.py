"""The whole way home on this machine: sensors, plant broker, daemon, a bad line, upstream broker, hub, its database.

with UpstreamSite(tmp_path, model) as site:
    site.sensors.round(100)
    site.settle()
    assert site.account().problems == []
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

from tests.doubles.broker import Mosquitto, free_port
from tests.doubles.certificates import Authority
from tests.doubles.chaos_link import UNHURT, ChaosLink, Scissors, Shape
from tests.doubles.daemon import Daemon, NotifySocket, pipeline
from tests.doubles.hub_books import Account, HubBooks, account
from tests.doubles.netns import FAR_ADDRESS, LossyLine
from tests.doubles.scada import Scada
from tests.doubles.sensors import Sensors, devices
from tests.doubles.waiting import until

T = TypeVar("T")

EDGED_HUB = Path(sys.executable).with_name("edged-hub")
READY_WITHIN_S = 20.0
PLANT = "max_queued_messages 100000"
TOKEN = "a-token-that-nobody-guesses"
FAR_PORT = 18_830  # in a namespace of its own every port is free
UPSTREAM = "max_queued_messages 1000", "max_packet_size 2000000"
QUICK = "rate_limit_kbit_s = 1000000\nreconnect_spread_s = 0\nlive_interval_ms = 200"
"""Upstream settings under which a test need not wait."""

_HUB = """
[hub]
state_dir = {state}
workers = {workers}
[database]
url = {database}
[gateways]
allow = ["{allow}"]
{more}
"""


class Hub:
    """`edged-hub run` with everything it needs in `folder`. Leaving the `with` block kills it.

    more: tables of its configuration, as text. env: added to the environment of the process.
    """

    def __init__(
        self,
        folder: Path,
        database: str,
        *,
        broker_port: int = 0,
        workers: int = 1,
        broker: str = "",
        more: str = "",
        allow: str = "plant/*",
        env: Mapping[str, str] | None = None,
        measured: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.state = folder / "hub"
        self.log_file = folder / "hub.log"
        self.notify = NotifySocket(folder)
        self._config = folder / "hub.toml"
        self._env = dict(env or {})
        self._measured = measured
        if broker_port:
            more = f'[broker]\nurl = "mqtt://127.0.0.1:{broker_port}"\n{broker}\n{more}'
        self._settings = {
            "state": json.dumps(str(self.state)), "database": json.dumps(database), "workers": workers, "more": more,
        }  # fmt: skip
        self.allow(allow)
        self._process: subprocess.Popen[bytes] | None = None

    def allow(self, pattern: str) -> None:
        """Which gateways it takes rows of, from its next start on."""
        self._config.write_text(_HUB.format(allow=pattern, **self._settings))

    def launch(self) -> Hub:
        """Start without waiting for anything."""
        env = {**os.environ, "NOTIFY_SOCKET": self.notify.address, **self._env}
        if not self._measured:
            env = {name: value for name, value in env.items() if not name.startswith("COV")}
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [str(EDGED_HUB), "run", "--config", str(self._config)],
                env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0,
            )  # fmt: skip
        return self

    def start(self) -> Hub:
        """Start and wait until it is healthy."""
        self.launch()
        return self.healthy()

    def healthy(self, within_s: float = READY_WITHIN_S) -> Hub:
        try:
            until(lambda: self.answers("/healthz").get("healthy"), "the hub is healthy", within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None
        return self

    def answers(self, page: str = "/status") -> dict[str, Any]:
        """A page of its status socket; empty when nobody answers."""
        assert self._process is not None
        assert self._process.poll() is None, f"the hub ended with {self._process.returncode}:\n{self.log}"
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(self.state / "hub.sock"))
            client.sendall(f"GET {page} HTTP/1.0\r\n\r\n".encode())
            response = http.client.HTTPResponse(client)
            response.begin()
            found: dict[str, Any] = json.loads(response.read())
            return found
        return {}

    def workers(self) -> list[int]:
        """Their process ids."""
        return [worker["pid"] for worker in self.answers()["workers"] if worker["pid"]]

    def kill(self) -> None:
        """SIGKILL to the supervisor and every worker, at whatever instant this is."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self, within_s: float = 30.0) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(within_s)

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def __enter__(self) -> Hub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.kill()
        self.notify.close()


class Listening(Protocol):
    """A broker between gateway and hub."""

    port: int

    def kill(self) -> None: ...


class UpstreamSite:
    """Everything started and connected, on free loopback ports.

    database: of the hub; a SQLite file of its own when "". upstream: settings of the table. broker: the upstream
    broker, already running; a mosquitto when None. hub_broker: more settings of the hub's table `broker`.
    shape: of the link between gateway and upstream broker; there is another one between broker and hub.
    scissors: cut the link there, once; it may be the first connection.
    https: the gateway brings its batches to the hub itself; there is no broker between them.
    watched: topics of the plant that the SCADA takes; all by default.
    line: a line that loses packets between gateway and upstream broker, instead of that link.
    """

    def __init__(
        self,
        folder: Path,
        model: Path,
        *,
        database: str = "",
        workers: int = 1,
        upstream: str = QUICK,
        shape: Shape = UNHURT,
        broker: Listening | None = None,
        hub_broker: str = "",
        store: str = "snapshot_interval_s = 1",
        names: int = 4,
        allow: str = "plant/*",
        state: Path | None = None,
        line: LossyLine | None = None,
        watched: tuple[str, ...] = (),
        scissors: Scissors | None = None,
        https: bool = False,
        daemon_env: Mapping[str, str] | None = None,
        pipelines: str = "",
    ) -> None:
        self._stack = contextlib.ExitStack()
        self.folder = folder
        self.database = database or f"sqlite:///{folder / 'hub.db'}"
        self._model = model
        self._pipelines = pipelines or pipeline("single", model)
        self._workers = workers
        self._upstream_settings = upstream
        self._shape = shape
        self._given_broker = broker
        self._hub_broker = hub_broker
        self._store = store
        self._names = names
        self._allow = allow
        self._state = state
        self._line = line
        self._watched = watched
        self._scissors = scissors
        self._daemon_env = daemon_env
        self._https = https
        self.extents: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> UpstreamSite:
        try:
            self._build()
        except BaseException:
            self._stack.__exit__(*sys.exc_info())
            raise
        return self

    def _build(self) -> None:
        for name in ("plant", "centre"):
            (self.folder / name).mkdir()
        with self._line.far() if self._line else contextlib.nullcontext():
            address = self._build_centre()
        with self._line.near() if self._line else contextlib.nullcontext():
            self._build_plant(address)

    def _build_centre(self) -> str:
        """Broker and hub; the table `upstream` of a gateway that is to reach them."""
        if self._https:
            return self._build_https_centre()
        enter = self._stack.enter_context
        more = (f"listener {FAR_PORT} {FAR_ADDRESS}",) if self._line else ()
        self.broker = self._given_broker or enter(Mosquitto(self.folder / "centre", *UPSTREAM, *more))
        self.link = enter(ChaosLink(self.broker.port, self._shape))
        if self._scissors is not None:
            self.link.arm(self._scissors)
        self.hub_link = enter(ChaosLink(self.broker.port))
        self.hub = enter(
            Hub(
                self.folder / "centre",
                self.database,
                broker_port=self.hub_link.port,
                workers=self._workers,
                broker=self._hub_broker,
                allow=self._allow,
            )
        )
        self.hub.start()
        self.books = HubBooks(self.database)
        address = f"{FAR_ADDRESS}:{FAR_PORT}" if self._line else f"127.0.0.1:{self.link.port}"
        return f'url = "mqtt://{address}"\n'

    def _build_https_centre(self) -> str:
        """A hub without a broker, to which the gateway shows a token over TLS."""
        enter = self._stack.enter_context
        certificate, key = (authority := Authority(self.folder / "ca")).issue("hub")
        here, there = self.folder / "token", self.folder / "tokens"
        here.write_text(TOKEN + "\n")
        there.write_text(f"{TOKEN} plant/gw\n")
        for secret in (here, there):
            secret.chmod(0o600)
        port = free_port()
        table = {"listen": f"127.0.0.1:{port}", "cert_file": certificate, "key_file": key, "tokens_file": there}
        more = "[http]\n" + "".join(f'{name} = "{value}"\n' for name, value in table.items())
        self.link = enter(ChaosLink(port, self._shape))
        if self._scissors is not None:
            self.link.arm(self._scissors)
        folder = self.folder / "centre"
        self.hub = enter(Hub(folder, self.database, workers=self._workers, more=more, allow=self._allow))
        self.hub.start()
        self.books = HubBooks(self.database)
        trust = f'ca_file = "{authority.ca_file}"\ntoken_file = "{here}"\n'
        return f'url = "https://localhost:{self.link.port}"\n{trust}'

    def _build_plant(self, upstream: str) -> None:
        enter = self._stack.enter_context
        self.plant = enter(Mosquitto(self.folder / "plant", PLANT, "set_tcp_nodelay true"))
        table = f"[upstream]\n{upstream}{self._upstream_settings}\n"
        self.daemon = enter(
            Daemon(
                self.folder, self.plant.port, table, self._pipelines, store=self._store, env=self._daemon_env,
                state=self._state,
            )
        )  # fmt: skip
        self.daemon.start().connected()
        self.scada = enter(Scada(self.plant.port, *self._watched))
        self.sensors = enter(Sensors(self.plant.port, devices(self._names)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, where)

    # --- what is compared ---

    def note_extent(self) -> tuple[str, int]:
        """Remember what the gateway has made so far in its present epoch, from 1 on; (epoch, last number)."""
        status = self.daemon.status()
        epoch, last = status["identity"]["epoch"], status["next_result"] - 1
        first = self.extents.get(epoch, (1, 0))[0]
        self.extents[epoch] = first, last
        return epoch, last

    def settle(self, within_s: float = 30.0) -> None:
        """Wait until everything that the sensors sent is answered, and everything that was made is home."""
        self.sensors.pause()
        self.scada.until_results(len(self.sensors.acknowledged))
        self.until(self.is_home, "everything is home", within_s, every_s=0.1)

    def until(self, condition: Callable[[], T], what: str, within_s: float = 20.0, every_s: float = 0.02) -> T:
        """Wait; when it does not become true, the logs of both sides are in the message."""
        try:
            return until(condition, what, within_s, every_s)
        except AssertionError as error:
            raise AssertionError(self.explain(str(error))) from None

    def is_home(self) -> bool:
        """Every stream of the gateway, alarms and health included, and the rows that the gateway knows of."""
        epoch, last = self.note_extent()
        with contextlib.suppress(Exception):  # the database may be away, or without its tables
            ledger = self.books.ledger()
            mine = ledger.get((epoch, "result"))
            made = 0 if mine is None else mine["base"] + mine["made"] - 1
            return made >= last and not any(books["missing"] for books in ledger.values())
        return False

    def account(self) -> Account:
        return account(self.books, self.extents, list(self.scada.results))

    def explain(self, what: str) -> str:
        return f"{what}\n--- edged ---\n{self.daemon.log[-4000:]}\n--- edged-hub ---\n{self.hub.log[-4000:]}"
