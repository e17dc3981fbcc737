"""The hub as a service beside the gateway's: `make install-hub`, one configuration file, and the rows are home."""

from __future__ import annotations

import json

import pytest

from tests.doubles.waiting import until
from tests.system.service import Service

pytestmark = pytest.mark.timeout(180)

CONFIG = """
[hub]
state_dir = "/var/lib/edged-hub"
[database]
url = "sqlite:////var/lib/edged-hub/hub.db"
[broker]
url = "mqtt://127.0.0.1:1883"
[gateways]
allow = ["*/*"]
"""


def test_a_hub_on_the_same_machine_gets_every_result_and_survives_a_kill(installed: Service) -> None:
    machine = installed.machine
    machine.run("systemd-sysusers", "edged-hub.conf")
    machine.run("systemctl", "daemon-reload")
    machine.write("/etc/edged-hub/hub.toml", CONFIG)
    machine.run("systemctl", "start", "edged-hub")
    installed.configure(upstream='url = "mqtt://127.0.0.1:1883"\n')
    installed.start()

    installed.answers(installed.publish(30))
    machine.run("systemctl", "kill", "--signal=KILL", "edged-hub")
    installed.answers(installed.publish(30))

    made = int(installed.status()["next_result"]) - 1
    assert made > 60, "every event has a result, and every window"

    def home() -> bool:
        out = machine.run("runuser", "-u", "edged-hub", "--", "edged-hub", "ledger", "--json", check=False)
        rows = json.loads(out) if out.strip() else []
        return any(row["stream"] == "result" and row["rows"] == made and row["missing"] == 0 for row in rows)

    # A batch that the killed hub never answered is sent again half a minute later.
    until(home, f"all {made} results are home", 90, every_s=0.5)
    assert machine.run("systemctl", "show", "edged-hub", "--value", "--property", "NRestarts").strip() == "1"
