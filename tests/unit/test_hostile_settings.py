"""The settings that make this suite hostile are on: each is provoked once, in a suite of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent

# edged.zz stands for product code: blocking is only looked for in calls that pass through edged.
BLOCKING = """
import time
import pytest
exec(compile("def block(): time.sleep(0.001)", {edged!r} + "/zz.py", "exec"))
{mark}
async def test_it():
    block()
"""


def outcome(folder: Path, source: str) -> str:
    """Run `source` as the only test of a suite with this repository's settings; return what pytest printed."""
    (folder / "conftest.py").write_text("from tests.conftest import *\n")
    (folder / "test_one.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-c", str(REPOSITORY / "pyproject.toml"), "--rootdir", str(folder), "-p"]
    command += ["no:cacheprovider", "--no-cov", str(folder)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_blocking_the_event_loop_fails_the_test(tmp_path: Path) -> None:
    printed = outcome(tmp_path, BLOCKING.format(edged=str(REPOSITORY / "edged"), mark=""))

    assert "BlockingError: Blocking call to time.sleep" in printed
    assert "1 failed" in printed


def test_blocking_is_allowed_for_a_stated_reason(tmp_path: Path) -> None:
    mark = "@pytest.mark.allow_blocking(reason='shows that it may')"

    assert "1 passed" in outcome(tmp_path, BLOCKING.format(edged=str(REPOSITORY / "edged"), mark=mark))


def test_blocking_is_not_allowed_without_a_reason(tmp_path: Path) -> None:
    printed = outcome(tmp_path, BLOCKING.format(edged=str(REPOSITORY / "edged"), mark="@pytest.mark.allow_blocking"))

    assert "allow_blocking needs a reason" in printed
    assert "passed" not in printed


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import warnings\ndef test_it(): warnings.warn('old')", "UserWarning: old"),
        ("import pytest\n@pytest.mark.typo\ndef test_it(): pass", "'typo' not found in `markers`"),
        ("import pytest\n@pytest.mark.xfail\ndef test_it(): pass", "XPASS(strict)"),
        (
            "import pytest, time\n@pytest.mark.timeout(0.1)\ndef test_it():\n    while True: time.sleep(0.01)",
            "Timeout (>0.1s)",
        ),
    ],
    ids=["warning", "unknown marker", "unexpected pass", "timeout"],
)
def test_what_should_fail_a_test_fails_it(tmp_path: Path, source: str, complaint: str) -> None:
    printed = outcome(tmp_path, source)

    assert complaint in printed
    assert "passed" not in printed
