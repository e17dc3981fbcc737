"""Real input the way a plant sends it: through a real mosquitto to the real daemon process, and its answers back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tests.doubles.broker import Mosquitto
from tests.doubles.daemon import Daemon
from tests.doubles.scada import Scada
from tests.doubles.sensors import Sensors
from tests.doubles.waiting import until

Result = dict[str, Any]

# The replay is as fast as the broker takes it: nothing may fall out of a queue, no call counts as late.
ROOMY = ("max_queued_messages 0", "max_inflight_messages 1000")
DEADLINE_MS = 60_000
ANSWERED_WITHIN_S = 45.0


class Plant:
    """One daemon on a broker of its own, a publisher and a listener."""

    def __init__(self, daemon: Daemon, scada: Scada, sensors: Sensors) -> None:
        self.daemon = daemon
        self.scada = scada
        self._sensors = sensors
        self._sent = 0

    def publish(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """All of them at QoS 1, many in flight; returns when the broker has acknowledged each."""
        for topic, payload in messages:
            self._sensors.raw(topic, payload)
            self._sent += 1
        self._sensors.pause()

    def replay(self, messages: Iterable[tuple[str, bytes]], expected: int) -> list[Result]:
        """Publish, wait for so many results; every result that ever came, and not one more than expected."""
        self.publish(messages)
        self.scada.until_results(expected, ANSWERED_WITHIN_S)
        self.settled()
        results = list(self.scada.results)
        assert len({result["id"] for result in results}) == len(results) == expected
        return results

    def settled(self) -> dict[str, Any]:
        """The status once every message is acknowledged and every result has come; its books must be right."""
        status = until(self._settled, f"all is delivered:\n{self.daemon.log}", ANSWERED_WITHIN_S)
        assert status["ledger"]["balanced"]
        return status

    def _settled(self) -> dict[str, Any]:
        """The status; empty as long as something is under way."""
        status = self.daemon.status()
        waiting = status["waiting_results"] + sum(pipeline["waiting"] for pipeline in status["pipelines"].values())
        come = len(self.scada.results) >= status["next_result"] - 1
        return status if come and waiting == 0 and status["link"]["acks_sent"] >= self._sent else {}

    def quiet(self) -> None:
        """Nothing refused, nothing missing, nothing that went wrong: what a replay of good data looks like."""
        status = self.settled()
        for stream, terms in status["ledger"]["inputs"].items():
            assert (terms["refused"], terms["duplicates"]) == ({}, 0), stream
        assert self.scada.letters == []
        assert self.scada.gaps == []
        assert "Traceback" not in self.daemon.log


@contextmanager
def plant(folder: Path, *tables: str, limits: str = "gap_grace_ms = 200") -> Iterator[Plant]:
    """Start broker, daemon, listener and publisher for these `[[pipeline]]` tables."""
    with (
        Mosquitto(folder, *ROOMY) as broker,
        Daemon(folder, broker.port, *tables, limits=limits) as daemon,
        Scada(broker.port) as scada,
        Sensors(broker.port, []) as sensors,
    ):
        daemon.start().connected()
        yield Plant(daemon, scada, sensors)


def table(name: str, topic: str, model: Path, output: str, *, fields: Iterable[str], more: str = "") -> str:
    """One `[[pipeline]]` table. output: the inline table after `output =`; more: further keys of `input`."""
    return f"""
[[pipeline]]
name = "{name}"
topics = ["{topic}"]
device = "{{topic[1]}}"
input = {{ fields = {toml(list(fields))}{", " + more if more else ""} }}
model = {{ path = {toml(str(model))}, chain = ["onnxruntime:cpu"], deadline_ms = {DEADLINE_MS} }}
output = {output}
"""


def toml(value: object) -> str:
    """A text, number or list as TOML, which is JSON but for characters beyond the basic plane and DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def deviation(found: ArrayLike, expected: ArrayLike) -> float:
    """The largest relative difference."""
    wanted = np.asarray(expected, float)
    return float(np.max(np.abs(np.asarray(found, float) - wanted) / np.abs(wanted)))


def by_seq(results: Iterable[Result]) -> dict[int, Result]:
    """Results by the seq of their newest event, in that order."""
    found = sorted((result["input"]["seq"], result) for result in results)
    assert len(dict(found)) == len(found)
    return dict(found)
