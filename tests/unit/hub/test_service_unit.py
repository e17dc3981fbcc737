"""The systemd unit of the hub says what it needs, and no more; the reference page is current."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edged.errors import ExitCode
from edged.hub import reference
from edged.hub.supervisor import STOP_WORKERS_S
from edged.hub.worker import DRAIN_S

REPOSITORY = Path(__file__).resolve().parents[3]
UNIT = REPOSITORY / "systemd" / "edged-hub.service"
PAGE = REPOSITORY / "docs" / "reference" / "hub.md"


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


def test_workers_may_drain_before_they_are_killed() -> None:
    assert DRAIN_S < STOP_WORKERS_S < int(values("TimeoutStopSec")[0])


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


def test_the_reference_page_is_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert reference.page_with_keys(page) == page, "write it anew: python -m edged.hub.reference docs/reference/hub.md"


def test_the_page_can_be_written_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Hub\n{reference.BEGIN}\nold\n{reference.END}\nmore\n", encoding="utf-8")
    reference.main([str(page)])
    reference.main([])
    assert capsys.readouterr().out in page.read_text(encoding="utf-8")
    assert page.read_text(encoding="utf-8").endswith("\nmore\n")
