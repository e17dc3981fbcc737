"""What the benches of the way home share: a gateway with a backlog, a hub on PostgreSQL, a bad line between them.

Everything runs on one machine, where gateway, broker, hub and database compete for the processor; in real life the
last three are elsewhere. Benches that measure the gateway alone therefore make them yield (`yield_to_others`).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.native import LOADGEN, build
from benchmarks.processes import family
from tests.doubles.chaos_link import UNHURT, Shape
from tests.doubles.postgres import Postgres
from tests.doubles.upstream_site import QUICK, UpstreamSite
from tests.doubles.waiting import until
from tests.fault.conftest import summing

FIELDS = 16  # as the load generator sends
EVENTS_PER_MESSAGE = 50
PATTERNS = 128  # more rows than the window of a compressor holds
DEVICES = 50
PACKETS_AHEAD = 20
AHEAD_MAX = 20_000
LOOK_EVERY = 100
STORE = "budget_bytes = 8000000000\nfree_floor_bytes = 100000000\nsnapshot_interval_s = 60"
TABLE = """
[[pipeline]]
name = "bench"
topics = ["in/+"]
device = "{{topic[1]}}"
input = {{ fields = ["values"], window = 1 }}
model = {{ path = {model}, chain = ["onnxruntime:cpu"] }}
output = {{ kind = "anomaly", threshold = 1000.0, alarm = {{ severity = "high", clear_after = 1 }} }}
"""


@contextlib.contextmanager
def gateway(
    *, workers: int = 1, upstream: str = QUICK, shape: Shape = UNHURT, settings: dict[str, str] | None = None
) -> Iterator[UpstreamSite]:
    """A gateway whose results go to PostgreSQL; nobody on the plant's side listens to them."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edged-bench-")))
        cluster = Postgres({"shared_buffers": "256MB", "max_wal_size": "4GB", **(settings or {})})
        stack.callback(cluster.remove)
        cluster.start()
        model = summing(folder / "sum.onnx", FIELDS)
        table = TABLE.format(model=json.dumps(str(model)))
        yield stack.enter_context(
            UpstreamSite(
                folder, model, database=cluster.url(cluster.database()), workers=workers, upstream=upstream,
                shape=shape, store=STORE, pipelines=table, watched=("nothing/of/it",),
            )
        )  # fmt: skip


def next_result(site: UpstreamSite) -> int:
    return int(site.daemon.status()["next_result"])


def fill(site: UpstreamSite, rows: int) -> None:
    """Make so many results, as fast as the daemon takes their events, in messages of many events."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.max_inflight_messages_set(PACKETS_AHEAD)
    client.max_queued_messages_set(0)
    client.connect("127.0.0.1", site.plant.port, 60)
    client.loop_start()
    readings = _readings()
    before, begun = next_result(site), time.monotonic()
    for number, first in enumerate(range(0, rows, EVENTS_PER_MESSAGE)):
        client.publish(f"in/d{number % DEVICES}", _message(number, readings[number % PATTERNS][: rows - first]), 1)
        if number % LOOK_EVERY == 0:  # else everything would pile up in the broker, or in this client
            until(lambda first=first: first - (next_result(site) - before) < AHEAD_MAX, "the daemon follows", 60)  # type: ignore[misc]
    until(lambda: next_result(site) - before >= rows, f"{rows} results are made", 120)
    # Else what is measured next would stand behind all of them on its way to the plant.
    until(lambda: site.daemon.status()["waiting_results"] == 0, "the plant has every result", 60 + rows / 5000)
    print(f"{rows:,} results made and at the plant at {rows / (time.monotonic() - begun):,.0f}/s", flush=True)
    client.disconnect()
    client.loop_stop()


def _readings() -> list[list[bytes]]:
    """Values of some messages of events: noise, so that nothing compresses that would not in a plant."""
    chance = random.Random(1)
    return [
        [b",".join(b"%.3f" % chance.uniform(0, 10) for _ in range(FIELDS)) for _ in range(EVENTS_PER_MESSAGE)]
        for _ in range(PATTERNS)
    ]


def _message(number: int, readings: list[bytes]) -> bytes:
    """Events ten milliseconds apart, give or take, of the device whose turn it is."""
    first = 1_760_000_000_000 + number // DEVICES * EVENTS_PER_MESSAGE * 10 + number * 7 % 10
    parts = [b'{"ts":%d,"values":[%s]}' % (first + 10 * n, values) for n, values in enumerate(readings)]
    return b"[%s]" % b",".join(parts)


@contextlib.contextmanager
def backlog(site: UpstreamSite, rows: int) -> Iterator[None]:
    """A cut link and so many results that are not home; inside the block the link is cut."""
    site.link.cut()
    fill(site, rows)
    yield
    site.link.restore()


def home(site: UpstreamSite) -> int:
    """Results that the database has, without asking it to count them."""
    found = site.books.ask("SELECT coalesce(sum(rows), 0)::bigint FROM ledger WHERE stream = 'result'")
    return int(found[0][0])


def yield_to_others(site: UpstreamSite) -> None:
    """Hub, database and upstream broker get what the gateway and its plant leave: they would be on another machine."""
    near = {os.getpid(), site.plant.pid, *family(site.daemon.pid)}
    for pid in set(family(os.getpid())) - near:
        with contextlib.suppress(OSError):  # it has ended
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setscheduler(int(task.name), os.SCHED_IDLE, os.sched_param(0))


def plant_latency(site: UpstreamSite, seconds: float, rate_per_s: float = 500.0) -> dict[str, float]:
    """From an event's time to its result, both at the plant's broker: {"p50_us": …, "p99_us": …, "lost": …}."""
    build(LOADGEN)
    done = subprocess.run(
        [
            str(LOADGEN.path), "--port", str(site.plant.port), "--rate", str(rate_per_s), "--seconds", str(seconds),
            "--warm-s", "1", "--drain-s", "5", "--filter", "edged/v1/plant/gw/result/+/+", "--device-level", "5",
            "--marker", '"input":{', "--first-seq", str(time.monotonic_ns() // 1_000_000),
        ],
        capture_output=True, text=True, check=True, timeout=seconds + 60,
    )  # fmt: skip
    seen: dict[str, float] = json.loads(done.stdout)
    return seen | {"lost": seen["sent"] - seen["received"]}


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def conclude(name: str, value: float, must: float, unit: str, *, at_least: bool, **more: object) -> int:
    """Print the figure for people and, last, for machines; the exit code says whether the must holds."""
    holds = value >= must if at_least else value <= must
    load = round(os.getloadavg()[0], 1)
    word = "at least" if at_least else "at most"
    print(f"{name}: {value:,.4g} {unit}, must be {word} {must:g}: {'holds' if holds else 'MISSED'}")
    print(
        json.dumps(
            {"figure": name, "value": round(value, 4), "must": must, "unit": unit, "holds": holds, **more}
            | {"load_average": load}
        )
    )
    return 0 if holds else 1


def main(measure: Callable[[], int]) -> None:
    """Leave with what was measured; nothing stays behind, also when told to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(measure())
