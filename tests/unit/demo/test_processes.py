"""Child processes start, stop, are killed, and die with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edged.demo.processes import Child
from edged.demo.waiting import Waiter
from edged.ops.clock import SystemClock

STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
PARENT = """
import sys, signal
from pathlib import Path
from edged.demo.processes import Child
sleep = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
child = Child("sleeper", [sys.executable, "-c", sleep], Path(sys.argv[1]))
child.start()
signal.pause()
"""


@pytest.fixture
def waiter() -> Waiter:
    return Waiter(SystemClock())


def python(code: str, log: Path, **environment: str) -> Child:
    return Child("child", [sys.executable, "-c", code], log, environment)


def test_a_child_writes_its_log_and_its_end_is_seen(tmp_path: Path, waiter: Waiter) -> None:
    with python("import os; print('hello', os.environ['WHO'])", tmp_path / "log", WHO="you") as child:
        assert child.ended() is None
        child.start()
        assert waiter.until(lambda: child.ended() is not None, 10)

    assert child.ended() == 0
    assert child.log_tail() == "hello you"


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path, waiter: Waiter) -> None:
    with python(STUBBORN, tmp_path / "log") as child:
        child.start()
        assert waiter.until(lambda: "up" in child.log_tail(), 10)

        assert child.stop(within_s=0.1) == -signal.SIGKILL


def test_a_child_can_be_started_again_and_leaving_the_block_kills_it(tmp_path: Path, waiter: Waiter) -> None:
    with python("print('up', flush=True); import signal; signal.pause()", tmp_path / "log") as child:
        child.start()
        child.kill()
        child.start()

    assert child.ended() == -signal.SIGKILL


def test_what_never_started_can_be_stopped_and_has_no_log(tmp_path: Path) -> None:
    child = python("", tmp_path / "log")
    child.kill()

    assert child.stop() is None
    assert child.log_tail() == "(no log)"


def test_children_die_even_when_the_parent_is_killed_with_9(tmp_path: Path, waiter: Waiter) -> None:
    log = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", PARENT, str(log)]) as parent:
        assert waiter.until(lambda: log.exists() and log.read_text().endswith("\n"), 20)
        pid = int(log.read_text())
        parent.kill()

    assert waiter.until(lambda: not alive(pid), 10)


def alive(pid: int) -> bool:
    """A zombie whose new parent has not reaped it yet counts as dead."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
