"""One line per event, never a flood."""

from __future__ import annotations

import asyncio
import io
import logging
from contextlib import redirect_stderr

import pytest

from edged.ops.logs import Level, Log, LogBridge
from tests.doubles.clock import FakeClock


class Paper:
    """A log whose lines can be read."""

    def __init__(self, *, journal: bool = True, level: Level = "info") -> None:
        self.lines: list[str] = []
        self.clock = FakeClock(wall_ms=1_772_366_400_123)
        self.log = Log(self.clock, write=self.lines.append, journal=journal, level=level, burst_count=3, interval_s=30)


def test_under_systemd_a_line_carries_its_priority() -> None:
    paper = Paper()
    paper.log.info("mode_changed", before="normal", after="offline")
    paper.log.warning("gap", count=3)
    paper.log.error("store_io")
    assert paper.lines == ["<6>mode_changed before=normal after=offline\n", "<4>gap count=3\n", "<3>store_io\n"]


def test_elsewhere_a_line_carries_time_and_level() -> None:
    paper = Paper(journal=False)
    paper.log.info("started")
    assert paper.lines == ["2026-03-01T12:00:00.123Z info    started\n"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a\nb\x1b[31m", '"a\\nb\\u001b[31m"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("key=value", '"key=value"'),
        ("größe", '"größe"'),
        (None, "None"),
        (1.5, "1.5"),
        ("x" * 600, '"' + "x" * 500 + '…"'),
    ],
)
def test_every_value_is_one_word_on_one_line(value: object, shown: str) -> None:
    paper = Paper()
    paper.log.info("event", value=value)
    assert paper.lines == [f"<6>event value={shown}\n"]


def test_debug_lines_appear_only_when_asked_for() -> None:
    quiet, chatty = Paper(), Paper(level="debug")
    quiet.log.debug("detail")
    chatty.log.debug("detail")
    assert (quiet.lines, chatty.lines) == ([], ["<7>detail\n"])


def test_a_flood_of_one_event_is_cut_and_counted_in_its_next_line() -> None:
    paper = Paper()
    for number in range(10):
        paper.log.warning("refused", code="not_json", number=number)
    assert len(paper.lines) == 3
    assert paper.log.suppressed_count == 7
    paper.clock.advance_s(30)
    paper.log.warning("refused", code="not_json")
    assert paper.lines[-1] == "<4>refused code=not_json suppressed=7\n"
    paper.clock.advance_s(30)
    paper.log.warning("refused", code="not_json")
    assert paper.lines[-1] == "<4>refused code=not_json\n"


def test_a_flood_of_one_code_does_not_hide_another() -> None:
    paper = Paper()
    for _ in range(10):
        paper.log.warning("refused", code="not_json")
    paper.log.warning("refused", code="too_large")
    assert paper.lines[-1] == "<4>refused code=too_large\n"


def test_ever_new_codes_do_not_grow_memory_without_bound() -> None:
    paper = Paper()
    for number in range(3000):
        paper.log.warning("refused", code=number)
    assert len(paper.log._windows) <= 1024


def test_what_libraries_log_comes_out_as_ours() -> None:
    paper = Paper()
    logger = logging.getLogger("tests.library")
    logger.propagate = False
    logger.addHandler(LogBridge(paper.log))
    logger.info("chatter")
    logger.warning("slow callback")
    try:
        raise ValueError("boom")
    except ValueError:
        logger.exception("task failed")
    assert paper.lines == [
        '<4>library code=tests.library text="slow callback"\n',
        '<3>library code=tests.library text="task failed" cause="ValueError: boom"\n',
    ]


def test_a_broken_stderr_does_not_stop_the_daemon() -> None:
    broken = io.StringIO()
    broken.close()
    with redirect_stderr(broken):
        Log(FakeClock(), journal=False).info("started")


async def test_lines_go_to_stderr_from_the_loop(capsys: pytest.CaptureFixture[str]) -> None:
    Log(FakeClock(), journal=True).info("started", loop=asyncio.get_running_loop().is_running())
    assert capsys.readouterr().err == "<6>started loop=True\n"
