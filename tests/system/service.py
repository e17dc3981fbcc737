"""edged as a service of a machine: configured as on a gateway, asked through systemctl, journalctl and MQTT."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edged.demo.plant import FIELDS
from edged.demo.settings import ROOT, config_toml
from tests.doubles.waiting import until
from tests.system.machine import Machine

UNIT = "edged.service"
CONFIG = "/etc/edged/edged.toml"
STATE = Path("/var/lib/edged")
MODELS = Path("/usr/lib/edged/edged/demo/models")
_HEALTHY = (1.2, 30.0, 45.0, 100.0, 5.0, 0.8, 0.8)
_RESULTS = f"{ROOT}/result/+/anomaly"


class Service:
    """The service on its machine. A SCADA with a lasting session keeps every result that nobody has read yet."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._events = 0

    def install(self) -> Service:
        """What `make install` does after copying, and a configuration that passes the check."""
        self.machine.run("systemd-sysusers", "edged.conf")
        self.machine.run("systemctl", "daemon-reload")
        self.configure()
        self.machine.run("runuser", "-u", "edged", "--", "edged", "check")
        self._scada("-E")
        return self

    def configure(self, **more: str) -> None:
        """Write the configuration of the demo, which knows pumps. `more`: lines for its tables, by their names."""
        text = config_toml(port=1883, state_dir=STATE, models=MODELS)
        for table, lines in more.items():
            head = f"[{table}]\n"
            text = text.replace(head, head + lines) if head in text else f"{head}{lines}{text}"
        self.machine.write(CONFIG, text)

    def drop_in(self, text: str) -> None:
        """Settings of the unit that an administrator changed."""
        self.machine.write(f"/etc/systemd/system/{UNIT}.d/test.conf", text)
        self.machine.run("systemctl", "daemon-reload")

    def start(self) -> Service:
        self.systemctl("start")
        self.wait_for("ActiveState", "active")
        self.connected()
        return self

    def systemctl(self, verb: str, *more: str, check: bool = True) -> None:
        self.machine.run("systemctl", verb, *more, UNIT, check=check)

    def stop(self) -> float:
        """Stop; how long it took, in seconds."""
        begun = time.monotonic()
        self.systemctl("stop")
        return time.monotonic() - begun

    # --- looking ---

    def show(self, name: str) -> str:
        """A property of the unit, as systemd sees it."""
        return self.machine.run("systemctl", "show", UNIT, "--value", "--property", name).strip()

    def wait_for(self, name: str, value: str, within_s: float = 30.0) -> None:
        until(lambda: self.show(name) == value, f"{name} is {value}:\n{self.journal()}", within_s, every_s=0.1)

    def connected(self) -> None:
        """Wait until the broker has granted what edged subscribed to."""
        until(lambda: self.status().get("link", {}).get("up"), f"edged is connected:\n{self.journal()}", every_s=0.1)

    def says(self, text: str) -> None:
        """Wait until the status line of `systemctl status` has `text` in it."""
        until(lambda: text in self.show("StatusText"), f"{text!r} in the status:\n{self.journal()}", every_s=0.1)

    def journal(self) -> str:
        return self.machine.run("journalctl", "--unit", UNIT, "--output", "cat", "--no-pager")

    def wait_for_journal(self, text: str, within_s: float = 20.0) -> None:
        until(lambda: text in self.journal(), f"{text!r} stands in the journal:\n{self.journal()}", within_s, 0.1)

    def status(self) -> dict[str, Any]:
        """What `edged status --json` says; nothing while it does not run."""
        status: dict[str, Any] = json.loads(self.machine.run("edged", "status", "--json", check=False) or "{}")
        return status

    # --- events and results ---

    def publish(self, count: int, more: tuple[str, ...] = ()) -> list[int]:
        """Events of a pump, which the broker has on return; their numbers, counted from 1 on."""
        numbers = [self._events + 1 + index for index in range(count)]
        self._events += count
        sample = dict(zip(FIELDS, _HEALTHY, strict=True))
        lines = "".join(json.dumps({**sample, "seq": number}) + "\n" for number in numbers)
        at = ("-h", "127.0.0.1", "-q", "1", "-t", "plant/l1/pump/p1")
        self.machine.run("mosquitto_pub", *at, "-l", *more, text=lines)
        return numbers

    def answers(self, numbers: Iterable[int], more: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """Wait for the result of every event; one each, since a result that comes twice is the same twice."""
        wanted, found = set(numbers), dict[int, dict[str, Any]]()
        while missing := wanted - set(found):
            for line in self._scada("-C", str(len(missing)), "-W", "30", *more).splitlines():
                answer = json.loads(line)
                known = found.setdefault(answer["input"]["seq"], answer)
                assert known["id"] == answer["id"], "one event has two results"
        return [found[number] for number in sorted(wanted)]

    def answers_an_event(self) -> bool:
        """Whether one event more is answered, and by the model."""
        (answer,) = self.answers(self.publish(1))
        return bool(answer["runtime"] == "onnxruntime:cpu")

    def _scada(self, *more: str) -> str:
        session = ("-i", "scada", "-c", "-q", "1", "-V", "mqttv5", "-x", "3600")
        at = ("-h", "127.0.0.1")
        return self.machine.run("mosquitto_sub", *at, *session, "-t", _RESULTS, *more)
