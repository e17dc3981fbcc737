"""The systemd unit says what the daemon needs, and no more."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edged.daemon import DRAIN_S
from edged.errors import ExitCode

UNIT = Path(__file__).resolve().parents[3] / "systemd" / "edged.service"


def values(key: str) -> list[str]:
    """Everything the unit says for a key, in order."""
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)


def test_systemd_waits_for_readiness_and_watches_progress() -> None:
    assert values("Type") == ["notify"]
    assert 0 < int(values("WatchdogSec")[0]) <= 60


def test_a_wrong_configuration_is_not_tried_again_and_everything_else_is_for_ever() -> None:
    assert values("Restart") == ["on-failure"]
    assert values("RestartPreventExitStatus") == [str(int(ExitCode.CONFIG))]
    assert values("StartLimitIntervalSec") == ["0"]


def test_the_daemon_may_drain_before_it_is_killed() -> None:
    assert int(values("TimeoutStopSec")[0]) > DRAIN_S + 5


def test_onnxruntime_sends_no_telemetry() -> None:
    assert "ORT_DISABLE_TELEMETRY=1" in values("Environment")


def test_the_kernel_clock_may_be_read_and_not_set() -> None:
    assert values("SystemCallFilter")[-1].split() == ["adjtimex", "clock_adjtime"]
    assert values("ProtectClock") == []
    assert values("CapabilityBoundingSet") == [""]


def test_it_starts_without_a_network() -> None:
    assert "network-online.target" not in " ".join(values("After") + values("Wants") + values("Requires"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_sandbox_is_rated_two_or_better() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "Unknown" in done.stderr or "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot rate a unit offline")
    assert done.returncode == 0, done.stdout[-500:]
