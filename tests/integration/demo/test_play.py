"""The demo around a stand-in daemon: it finds what a daemon does wrong, breaks things, and cleans up behind itself."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import pytest

from edged.demo.processes import DemoError
from edged.demo.run import Options, play
from edged.demo.show import LineShow
from edged.demo.summary import Summary
from edged.demo.view import Screen
from edged.ops.clock import SystemClock

STAND_IN = Path(__file__).with_name("stand_in.py")
CLOCK = SystemClock()


class Viewer(LineShow):
    """Looks at every frame and presses Ctrl-C once in each of the named phases, when a hundred events are through."""

    def __init__(self, out: TextIO, ctrl_c_in: Sequence[str]) -> None:
        super().__init__(out, CLOCK)
        self._ctrl_c_in = list(ctrl_c_in)

    def frame(self, make: Callable[[], Screen]) -> None:
        super().frame(make)
        if self._ctrl_c_in:
            screen = make()
            if screen.phase.startswith(self._ctrl_c_in[0]) and screen.tally.events >= 100:
                del self._ctrl_c_in[0]
                os.kill(os.getpid(), signal.SIGINT)


def demo(way: str, folder: Path, ctrl_c_in: Sequence[str] = (), **changes: Any) -> tuple[Summary, dict[str, Any]]:
    """Play for two seconds around the stand-in; what the demo wrote stays in `folder`."""
    options = Options(seconds=2.0, chaos=False, pumps=3, rate_hz=40.0, keep=folder)._replace(**changes)
    out = io.StringIO()
    with Viewer(out, ctrl_c_in) as show:
        summary = play(options, clock=CLOCK, daemon=[sys.executable, str(STAND_IN), way], show=show)
        show.end(summary)
    return summary, json.loads(out.getvalue().splitlines()[-1])


def running(folder: Path) -> list[str]:
    """Command lines of live processes that name `folder`."""
    lines = []
    for process in Path("/proc").iterdir():
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if process.name.isdigit() and str(folder) in line:
            lines.append(line)
    return lines


def test_an_honest_daemon_loses_nothing_and_everything_is_gone_afterwards(tmp_path: Path) -> None:
    summary, told = demo("honest", tmp_path / "kept")

    assert summary.kept_its_promise
    assert told["events"] > 150
    assert told["results"] == told["expected_results"] > told["events"]
    assert (told["lost"], told["duplicates"], told["unexpected"]) == (0, 0, 0)
    assert told["ledger"]["inputs"]["all"]["received"] == 7
    assert 0 < told["p50_ms"] <= told["p99_ms"] <= told["worst_ms"]
    assert running(tmp_path) == []
    assert {"edged.toml", "edged.log", "mosquitto.conf", "mosquitto.log"} <= {
        path.name for path in (tmp_path / "kept").iterdir()
    }


@pytest.mark.parametrize(("way", "figure"), [("forgetful", "lost"), ("doubtful", "duplicates")])
def test_a_daemon_that_breaks_the_promise_is_found_out(way: str, figure: str, tmp_path: Path) -> None:
    summary, told = demo(way, tmp_path / "kept", drain_s=1.0)

    assert not summary.kept_its_promise
    assert told[figure] == told["events"] // 50
    assert told["lost"] + told["duplicates"] == told[figure]
    assert bool(told["ledger"]) == (way != "doubtful")  # that one does not answer `status`


def test_chaos_breaks_link_and_daemon_and_an_honest_daemon_recovers_from_all_of_it(tmp_path: Path) -> None:
    summary, told = demo("honest", tmp_path / "kept", seconds=5.0, chaos=True)

    assert summary.kept_its_promise
    assert [damage["what"] for damage in told["chaos"]] == ["link_cut", "link_stalled", "kill9"]
    assert all(damage["recovered_s"] is not None for damage in told["chaos"])
    assert told["worst_ms"] > 400
    assert running(tmp_path) == []


def test_a_daemon_that_never_says_online_is_reported_and_killed(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="did not say `online`"):
        demo("mute", tmp_path / "kept", online_s=1.0)

    assert running(tmp_path) == []


def test_a_daemon_that_dies_by_itself_is_reported_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"ended by itself with status 75(.|\n)*enough"):
        demo("mortal", tmp_path / "kept")

    assert running(tmp_path) == []


def test_ctrl_c_ends_an_endless_demo_in_order(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)

    summary, told = demo("honest", tmp_path / "kept", ctrl_c_in=("running",), seconds=None)

    assert summary.kept_its_promise
    assert told["seconds"] < 10
    assert running(tmp_path) == []
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        demo("forgetful", tmp_path / "kept", ctrl_c_in=("running", "plant stopped"), seconds=None)

    assert running(tmp_path) == []


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(DemoError, match="precious"):
        demo("honest", tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DemoError, match="cannot use"):
        demo("honest", tmp_path / "file" / "below")
