"""The page about device health is made from the tables, and tells honestly what ran on hardware."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edged.ops.sensors.reference import FACTS, SOURCES, main, reference
from edged.policy.governor import LADDER, LEVELS, Facts

PAGE = Path(__file__).resolve().parents[4] / "docs" / "reference" / "device-health.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), (
        f"write it anew: python -m edged.ops.sensors.reference {PAGE}"
    )


def test_every_level_reason_and_fact_stands_on_the_page() -> None:
    page = reference()
    assert all(f"| `{name}` |" in page for name in (*LEVELS, *FACTS, *(cause.code for cause in LADDER)))
    assert tuple(FACTS) == Facts._fields


def test_every_table_is_whole() -> None:
    widths: dict[int, int] = {}
    for number, line in enumerate(reference().splitlines()):
        if line.startswith("|"):
            widths[number] = line.count("|")
            assert widths.get(number - 1, widths[number]) == widths[number], line


def test_a_line_of_the_page_is_verified_or_says_that_it_is_not() -> None:
    lines = re.findall(r"(not verified on hardware|read on a running system) \|$", reference(), re.MULTILINE)
    assert len(lines) == len(SOURCES)
    assert {source.what for source in SOURCES if source.verified} == {"pressure (PSI)", "memory", "disk"}


def test_the_page_is_written_or_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "page.md")])
    main([])
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == capsys.readouterr().out == reference()
