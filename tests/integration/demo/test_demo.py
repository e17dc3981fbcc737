"""`edged demo` as people run it, with the real daemon: nothing lost, everything gone afterwards, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edged.demo.waiting import Waiter
from edged.ops.clock import SystemClock

EDGED = [sys.executable, "-m", "edged"]


def environment(folder: Path) -> dict[str, str]:
    """Temporary folders of the demo lie in `folder`."""
    return {**os.environ, "TMPDIR": str(folder)}


@pytest.mark.slow
def test_the_demo_survives_its_own_chaos_without_losing_anything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    demo = subprocess.run(
        [*EDGED, "demo", "--seconds", "8", "--chaos"],
        capture_output=True,
        text=True,
        env=environment(tmp_path),
        check=False,
        timeout=55,
    )

    assert demo.returncode == 0, demo.stdout + demo.stderr
    told = json.loads(demo.stdout.splitlines()[-1])
    assert (told["lost"], told["duplicates"], told["bad_results"], told["gaps"]) == (0, 0, 0, 0)
    assert told["results"] == told["expected_results"] > told["events"] > 500
    assert [damage["what"] for damage in told["chaos"]] == ["link_cut", "link_stalled", "kill9"]
    assert all(damage["recovered_s"] is not None for damage in told["chaos"])
    assert told["alarms"] >= 1
    assert told["ledger"]["balanced"]
    assert told["daemon_exit"] == 0
    assert list(tmp_path.iterdir()) == []


def test_nothing_survives_a_demo_that_is_killed_with_9(tmp_path: Path) -> None:
    waiter = Waiter(SystemClock())
    folder = tmp_path / "kept"
    log = folder / "edged.log"
    with subprocess.Popen([*EDGED, "demo", "--keep", str(folder)], stdout=subprocess.DEVNULL) as demo:
        assert waiter.until(lambda: log.exists() and "connected" in log.read_text(encoding="utf-8"), 30)
        assert len(children(demo.pid)) == 3  # broker, hub, daemon
        started = children(demo.pid)
        demo.send_signal(signal.SIGKILL)

    assert waiter.until(lambda: not any(alive(pid) for pid in started), 10)


def test_a_missing_package_is_named_with_the_cure() -> None:
    code = "import sys; sys.modules['paho'] = None; from edged.cli.main import run; sys.exit(run(['demo']))"
    demo = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert demo.returncode == 69
    assert "paho" in demo.stderr
    assert "pip install 'edged[demo]'" in demo.stderr
    assert "Traceback" not in demo.stderr


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def alive(pid: int) -> bool:
    """A zombie that nobody has reaped yet counts as dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
