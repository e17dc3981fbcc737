"""The process of an accelerator is replaced by a fresh one after so many calls, while events keep coming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.doubles.broker import Mosquitto
from tests.doubles.waiting import until
from tests.fault.daemon.test_accelerator import planted, start

RECYCLE = "[hardware.recycle]\ncalls = 50\n"


@pytest.mark.timeout(120)
def test_a_planned_replacement_misses_no_input_and_nobody_notices(
    tmp_path: Path, broker: Mosquitto, single_model: Path
) -> None:
    with planted(tmp_path, broker, single_model, settings=RECYCLE) as plant:
        start(plant)
        plant.wait_for("scripted:npu", 0)
        device = _device(plant.daemon.status())
        first_pid = device["pid"]
        pids = {first_pid}

        def replaced_twice() -> bool:
            pids.add(_device(plant.daemon.status())["pid"])
            return len(pids) > 2

        until(replaced_twice, f"the process was replaced twice: {plant.daemon.log[-3000:]}", 60, every_s=0.1)
        plant.check_all_answered()
        assert {result["runtime"] for result in plant.scada.results} == {"scripted:npu"}
        assert not any(result["degraded"] for result in plant.scada.results)
        assert plant.daemon.status()["mode"] == "normal"


def _device(status: dict[str, Any]) -> dict[str, Any]:
    (device,) = status["accelerators"]
    found: dict[str, Any] = device
    return found
