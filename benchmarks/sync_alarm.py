"""An alarm's way home on a line of 256 kbit/s, while a week's backlog drains over it.

    python -m benchmarks.sync_alarm [--alarms 100] [--rows 6000000]

From the publication of the event that raises the alarm until its row is committed at the hub (PostgreSQL tells by
NOTIFY, after the commit). A week at ten results a second are six million rows; at this rate they need the whole
measurement and hours more. The line is 256 kbit/s in each direction, with 20 ms delay and a queue of 32 kB.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time

import asyncpg
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.sync_rig import FIELDS, backlog, conclude, gateway, home, main, quantile, yield_to_others
from tests.doubles.chaos_link import Shape
from tests.doubles.upstream_site import UpstreamSite
from tests.doubles.waiting import until

MUST_S = 2.0
LINE = Shape(delay_s=0.02, rate_bytes_s=32_000, queue_bytes=32_000)
UPSTREAM = "rate_limit_kbit_s = 256\nreconnect_spread_s = 0"
TELL = """
CREATE FUNCTION tell_alarm() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_notify('alarm', NEW.payload->>'state'); RETURN NULL; END $$;
CREATE TRIGGER tell AFTER INSERT ON record FOR EACH ROW WHEN (NEW.kind = 'alarm') EXECUTE FUNCTION tell_alarm();
"""
SETTLE_S = 15.0  # until the sender knows the line


def event(value: float) -> bytes:
    values = ",".join([str(value)] * FIELDS)
    return b'{"ts":%d,"values":[%s]}' % (time.time_ns() // 1_000_000, values.encode())


async def raise_alarms(site: UpstreamSite, count: int) -> list[float]:
    """Seconds that each alarm took."""
    plant = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    plant.connect("127.0.0.1", site.plant.port, 60)
    plant.loop_start()
    connection = await asyncpg.connect(site.database)
    told: asyncio.Queue[str] = asyncio.Queue()
    await connection.execute(TELL)
    await connection.add_listener("alarm", lambda *said: told.put_nowait(said[3]))
    chance = random.Random(1)
    took = []
    for _ in range(count):
        await asyncio.sleep(chance.uniform(0.1, 0.6))
        for value in (1000.0, 0.0):  # it is raised, and cleared again
            begun = time.monotonic()
            plant.publish("in/alarm", event(value), 1)
            async with asyncio.timeout(60):
                await told.get()
            took.append(time.monotonic() - begun)
    plant.disconnect()
    plant.loop_stop()
    await connection.close()
    return took


def measure() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alarms", type=int, default=100)
    parser.add_argument("--rows", type=int, default=6_000_000)
    options = parser.parse_args()
    with gateway(shape=LINE, upstream=UPSTREAM) as site:
        until(lambda: "upstream_away" not in site.daemon.codes(), "the gateway is welcomed", 60)
        with backlog(site, options.rows):
            before = home(site)
        yield_to_others(site)
        until(lambda: home(site) > before, site.explain("the backlog drains"), 120, every_s=0.2)
        time.sleep(SETTLE_S)
        drained, begun = home(site), time.monotonic()
        took = asyncio.run(raise_alarms(site, options.alarms))
        drained = home(site) - drained
        left = options.rows - (home(site) - before)
        assert drained > 0, "the backlog stood still: this shows nothing"
        assert left > 0, "the backlog was home before the end: this shows nothing"
        seconds = time.monotonic() - begun
    figures = {"p50_s": quantile(took, 0.5), "p99_s": quantile(took, 0.99), "max_s": max(took)}
    print(f"{len(took)} alarms and ends of alarms; meanwhile {drained / seconds:,.0f} rows/s of backlog, {left:,} left")
    return conclude(
        "alarm end to end p99 at 256 kbit/s", figures["p99_s"], MUST_S, "s", at_least=False,
        **{name: round(value, 3) for name, value in figures.items()}, backlog_rows_s=round(drained / seconds),
    )  # fmt: skip


if __name__ == "__main__":
    main(measure)
